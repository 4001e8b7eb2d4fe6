//! Names that travel on the wire, checked once where they enter.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest client id or token, in bytes.
pub const MAX_NAME: usize = 128;

/// Why a client id or token is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than [`MAX_NAME`] bytes.
    #[error("must have 1 to {MAX_NAME} characters")]
    Length,
    /// Something else than letters, digits, `.`, `_`, `-` and `~`.
    #[error("may only have letters, digits and . _ - ~")]
    Character,
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(NameError::Length);
    }
    // These are the unreserved characters of RFC 3986: a name never needs escaping in a URL, and never
    // holds the slash that separates `token/path`.
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~');
    // "." and ".." would be eaten as path segments by any client that normalises URLs.
    if name.bytes().all(fine) && name != "." && name != ".." {
        Ok(())
    } else {
        Err(NameError::Character)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                check(name)?;
                Ok(Self(name.into()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// The name under which an edge agent registers. It is also the first token by which visitors reach
    /// it, so it is as secret as a token and its `Debug` and `Display` show only its beginning.
    ClientId
}

name! {
    /// A name by which visitors reach an edge agent. `Debug` and `Display` show only its beginning.
    Token
}

impl From<ClientId> for Token {
    fn from(id: ClientId) -> Self {
        Self(id.0)
    }
}

/// Shows the beginning of a secret, enough to tell two apart and too little to use one.
fn masked(f: &mut fmt::Formatter<'_>, secret: &str) -> fmt::Result {
    let shown = (secret.len() / 3).min(4);
    write!(f, "{}…", &secret[..shown])
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        masked(f, &self.0)
    }
}
impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        masked(f, &self.0)
    }
}
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        masked(f, &self.0)
    }
}
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        masked(f, &self.0)
    }
}

/// The id of one tunnel: 128 random bits, so that it cannot be guessed between being asked for and used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TunnelId(u128);

impl TunnelId {
    /// A fresh random id.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for TunnelId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NameError::Character);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| NameError::Character)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_url_safe_and_bounded() {
        assert!("demo".parse::<ClientId>().is_ok());
        assert!("a.b_c-d~9".parse::<Token>().is_ok());
        for bad in ["", "a/b", "a b", "ä", "a\r", "..", ".", "a%20", &"x".repeat(129)] {
            assert!(bad.parse::<ClientId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_are_masked() {
        let token: Token = "super-secret-token".parse().unwrap();
        assert_eq!(format!("{token} {token:?}"), "supe… supe…");
        let short: Token = "abc".parse().unwrap();
        assert_eq!(format!("{short}"), "a…");
    }

    #[test]
    fn tunnel_ids_go_round_and_differ() {
        let id = TunnelId::random();
        assert_eq!(id.to_string().parse::<TunnelId>(), Ok(id));
        assert_ne!(id, TunnelId::random());
        assert!("12".parse::<TunnelId>().is_err());
        assert!("+0000000000000000000000000000001".parse::<TunnelId>().is_err());
    }
}
