//! A visitor and an agent that try to reach what lies outside the root.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_files::{ByteRange, EntryType, FilesError, FoundAt, ListPage, RelPath, Root, Roots};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SECRET: &str = "the secret outside";

struct Place {
    _temp: tempfile::TempDir,
    inside: std::path::PathBuf,
    outside: std::path::PathBuf,
}

/// A root with a few files, and a secret beside it.
fn place() -> Place {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().canonicalize().unwrap();
    let (inside, outside) = (base.join("root"), base.join("outside"));
    fs::create_dir_all(inside.join("dir/deep")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("secret"), SECRET).unwrap();
    fs::write(inside.join("hello.txt"), "hello").unwrap();
    fs::write(inside.join("dir/deep/x"), "x").unwrap();
    Place {
        _temp: temp,
        inside,
        outside,
    }
}

fn open(path: &Path) -> Root {
    Roots::new([path]).unwrap().root(path).unwrap()
}

fn read(root: &Root, path: &str) -> Result<String, FilesError> {
    root.read(&RelPath::parse(path)?, None).map(|f| f.content)
}

fn list(root: &Root, path: &str) -> Result<Vec<String>, FilesError> {
    let listed = root.list(&RelPath::parse(path)?, ListPage::default())?;
    Ok(listed.entries.into_iter().map(|e| e.name).collect())
}

#[test]
fn symlinks_out_of_the_root_are_refused_for_reading_and_listing() {
    let place = place();
    symlink("/etc", place.inside.join("absolute")).unwrap();
    symlink("/etc/passwd", place.inside.join("passwd")).unwrap();
    symlink("../outside", place.inside.join("relative")).unwrap();
    symlink("../../outside/secret", place.inside.join("dir/up")).unwrap();
    symlink("absolute", place.inside.join("twice")).unwrap();
    symlink(&place.inside, place.inside.join("own")).unwrap();
    let root = open(&place.inside);

    for path in [
        "absolute/passwd",
        "passwd",
        "relative/secret",
        "dir/up",
        "twice/passwd",
        "own/hello.txt",
    ] {
        assert!(
            matches!(read(&root, path), Err(FilesError::OutsideRoot)),
            "{path}: {:?}",
            read(&root, path)
        );
    }
    for path in ["absolute", "relative", "twice"] {
        assert!(
            matches!(list(&root, path), Err(FilesError::OutsideRoot)),
            "{path}"
        );
    }
}

#[test]
fn a_refusal_does_not_tell_whether_the_thing_outside_exists() {
    let place = place();
    symlink("../outside/secret", place.inside.join("there")).unwrap();
    symlink("../outside/missing", place.inside.join("not_there")).unwrap();
    let root = open(&place.inside);
    let (there, not_there) = (
        read(&root, "there").unwrap_err(),
        read(&root, "not_there").unwrap_err(),
    );
    assert_eq!(
        (there.code(), there.to_string()),
        (not_there.code(), not_there.to_string())
    );
    // Nor does the listing.
    let listed = root
        .list(&RelPath::parse("").unwrap(), ListPage::default())
        .unwrap();
    for link in listed.entries.iter().filter(|e| e.kind == EntryType::Symlink) {
        assert_eq!(
            (link.target, link.size, link.mtime),
            (None, None, None),
            "{}",
            link.name
        );
    }
}

#[test]
fn symlinks_that_stay_inside_work() {
    let place = place();
    symlink("../hello.txt", place.inside.join("dir/up_but_inside")).unwrap();
    symlink("dir", place.inside.join("alias")).unwrap();
    let root = open(&place.inside);
    assert_eq!(read(&root, "dir/up_but_inside").unwrap(), "hello");
    assert_eq!(read(&root, "alias/deep/x").unwrap(), "x");
    let listed = root
        .list(&RelPath::parse("dir").unwrap(), ListPage::default())
        .unwrap();
    let link = listed.entries.iter().find(|e| e.name == "up_but_inside").unwrap();
    assert_eq!(
        (link.kind, link.target, link.size),
        (EntryType::Symlink, Some(EntryType::File), Some(5))
    );
}

