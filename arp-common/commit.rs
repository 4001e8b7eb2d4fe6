//! Build script of both programs: which commit they are built from, as `ARP_COMMIT`, and for which system. A variable of
//! that name wins; else a release build asks git, where there is one, or the archive of sources that it is built from. A
//! development build says `dev`: to be right it would have to be built anew after each commit.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=ARP_COMMIT");
    println!("cargo::rerun-if-changed=../arp-common/commit.rs");
    let release = std::env::var("PROFILE").is_ok_and(|p| p == "release");
    let told = std::env::var("ARP_COMMIT").ok().filter(|c| !c.is_empty());
    let commit = match told {
        Some(commit) => commit,
        None if release => from_git()
            .or_else(from_archive)
            .unwrap_or_else(|| "unknown".to_owned()),
        None => "dev".to_owned(),
    };
    println!("cargo::rustc-env=ARP_COMMIT={commit}");
    // Which archive of a release is ours, for `update`. Those for Linux are static, and run everywhere.
    let target = std::env::var("TARGET").unwrap_or_default();
    let target = target.replace("-linux-gnu", "-linux-musl");
    println!("cargo::rustc-env=ARP_TARGET={target}");
}

fn from_git() -> Option<String> {
    // A source archive that was unpacked in somebody's own repository is not a commit of that.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let ours = Path::new("..").canonicalize().ok()?;
    if Path::new(&top).canonicalize().ok()? != ours {
        return None;
    }
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// git writes the commit into this file when it makes an archive (`export-subst` in .gitattributes).
fn from_archive() -> Option<String> {
    const FILE: &str = "../arp-common/commit.txt";
    println!("cargo::rerun-if-changed={FILE}");
    let text = std::fs::read_to_string(FILE).ok()?;
    let commit = text.trim();
    let is_one = commit.len() >= 12 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    is_one.then(|| commit[..12].to_owned())
}

fn git(args: &[&str]) -> Option<String> {
    let done = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?;
    done.status.success().then(|| text.trim().to_owned())
}
