//! Against archives on loopback, with programs that are shell scripts.

use super::*;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

/// Serves the files of a directory until the test ends.
fn serve(dir: PathBuf) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head
                .split(' ')
                .nth(1)
                .unwrap_or("/")
                .trim_start_matches('/')
                .to_owned();
            let answer = match std::fs::read(dir.join(path)) {
                Ok(body) => [
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes(),
                    body,
                ]
                .concat(),
                Err(_) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            };
            let _ = stream.write_all(&answer);
        }
    });
    base
}

fn script(at: &Path, body: &str) {
    std::fs::write(at, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
}

struct Release {
    dir: tempfile::TempDir,
    plan: Plan,
}

impl Release {
    /// A program of version 1 that is in place, and an archive with one that does `body`.
    fn new(body: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (bin, www, pack) = (
            dir.path().join("bin"),
            dir.path().join("www"),
            dir.path().join("pack/arp"),
        );
        for d in [&bin, &www, &pack] {
            std::fs::create_dir_all(d).unwrap();
        }
        script(&bin.join("arps"), "echo 'arps 1'");
        script(&pack.join("arps"), body);
        script(&pack.join("helper"), "echo 'helper 2'");
        let name = "arp-test-target.tar.gz";
        let mut tar = Command::new("tar");
        tar.arg("-czf")
            .arg(www.join(name))
            .arg("-C")
            .arg(dir.path().join("pack"))
            .arg("arp");
        assert!(tar.status().unwrap().success());
        let sum = hash(&www.join(name)).unwrap();
        std::fs::write(
            www.join("SHA256SUMS"),
            format!("{}  other\n{sum}  {name}\n", "0".repeat(64)),
        )
        .unwrap();
        let plan = Plan {
            name: "arps",
            at: bin.join("arps"),
            base: serve(www),
            target: "test-target".into(),
            with: &[],
        };
        Self { dir, plan }
    }

    fn version(&self) -> String {
        version_of(&self.plan.at, "arps").unwrap()
    }

    fn beside(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.path().join("bin")).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_release_takes_the_place_and_the_old_one_is_kept() {
    let release = Release::new("echo 'arps 2'");
    assert_eq!(release.plan.install().unwrap(), Updated::To("arps 2".into()));
    assert_eq!(
        (release.version().as_str(), release.beside()),
        ("arps 2", vec!["arps".into(), "arps.old".into()])
    );
    assert_eq!(release.plan.install().unwrap(), Updated::Same("arps 2".into()));
    release.plan.roll_back().unwrap();
    assert_eq!(
        (release.version().as_str(), release.beside()),
        ("arps 1", vec!["arps".to_owned()])
    );
}

#[test]
fn what_belongs_to_a_program_comes_along_and_goes_back_with_it() {
    let mut release = Release::new("echo 'arps 2'");
    release.plan.with = &["helper", "not-released"];
    let bin = release.dir.path().join("bin");
    let says = |program: &str| std::fs::read_to_string(bin.join(program)).unwrap_or_default();
    script(&bin.join("helper"), "echo 'helper 1'");
    // Of an update long ago.
    script(&bin.join("not-released"), "now");
    script(&bin.join("not-released.old"), "before");
    release.plan.install().unwrap();
    assert!(says("helper").contains("helper 2") && says("helper.old").contains("helper 1"));
    release.plan.roll_back().unwrap();
    assert!(says("helper").contains("helper 1") && says("arps").contains("arps 1"));
    assert!(says("not-released").contains("now"));

    // One that is new comes, too, also to a program that is the newest but for it.
    std::fs::remove_file(bin.join("helper")).unwrap();
    release.plan.install().unwrap();
    assert!(says("helper").contains("helper 2"));
    std::fs::remove_file(bin.join("helper")).unwrap();
    assert_eq!(release.plan.install().unwrap(), Updated::Same("arps 2".into()));
    assert!(says("helper").contains("helper 2"));
}

#[test]
fn what_is_not_right_changes_nothing() {
    for body in [
        "echo 'something else'",
        "exit 1",
        "echo 'arps 2'; exit 3",
        "kill -9 $$",
    ] {
        let release = Release::new(body);
        assert!(
            matches!(release.plan.install(), Err(UpdateError::DoesNotRun(_))),
            "{body}"
        );
        assert_eq!(
            (release.version().as_str(), release.beside()),
            ("arps 1", vec!["arps".to_owned()])
        );
    }
    let release = Release::new("echo 'arps 2'");
    let www = release.dir.path().join("www");
    let sums = std::fs::read_to_string(www.join("SHA256SUMS")).unwrap();
    std::fs::write(www.join("SHA256SUMS"), sums.lines().next().unwrap()).unwrap();
    assert!(matches!(release.plan.install(), Err(UpdateError::NoChecksum(_))));
    let wrong = format!("{}  arp-test-target.tar.gz\n", "a".repeat(64));
    std::fs::write(www.join("SHA256SUMS"), wrong).unwrap();
    assert!(matches!(release.plan.install(), Err(UpdateError::Checksum(_))));
    std::fs::remove_file(www.join("SHA256SUMS")).unwrap();
    assert!(matches!(release.plan.install(), Err(UpdateError::Fetch(..))));
    assert_eq!(
        (release.version().as_str(), release.beside()),
        ("arps 1", vec!["arps".to_owned()])
    );
}

#[test]
fn one_that_does_not_start_makes_room_for_the_old_one() {
    let release = Release::new("echo 'arps 2'");
    release.plan.install().unwrap();
    let (up, started) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let restart = || {
        started.set(started.get() + 1);
        Ok(())
    };
    let never = || {
        up.set(up.get() + 1);
        false
    };
    let done = release.plan.restart(restart, never, Duration::ZERO);
    assert!(matches!(done, Err(UpdateError::DidNotStart(_))));
    assert_eq!((release.version().as_str(), started.get()), ("arps 1", 2));
    release.plan.install().unwrap();
    release.plan.restart(restart, || true, Duration::ZERO).unwrap();
    assert_eq!((release.version().as_str(), started.get()), ("arps 2", 3));
}

#[test]
fn a_release_has_an_address_of_its_own() {
    assert_eq!(
        of_version("https://x/releases/latest/download", "v1"),
        "https://x/releases/download/v1"
    );
    assert_eq!(
        of_version("http://127.0.0.1:1/a", "v1"),
        "http://127.0.0.1:1/a/v1"
    );
}

#[test]
fn only_https_or_this_machine() {
    for (base, safe) in [
        ("https://example.com/x", true),
        ("http://127.0.0.1:80/x", true),
        ("http://localhost", true),
        ("http://example.com", false),
        ("http://127.0.0.1.example.com", false),
        ("http://localhost@example.com", false),
        ("ftp://127.0.0.1", false),
        ("file:///etc", false),
    ] {
        assert_eq!(is_safe(base), safe, "{base}");
    }
}