#[test]
fn encoded_dots_reach_nothing() {
    let place = place();
    let root = open(&place.inside);
    // What a caller that decodes once hands over for `..%2f`, `%252e%252e/`, `..%00/`.
    assert!(matches!(
        read(&root, "../outside/secret"),
        Err(FilesError::OutsideRoot)
    ));
    assert!(matches!(
        read(&root, "..%2foutside%2fsecret"),
        Err(FilesError::NotFound)
    ));
    assert!(matches!(
        read(&root, "%2e%2e/outside/secret"),
        Err(FilesError::NotFound)
    ));
    assert!(matches!(
        read(&root, "..\0/outside/secret"),
        Err(FilesError::InvalidPath(_))
    ));
    assert!(matches!(
        read(&root, "..\\outside\\secret"),
        Err(FilesError::NotFound)
    ));
    // Overlong UTF-8 of `.` and `/` stays bytes.
    let path = RelPath::parse_bytes(b"\xc0\xae\xc0\xae\xc0\xafoutside/secret").unwrap();
    assert!(matches!(root.read(&path, None), Err(FilesError::NotFound)));
}

#[test]
fn proc_magic_links_are_not_followed() {
    let root = open(Path::new("/proc/self"));
    for path in ["root/etc/passwd", "cwd", "fd/0", "exe"] {
        let got = root.get(&RelPath::parse(path).unwrap(), None, ListPage::default());
        assert!(got.is_err(), "{path}: {got:?}");
    }
}

#[test]
fn a_symlink_swapped_in_while_reading_never_leaks() {
    let place = place();
    fs::create_dir(place.inside.join("good")).unwrap();
    fs::write(place.inside.join("good/secret"), "harmless").unwrap();
    symlink("../outside", place.inside.join("evil")).unwrap();
    fs::rename(place.inside.join("good"), place.inside.join("swap")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (inside, stop) = (place.inside.clone(), Arc::clone(&stop));
        move || {
            let (swap, park, evil) = (inside.join("swap"), inside.join("park"), inside.join("evil"));
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&swap, &park).unwrap();
                fs::rename(&evil, &swap).unwrap();
                fs::rename(&swap, &evil).unwrap();
                fs::rename(&park, &swap).unwrap();
            }
        }
    });

    let root = open(&place.inside);
    let (mut good, mut refused, started) = (0u32, 0u32, Instant::now());
    while started.elapsed() < Duration::from_millis(500) || good == 0 || refused == 0 {
        match read(&root, "swap/secret") {
            Ok(content) => {
                assert_eq!(content, "harmless");
                good += 1;
            }
            Err(_) => refused += 1,
        }
        if let Ok(names) = list(&root, "swap") {
            assert_eq!(names, ["secret"]);
            let entry = root.list(&RelPath::parse("swap").unwrap(), ListPage::default());
            if let Ok(listed) = entry {
                assert!(
                    listed.entries.iter().all(|e| e.size == Some(8)),
                    "size of the file outside was told"
                );
            }
        }
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "good {good}, refused {refused}"
        );
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
}

#[test]
fn a_project_directory_that_is_a_link_out_of_the_roots_is_not_a_root() {
    let place = place();
    symlink(&place.outside, place.inside.join("project")).unwrap();
    let roots = Roots::new([&place.inside]).unwrap();
    assert!(matches!(
        roots.root(place.inside.join("project")),
        Err(FilesError::NotAllowed)
    ));
    assert!(matches!(roots.root(&place.outside), Err(FilesError::NotAllowed)));
    assert!(matches!(
        roots.root(place.inside.join("../outside")),
        Err(FilesError::NotAllowed)
    ));
    assert!(matches!(roots.root("root"), Err(FilesError::NotAllowed)));
    assert!(matches!(
        roots.root(place.inside.join("missing")),
        Err(FilesError::NotAllowed)
    ));
    // A sibling whose name begins like the root's is not below it.
    let sibling = place.inside.with_file_name("root-two");
    fs::create_dir(&sibling).unwrap();
    assert!(matches!(roots.root(&sibling), Err(FilesError::NotAllowed)));
    assert_eq!(
        roots.root(place.inside.join("dir")).unwrap().path(),
        place.inside.join("dir")
    );
}

#[test]
fn pipes_sockets_and_devices_are_refused_at_once() {
    let place = place();
    let fifo = place.inside.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(place.inside.join("socket")).unwrap();
    symlink("fifo", place.inside.join("to_fifo")).unwrap();
    let (done, wait) = std::sync::mpsc::channel();
    let inside = place.inside.clone();
    std::thread::spawn(move || {
        let root = open(&inside);
        let special = |path| matches!(read(&root, path), Err(FilesError::SpecialFile));
        let dev = open(Path::new("/dev"));
        let device = matches!(read(&dev, "zero"), Err(FilesError::SpecialFile));
        done.send((special("fifo"), special("socket"), special("to_fifo"), device))
            .unwrap();
    });
    let got = wait
        .recv_timeout(Duration::from_secs(5))
        .expect("reading a pipe must not block");
    assert_eq!(got, (true, true, true, true));
    let listed = open(&place.inside)
        .list(&RelPath::parse("").unwrap(), ListPage::default())
        .unwrap();
    let kind = |name: &str| listed.entries.iter().find(|e| e.name == name).unwrap().kind;
    assert_eq!(
        (kind("fifo"), kind("socket")),
        (EntryType::Other, EntryType::Other)
    );
}

