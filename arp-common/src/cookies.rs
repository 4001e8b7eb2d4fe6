//! Names of the cookies that are arp's: what begins with `arp_` (behind a prefix that browsers guard, or not) is
//! nobody else's. Clients of one relay may share an origin in the browser, so each has names of its own, and the
//! relay lets each set and see only those.

use crate::ids::ClientId;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// How our names begin.
const RESERVED: &[u8] = b"arp_";
/// Prefixes whose cookies a browser takes only under conditions.
const GUARDED: [&[u8]; 2] = [b"__Host-", b"__Secure-"];

/// Is a cookie of this name arp's?
#[must_use]
pub fn is_reserved(name: &[u8]) -> bool {
    let bare = GUARDED.iter().find_map(|guard| {
        let (front, rest) = name.split_at_checked(guard.len())?;
        front.eq_ignore_ascii_case(guard).then_some(rest)
    });
    bare.unwrap_or(name).starts_with(RESERVED)
}

/// Is a cookie of this name one of this client's own?
#[must_use]
pub fn is_own(name: &[u8], client: &ClientId) -> bool {
    let tag = tag(client);
    is_reserved(name)
        && name
            .strip_suffix(tag.as_bytes())
            .is_some_and(|front| front.ends_with(b"_"))
}

/// The cookie in which a browser keeps that it has shown this client's edge key.
#[must_use]
pub fn edge_login(client: &ClientId) -> String {
    format!("arp_edge_{}", tag(client))
}

/// The cookie in which a browser keeps that its pages are of this client's own origin.
#[must_use]
pub fn edge_origin(client: &ClientId) -> String {
    format!("__Host-arp_origin_{}", tag(client))
}

/// What tells one client's cookies from another's, and its id to nobody. Ids have no case.
fn tag(client: &ClientId) -> String {
    let mut hash = Sha256::new();
    hash.update(b"arp cookie names\0");
    hash.update(client.as_str().to_ascii_lowercase());
    let mut tag = String::new();
    for byte in &hash.finalize()[..8] {
        // Writing to a String cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_names_of_its_own() {
        let (a, b): (ClientId, ClientId) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        for name in [edge_login(&a), edge_origin(&a)] {
            assert!(
                is_reserved(name.as_bytes()) && is_own(name.as_bytes(), &a),
                "{name}"
            );
            assert!(!is_own(name.as_bytes(), &b), "{name}");
        }
        assert_eq!(edge_login(&a), edge_login(&"ALICE".parse().unwrap()));
        for ours in ["arp_token", "arp_edge", "arp_x", "__host-arp_x", "__Secure-arp_"] {
            assert!(
                is_reserved(ours.as_bytes()) && !is_own(ours.as_bytes(), &a),
                "{ours}"
            );
        }
        for theirs in ["arp", "arpa_x", "x_arp_", "__Host-sid", "ARP_x", ""] {
            assert!(!is_reserved(theirs.as_bytes()), "{theirs}");
        }
    }
}
