//! What is given for ordinary files and directories, and in which shape.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_files::{ByteRange, Encoding, FileContent, ListPage, MAX_ENTRIES, MAX_FILE_BYTES, RelPath, Roots};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

fn root() -> (tempfile::TempDir, PathBuf, arp_files::Root) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().canonicalize().unwrap();
    let root = Roots::new([&path]).unwrap().root(&path).unwrap();
    (temp, path, root)
}

fn rel(path: &str) -> RelPath {
    RelPath::parse(path).unwrap()
}

#[test]
fn text_is_utf8_and_anything_else_base64() {
    let (_temp, path, root) = root();
    fs::write(path.join("text"), "größe €\n").unwrap();
    fs::write(path.join("nul"), b"a\0b").unwrap();
    fs::write(path.join("latin1"), b"gr\xf6\xdfe").unwrap();
    fs::write(path.join("empty"), b"").unwrap();
    let read = |name: &str| root.read(&rel(name), None).unwrap();
    assert_eq!(
        (read("text").encoding, read("text").content.as_str()),
        (Encoding::Utf8, "größe €\n")
    );
    assert_eq!(
        (read("nul").encoding, read("nul").content.as_str()),
        (Encoding::Base64, "YQBi")
    );
    assert_eq!(
        (read("latin1").encoding, read("latin1").content.as_str()),
        (Encoding::Base64, "Z3L232U=")
    );
    assert_eq!(
        (
            read("empty").encoding,
            read("empty").bytes,
            read("empty").truncated
        ),
        (Encoding::Utf8, 0, false)
    );
}

#[test]
fn a_large_file_is_cut_at_the_limit_and_its_ranges_give_the_rest() {
    let (_temp, path, root) = root();
    // Three bytes a character: the limit goes through one.
    let text = "€".repeat(500_000);
    fs::write(path.join("big"), &text).unwrap();
    let mut whole = String::new();
    let mut reads = 0;
    loop {
        let range = ByteRange::From {
            start: whole.len() as u64,
            len: None,
        };
        let part: FileContent = root.read(&rel("big"), Some(range)).unwrap();
        assert_eq!((part.encoding, part.size), (Encoding::Utf8, 1_500_000));
        assert!(part.bytes <= MAX_FILE_BYTES && part.bytes == part.content.len() as u64);
        whole.push_str(&part.content);
        reads += 1;
        if !part.truncated {
            break;
        }
    }
    assert_eq!((whole == text, reads), (true, 2));

    let exact = vec![b'x'; MAX_FILE_BYTES as usize];
    fs::write(path.join("exact"), exact).unwrap();
    let exact = root.read(&rel("exact"), None).unwrap();
    assert_eq!((exact.bytes, exact.truncated), (MAX_FILE_BYTES, false));
}

#[test]
fn ranges_beyond_the_end_are_refused_with_the_size() {
    let (_temp, path, root) = root();
    fs::write(path.join("f"), "0123456789").unwrap();
    let read = |range| root.read(&rel("f"), Some(range));
    assert_eq!(read(ByteRange::Last(3)).unwrap().content, "789");
    assert_eq!(
        read(ByteRange::From {
            start: 8,
            len: Some(100)
        })
        .unwrap()
        .content,
        "89"
    );
    let error = read(ByteRange::From { start: 11, len: None }).unwrap_err();
    assert_eq!((error.code(), error.status()), ("bad_range", 416));
    assert!(error.to_string().contains("10 bytes"));
}

#[test]
fn a_file_answers_in_the_known_shape() {
    let (_temp, path, root) = root();
    fs::create_dir(path.join("src")).unwrap();
    fs::write(path.join("src/a.rs"), "fn main() {}").unwrap();
    let mut value = serde_json::to_value(root.read(&rel("src/a.rs"), None).unwrap()).unwrap();
    assert!(value["mtime"].take().as_i64().unwrap() > 1_600_000_000);
    assert_eq!(
        value,
        json!({"type": "file", "session_id": null, "project_path": path, "path": "src/a.rs", "size": 12,
            "mtime": null, "offset": 0, "bytes": 12, "encoding": "utf-8", "truncated": false,
            "content": "fn main() {}"})
    );
}