#[test]
fn loops_and_long_names_are_plain_errors() {
    let place = place();
    symlink("loop_b", place.inside.join("loop_a")).unwrap();
    symlink("loop_a", place.inside.join("loop_b")).unwrap();
    symlink("self", place.inside.join("self")).unwrap();
    let root = open(&place.inside);
    for path in ["loop_a", "self", "self/x"] {
        assert!(
            matches!(read(&root, path), Err(FilesError::InvalidPath(_))),
            "{path}"
        );
    }
    assert!(matches!(
        read(&root, &"n".repeat(300)),
        Err(FilesError::InvalidPath(_))
    ));
    assert!(read(&root, &"d/".repeat(2_000)).is_err());
    assert!(matches!(
        read(&root, "hello.txt/x"),
        Err(FilesError::NotADirectory)
    ));
}

#[test]
fn get_tells_files_from_directories() {
    let place = place();
    let root = open(&place.inside);
    let get = |path| root.get(&RelPath::parse(path).unwrap(), None, ListPage::default());
    assert!(matches!(get("").unwrap(), FoundAt::Directory(_)));
    assert!(matches!(get("dir/").unwrap(), FoundAt::Directory(_)));
    assert!(matches!(get("hello.txt").unwrap(), FoundAt::File(_)));
    let range = Some(ByteRange::From {
        start: 1,
        len: Some(3),
    });
    let FoundAt::File(file) = root
        .get(&RelPath::parse("hello.txt").unwrap(), range, ListPage::default())
        .unwrap()
    else {
        panic!("not a file")
    };
    assert_eq!(
        (file.content.as_str(), file.offset, file.truncated),
        ("ell", 1, false)
    );
}

#[test]
fn an_unreadable_file_is_told_apart_from_a_missing_one() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    let path = place.inside.join("locked");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let root = open(&place.inside);
    // The superuser may read it all the same.
    if !rustix::process::geteuid().is_root() {
        assert!(matches!(read(&root, "locked"), Err(FilesError::PermissionDenied)));
    }
    assert!(matches!(read(&root, "missing"), Err(FilesError::NotFound)));
}

#[test]
fn a_project_counts_only_as_what_it_really_is_and_never_holds_a_home_or_a_disk() {
    let place = place();
    let home = place.inside.join("dir");
    symlink(&place.outside, place.inside.join("link")).unwrap();
    let mut roots = Roots::default();
    for (bad, why) in [
        (Path::new("/").to_owned(), "the disk"),
        (Path::new("/tmp/..").to_owned(), "the disk by another name"),
        (place.inside.join("dir/.."), "a way up"),
        (place.inside.join("link"), "a link"),
        (home.clone(), "the home directory"),
        (place.inside.clone(), "what holds the home directory"),
        (place.inside.join("missing"), "nothing"),
        (Path::new("dir").to_owned(), "a relative path"),
    ] {
        let refused = roots.add_project(&bad, Some(&home)).unwrap_err();
        assert_eq!(refused.code(), "root_not_allowed", "{why}");
    }
    assert!(roots.paths().is_empty());
    roots.add_project(home.join("deep"), Some(&home)).unwrap();
    assert!(roots.holds(home.join("deep")) && !roots.holds(&home) && !roots.holds("/etc"));
    assert!(!roots.holds(home.join("deep/../..")));
}

#[test]
fn what_is_hidden_is_read_by_no_way_and_everything_else_is() {
    let place = place();
    symlink("dir", place.inside.join("link")).unwrap();
    let mut roots = Roots::new([&place.inside]).unwrap();
    roots.hide(place.inside.join("dir"));
    let root = roots.root(&place.inside).unwrap();
    for path in [
        "dir",
        "dir/deep",
        "dir/deep/x",
        "link/deep/x",
        "link",
        "./dir//deep/./x",
    ] {
        let refused = root.get(&RelPath::parse(path).unwrap(), None, ListPage::default());
        assert_eq!(refused.unwrap_err().code(), "hidden", "{path}");
    }
    let deep = roots.root(place.inside.join("dir/deep")).unwrap();
    assert_eq!(
        deep.read(&RelPath::parse("x").unwrap(), None).unwrap_err().code(),
        "hidden"
    );
    assert_eq!(
        root.read(&RelPath::parse("hello.txt").unwrap(), None)
            .unwrap()
            .content,
        "hello"
    );
}
