//! Test helpers of arp: daemons on free ports, recording origins, scripted peers, a loopback model API.
//!
//! Panicking is how a test helper reports that the machine is not as the test needs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cli;
pub mod client;
pub mod counting;
pub mod daemon;
pub mod http;
pub mod middlebox;
pub mod model_api;
pub mod origin;
pub mod ports;
#[cfg(unix)]
pub mod services;
pub mod web;

use std::path::PathBuf;

/// Gives a test up, loudly, because something is missing on this machine: `what` says what, and how to get it.
/// Always false.
///
/// # Panics
/// When `CI` is `true`: there, a test that is skipped is a test that is lost.
pub fn skip(what: &str) -> bool {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what}");
    eprintln!("\n*** SKIPPED: {what} ***\n");
    false
}

/// Where the program `name` is, in the directories of `PATH`.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|place| place.join(name))
        .find(|candidate| candidate.is_file())
}