#[test]
fn a_directory_answers_in_the_known_shape_sorted_directories_first() {
    let (_temp, path, root) = root();
    for dir in ["zoo", "api"] {
        fs::create_dir(path.join(dir)).unwrap();
    }
    for (file, size) in [("b.txt", 3), ("a.txt", 5), (".hidden", 0)] {
        fs::write(path.join(file), vec![b'x'; size]).unwrap();
    }
    let mut value = serde_json::to_value(root.list(&rel(""), ListPage::default()).unwrap()).unwrap();
    for entry in value["entries"].as_array_mut().unwrap() {
        assert!(entry["mtime"].take().as_i64().unwrap() > 1_600_000_000);
    }
    let entry = |name: &str, kind: &str, size: Option<u64>| json!({"name": name, "type": kind, "size": size, "mtime": null});
    assert_eq!(
        value,
        json!({"type": "directory", "session_id": null, "project_path": path, "path": "", "offset": 0, "total": 5,
        "truncated": false, "entries": [
            entry("api", "directory", None), entry("zoo", "directory", None),
            entry(".hidden", "file", Some(0)), entry("a.txt", "file", Some(5)), entry("b.txt", "file", Some(3)),
        ]})
    );
}

#[test]
fn pages_of_a_directory_join_to_the_whole_and_a_huge_one_is_capped() {
    let (_temp, path, root) = root();
    for n in 0..2_500 {
        fs::write(path.join(format!("f{n:05}")), "").unwrap();
    }
    let mut names = Vec::new();
    while let page = root
        .list(
            &rel(""),
            ListPage {
                offset: names.len(),
                limit: 999_999,
            },
        )
        .unwrap()
        && !page.entries.is_empty()
    {
        assert!(page.entries.len() <= arp_files::MAX_PAGE);
        assert_eq!(page.total, 2_500);
        names.extend(page.entries.into_iter().map(|e| e.name));
    }
    assert_eq!(names, (0..2_500).map(|n| format!("f{n:05}")).collect::<Vec<_>>());

    for n in 2_500..=MAX_ENTRIES {
        fs::write(path.join(format!("f{n:05}")), "").unwrap();
    }
    let page = root.list(&rel(""), ListPage { offset: 0, limit: 1 }).unwrap();
    assert_eq!(
        (page.total, page.truncated, page.entries.len()),
        (MAX_ENTRIES, true, 1)
    );
}

#[test]
fn an_absolute_path_is_given_to_the_innermost_root_that_holds_it() {
    let (_temp, path, _) = root();
    fs::create_dir_all(path.join("a/b")).unwrap();
    fs::write(path.join("a/b/f"), "f").unwrap();
    let roots = Roots::new([path.clone(), path.join("a"), path.join("a")]).unwrap();
    assert_eq!(roots.paths().len(), 2);
    let (root, below) = roots.locate(path.join("a/b/f").to_str().unwrap()).unwrap();
    assert_eq!(
        (root.path(), below.display().as_str()),
        (path.join("a").as_path(), "b/f")
    );
    assert_eq!(root.read(&below, None).unwrap().content, "f");
    for outside in ["/etc/passwd", "etc", "", "/"] {
        assert_eq!(
            roots.locate(outside).err().map(|e| e.code()),
            Some("root_not_allowed"),
            "{outside}"
        );
    }
    let climbing = path.join("a/../../x");
    assert_eq!(
        roots.locate(climbing.to_str().unwrap()).err().map(|e| e.code()),
        Some("outside_root")
    );
    #[cfg(unix)]
    {
        // By another name that leads there; a way up in it is never followed.
        let other = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&path, other.path().join("link")).unwrap();
        let (root, below) = roots.locate(other.path().join("link/a/b/f")).unwrap();
        assert_eq!(root.read(&below, None).unwrap().content, "f");
        assert!(roots.locate(other.path().join("link/a/../a/b/f")).is_err());
    }
    let listing = serde_json::to_value(roots.listing()).unwrap();
    assert_eq!(listing["roots"][1]["name"], "a");
}

#[test]
fn roots_must_be_existing_directories_named_absolutely() {
    let (_temp, path, _) = root();
    fs::write(path.join("file"), "").unwrap();
    for bad in [PathBuf::from("relative"), path.join("missing"), path.join("file")] {
        assert_eq!(Roots::new([bad]).unwrap_err().code(), "bad_root");
    }
}

#[cfg(unix)]
#[test]
fn a_name_that_is_not_utf8_can_be_asked_for_by_its_raw_name() {
    use std::os::unix::ffi::OsStrExt;
    let (_temp, path, root) = root();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(path.join(name), "latin").unwrap();
    let listed = root.list(&rel(""), ListPage::default()).unwrap();
    let raw = listed.entries[0].raw_name.clone().unwrap();
    assert_eq!(
        (listed.entries[0].name.as_str(), raw.as_str()),
        ("caf\u{fffd}", "caf%E9")
    );
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(&raw).collect();
    assert_eq!(
        root.read(&RelPath::parse_bytes(&decoded).unwrap(), None)
            .unwrap()
            .content,
        "latin"
    );
}
