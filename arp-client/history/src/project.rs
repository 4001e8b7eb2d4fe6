//! Names of projects.

use crate::formats::slug;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// An id for a directory of an agent that has none: like Claude's names, and a few digits of a hash, since
/// that name alone may stand for several directories.
pub(crate) fn id_of(path: &str) -> String {
    let mut id = slug(path);
    // Long paths: the end says more than the beginning.
    if id.len() > 100 {
        id.drain(..id.len() - 100);
    }
    id.push('-');
    for byte in Sha256::digest(path.as_bytes()).iter().take(4) {
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// The last part of a path, for showing.
pub(crate) fn short_name(path: &str) -> String {
    let end = path.trim_end_matches(['/', '\\']);
    end.rsplit(['/', '\\'])
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or(path)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_different_directories_differ() {
        assert_eq!(id_of("/home/dev/my.app"), id_of("/home/dev/my.app"));
        assert_ne!(id_of("/home/dev/my.app"), id_of("/home/dev/my-app"));
        assert!(id_of("/home/dev/my.app").starts_with("-home-dev-my-app-"));
        assert!(id_of(&"/x".repeat(500)).len() < 120);
    }

    #[test]
    fn the_short_name_is_the_last_part() {
        for (path, name) in [
            ("/a/b", "b"),
            ("/a/b/", "b"),
            ("/", "/"),
            ("C:\\x\\y", "y"),
            ("", ""),
        ] {
            assert_eq!(short_name(path), name);
        }
    }
}
