//! Which program a session's host is, and that it does not matter.

use super::{Edge, host_of};
use crate::support::ARPC;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SMALL: &str = env!("CARGO_BIN_EXE_arpc-session-host");

/// An `arpc` with nothing beside it.
fn alone(root: &Path) -> PathBuf {
    let dir = root.join("bin");
    std::fs::create_dir(&dir).unwrap();
    // Beside a link lies what is beside the program, and nothing else.
    let program = dir.join("arpc");
    if std::fs::hard_link(ARPC, &program).is_err() {
        std::fs::copy(ARPC, &program).unwrap();
    }
    program
}

/// Puts this beside it.
fn put(place: &Path, content: &[u8], mode: u32) {
    let _ = std::fs::remove_file(place);
    let new = place.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::rename(new, place).unwrap();
}

/// The program of the session's host.
fn program_of(edge: &Edge, id: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/{}/exe", host_of(edge, id))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_starts_whatever_lies_beside_arpc() {
    let root = tempfile::tempdir().unwrap();
    let arpc = alone(root.path());
    let small = arpc.with_file_name("arpc-session-host");
    let good = std::fs::read(SMALL).unwrap();
    let edge = Edge::start_program_at(arpc.clone(), root).await;
    let started = async |what: &str| {
        let id = edge.session("say hi").await;
        let view = edge.until_status(&id, "idle").await;
        assert_eq!(view["activity"], "hi", "{what}");
        let program = program_of(&edge, &id);
        edge.delete(&format!("/api/sessions/{id}")).await;
        program
    };
    assert_eq!(started("nothing").await, arpc);
    let other = format!("#!/bin/sh\nexec {SMALL} 999\n");
    for (what, content, mode) in [
        ("not executable", &good[..], 0o644),
        ("everybody may change it", &good, 0o777),
        ("another protocol", other.as_bytes(), 0o755),
        ("no program", b"\x7fELF and no more", 0o755),
        ("cut short", &good[..65_536], 0o755),
        (
            "says something else",
            b"#!/bin/sh\necho hello\nexec sleep 1000\n",
            0o755,
        ),
        ("dies", b"#!/bin/sh\ncat >/dev/null\nkill -9 $$\n", 0o755),
    ] {
        put(&small, content, mode);
        assert_eq!(started(what).await, arpc, "{what}");
    }
    std::fs::remove_file(&small).unwrap();
    std::fs::create_dir(&small).unwrap();
    assert_eq!(started("a directory").await, arpc);
    std::fs::remove_dir(&small).unwrap();
    std::os::unix::fs::symlink(SMALL, &small).unwrap();
    assert_eq!(started("a link").await, arpc);
    put(&small, &good, 0o755);
    assert_eq!(started("what belongs there").await, small);
}

#[test]
fn the_small_program_refuses_another_protocol() {
    for args in [&["999"][..], &[], &["1", "2"], &["session-host"]] {
        let done = Command::new(SMALL).args(args).output().unwrap();
        assert_eq!((done.status.code(), done.stdout.len()), (Some(76), 0), "{args:?}");
    }
    let version = Command::new(SMALL).arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    assert!(version.starts_with("arpc-session-host "), "{version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_of_either_program_are_found_again() {
    let root = tempfile::tempdir().unwrap();
    let arpc = alone(root.path());
    let small = arpc.with_file_name("arpc-session-host");
    let mut edge = Edge::start_program_at(arpc.clone(), root).await;
    let before = edge.session("ticks 300 5").await;
    put(&small, &std::fs::read(SMALL).unwrap(), 0o755);
    let after = edge.session("ticks 300 5").await;
    let hosts = [&before, &after].map(|id| host_of(&edge, id));
    assert_eq!(
        [&before, &after].map(|id| program_of(&edge, id)),
        [arpc, small.clone()]
    );

    edge.kill_and_restart();
    // And once more without what the second was started by: a removed program runs on.
    std::fs::remove_file(&small).unwrap();
    edge.kill_and_restart();

    for id in [&before, &after] {
        edge.until_status(id, "idle").await;
        let events = edge.events(id).await;
        let ticks = events.iter().filter(|event| event["type"] == "text").count();
        assert_eq!(ticks, 300);
    }
    assert_eq!(
        [&before, &after].map(|id| host_of(&edge, id)),
        hosts,
        "the same hosts"
    );
}
