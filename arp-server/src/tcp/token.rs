//! `?token=NAME` and `&key=KEY` inside a value that a protocol has a place for: a user, a database, a password.

use arp_common::protocol::Secret;

/// How a token begins in a value.
const TOKEN: &str = "?token=";
const KEY: &str = "&key=";

/// What was ours in a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ours {
    /// The name.
    pub(super) name: String,
    /// For the edge's gate.
    pub(super) key: Option<Secret>,
}

/// Takes what is ours out of a value; what is left is the service's. `None` if there is nothing of ours.
pub(super) fn take(value: &str) -> Option<(Ours, String)> {
    let at = value.find(TOKEN)?;
    let rest = &value[at + TOKEN.len()..];
    let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
    let (name, mut after) = rest.split_at(end);
    let mut key = None;
    if let Some(told) = after.strip_prefix(KEY) {
        let end = told.find(char::is_whitespace).unwrap_or(told.len());
        key = Some(Secret::new(&told[..end]));
        after = &told[end..];
    }
    let name = name.to_owned();
    Some((Ours { name, key }, format!("{}{after}", &value[..at])))
}

/// The characters of names; which of them are one is for the registry to say.
fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ours(name: &str, key: Option<&str>) -> Ours {
        Ours {
            name: name.to_owned(),
            key: key.map(Secret::new),
        }
    }

    #[test]
    fn what_is_ours_is_taken_out_and_the_rest_stays() {
        for (value, name, key, rest) in [
            ("?token=db", "db", None, ""),
            ("alice?token=db", "db", None, "alice"),
            ("-c geqo=off ?token=db -c x=1", "db", None, "-c geqo=off  -c x=1"),
            ("p?token=a.b_c-d~9&key=s3cret", "a.b_c-d~9", Some("s3cret"), "p"),
            ("?token=a?token=b", "a", None, "?token=b"),
            ("?token=", "", None, ""),
        ] {
            assert_eq!(take(value), Some((ours(name, key), rest.to_owned())), "{value}");
        }
        for none in ["", "alice", "?toke=x", "token=x", "&key=x"] {
            assert_eq!(take(none), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_made_up(before in "[a-z?=&]{0,8}", name in "[A-Za-z0-9._~-]{1,20}", after in "( [a-z]{0,5})?") {
            prop_assume!(!before.contains("?token="));
            let (ours, rest) = take(&format!("{before}?token={name}{after}")).unwrap();
            prop_assert_eq!(ours.name, name);
            prop_assert_eq!(rest, format!("{before}{after}"));
        }

        #[test]
        fn any_text_is_taken(text in "\\PC{0,60}") {
            let _ = take(&text);
        }
    }
}
