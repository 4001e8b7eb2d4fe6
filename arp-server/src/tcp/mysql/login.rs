//! What is said until a client is let in: greeting, login, and being asked again.

use crate::answer::Refusal;
use crate::tcp::token::{self, Ours};
use bytes::{Buf, BufMut, Bytes, BytesMut};

// Capabilities ("Capabilities Flags").
const LONG_PASSWORD: u32 = 1;
const FOUND_ROWS: u32 = 1 << 1;
const LONG_FLAG: u32 = 1 << 2;
const CONNECT_WITH_DB: u32 = 1 << 3;
const LOCAL_FILES: u32 = 1 << 7;
const IGNORE_SPACE: u32 = 1 << 8;
const PROTOCOL_41: u32 = 1 << 9;
const INTERACTIVE: u32 = 1 << 10;
const SSL: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const MULTI_STATEMENTS: u32 = 1 << 16;
const MULTI_RESULTS: u32 = 1 << 17;
const PS_MULTI_RESULTS: u32 = 1 << 18;
const PLUGIN_AUTH: u32 = 1 << 19;
const CONNECT_ATTRS: u32 = 1 << 20;
const LENENC_AUTH: u32 = 1 << 21;

/// What every server of the last ten years can do. Nothing else is offered: the server is not known yet.
const OFFERED: u32 = LONG_PASSWORD
    | FOUND_ROWS
    | LONG_FLAG
    | CONNECT_WITH_DB
    | LOCAL_FILES
    | IGNORE_SPACE
    | PROTOCOL_41
    | INTERACTIVE
    | TRANSACTIONS
    | SECURE_CONNECTION
    | MULTI_STATEMENTS
    | MULTI_RESULTS
    | PS_MULTI_RESULTS
    | PLUGIN_AUTH
    | CONNECT_ATTRS
    | LENENC_AUTH;

/// The oldest method, which every client knows; what it says by it is not used.
const ANY_PLUGIN: &[u8] = b"mysql_native_password";
/// Bytes of a salt.
const SALT: usize = 20;

/// The relay's greeting, as a packet. Its salt is of no use to anybody.
pub(super) fn greeting(tls: bool) -> BytesMut {
    let salt: [u8; SALT] = std::array::from_fn(|_| rand::random_range(33..=126));
    let flags = if tls { OFFERED | SSL } else { OFFERED };
    let mut out = BytesMut::new();
    out.put_u8(10);
    out.put_slice(b"8.0.0-arp\0");
    out.put_u32_le(rand::random());
    out.put_slice(&salt[..8]);
    out.put_u8(0);
    out.put_u16_le(flags as u16);
    // utf8mb4; autocommit.
    out.put_u8(45);
    out.put_u16_le(2);
    out.put_u16_le((flags >> 16) as u16);
    out.put_u8(SALT as u8 + 1);
    out.put_bytes(0, 10);
    out.put_slice(&salt[8..]);
    out.put_u8(0);
    out.put_slice(ANY_PLUGIN);
    out.put_u8(0);
    super::packet::write(0, &out)
}

/// Does the client want TLS before it says who it is?
pub(super) fn asks_for_tls(payload: &[u8]) -> bool {
    let flags = payload.first_chunk::<4>().map(|f| u32::from_le_bytes(*f));
    payload.len() == 32 && flags.is_some_and(|f| f & SSL != 0)
}

/// What a real server says first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerGreeting {
    flags: u32,
    salt: Bytes,
    plugin: Bytes,
}

impl ServerGreeting {
    pub(super) fn parse(payload: &Bytes) -> Option<Self> {
        let mut rest = payload.clone();
        if rest.try_get_u8().ok()? != 10 {
            return None;
        }
        string(&mut rest)?;
        rest.try_get_u32_le().ok()?;
        let mut salt = BytesMut::from(&take(&mut rest, 8)?[..]);
        take(&mut rest, 1)?;
        let low = rest.try_get_u16_le().ok()?;
        take(&mut rest, 3)?;
        let flags = u32::from(low) | u32::from(rest.try_get_u16_le().ok()?) << 16;
        take(&mut rest, 11)?;
        salt.extend_from_slice(&take(&mut rest, SALT - 8)?);
        // Its end is marked, and on old servers missing.
        let plugin = if flags & PLUGIN_AUTH == 0 {
            Bytes::from_static(ANY_PLUGIN)
        } else {
            take(&mut rest, 1)?;
            string(&mut rest).unwrap_or(rest)
        };
        Some(Self {
            flags,
            salt: salt.freeze(),
            plugin,
        })
    }
}

/// Asks a client for its answer to the server's salt, by the server's method.
pub(super) fn ask_again(greeting: &ServerGreeting) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u8(0xfe);
    out.put_slice(&greeting.plugin);
    out.put_u8(0);
    out.put_slice(&greeting.salt);
    out.put_u8(0);
    out
}

/// A client's login, without what was ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    /// What was ours in it.
    pub(super) ours: Option<Ours>,
    flags: u32,
    /// Largest packet, character set, and what is reserved.
    fixed: Bytes,
    user: Vec<u8>,
    database: Vec<u8>,
    /// Connection attributes, as they came.
    attributes: Bytes,
}

impl Login {
    pub(super) fn parse(payload: &Bytes) -> Option<Self> {
        let mut rest = payload.clone();
        let flags = rest.try_get_u32_le().ok()?;
        if flags & PROTOCOL_41 == 0 || flags & SECURE_CONNECTION == 0 {
            return None;
        }
        let fixed = take(&mut rest, 28)?;
        let user = string(&mut rest)?;
        let length = if flags & LENENC_AUTH != 0 {
            lenenc(&mut rest)?
        } else {
            usize::from(rest.try_get_u8().ok()?)
        };
        take(&mut rest, length)?;
        let database = if flags & CONNECT_WITH_DB != 0 {
            string(&mut rest)?
        } else {
            Bytes::new()
        };
        if flags & PLUGIN_AUTH != 0 {
            string(&mut rest)?;
        }
        let attributes = if flags & CONNECT_ATTRS != 0 && !rest.is_empty() {
            let length = lenenc(&mut rest)?;
            take(&mut rest, length)?
        } else {
            Bytes::new()
        };
        let mut login = Self {
            ours: None,
            flags,
            fixed,
            user: user.to_vec(),
            database: database.to_vec(),
            attributes,
        };
        for value in [&mut login.database, &mut login.user] {
            if let Some((found, left)) = std::str::from_utf8(value).ok().and_then(token::take) {
                if login.ours.as_ref().is_some_and(|o| o.name != found.name) {
                    return None;
                }
                login.ours.get_or_insert(found);
                *value = left.into_bytes();
            }
        }
        Some(login)
    }

    /// The login for the server, with the client's answer to its salt.
    pub(super) fn write(
        &self,
        greeting: &ServerGreeting,
        answer: &[u8],
        default_user: Option<&str>,
    ) -> BytesMut {
        let mut flags = self.flags & OFFERED & greeting.flags;
        // A flag says whether there is one.
        flags &= !CONNECT_WITH_DB;
        if !self.database.is_empty() {
            flags |= CONNECT_WITH_DB;
        }
        let mut out = BytesMut::new();
        out.put_u32_le(flags);
        out.put_slice(&self.fixed);
        let user = match default_user {
            Some(user) if self.user.is_empty() => user.as_bytes(),
            _ => &self.user,
        };
        out.put_slice(user);
        out.put_u8(0);
        if flags & LENENC_AUTH != 0 {
            put_lenenc(&mut out, answer.len());
            out.put_slice(answer);
        } else {
            let answer = &answer[..answer.len().min(255)];
            out.put_u8(answer.len() as u8);
            out.put_slice(answer);
        }
        if flags & CONNECT_WITH_DB != 0 {
            out.put_slice(&self.database);
            out.put_u8(0);
        }
        if flags & PLUGIN_AUTH != 0 {
            out.put_slice(&greeting.plugin);
            out.put_u8(0);
        }
        if flags & CONNECT_ATTRS != 0 {
            put_lenenc(&mut out, self.attributes.len());
            out.put_slice(&self.attributes);
        }
        out
    }
}

/// A refusal as an ERR packet's payload.
pub(super) fn error(refusal: &Refusal) -> BytesMut {
    let (code, state) = match refusal.code {
        "busy" | "too_many_unknown_tokens" => (1040u16, b"08004"),
        "unknown_token" | "token_required" | "edge_auth_required" | "bad_request" => (1045, b"28000"),
        _ => (1105, b"HY000"),
    };
    let mut out = BytesMut::new();
    out.put_u8(0xff);
    out.put_u16_le(code);
    out.put_u8(b'#');
    out.put_slice(state);
    out.put_slice(refusal.message.as_bytes());
    out
}

fn take(rest: &mut Bytes, n: usize) -> Option<Bytes> {
    (rest.len() >= n).then(|| rest.split_to(n))
}

/// Takes a string off the front that ends with a zero byte.
fn string(rest: &mut Bytes) -> Option<Bytes> {
    let end = rest.iter().position(|b| *b == 0)?;
    let string = rest.split_to(end);
    rest.advance(1);
    Some(string)
}

/// A length in one, three or four bytes ("Length-Encoded Integer"); longer ones have no place here.
fn lenenc(rest: &mut Bytes) -> Option<usize> {
    match rest.try_get_u8().ok()? {
        small @ 0..=250 => Some(usize::from(small)),
        252 => rest.try_get_u16_le().ok().map(usize::from),
        253 => {
            let bytes = take(rest, 3)?;
            Some(usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16)
        }
        _ => None,
    }
}

fn put_lenenc(out: &mut BytesMut, n: usize) {
    match n {
        0..=250 => out.put_u8(n as u8),
        251..=0xffff => {
            out.put_u8(252);
            out.put_u16_le(n as u16);
        }
        _ => {
            out.put_u8(253);
            out.put_uint_le(n as u64, 3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server() -> ServerGreeting {
        ServerGreeting {
            flags: OFFERED,
            salt: Bytes::from_static(b"12345678901234567890"),
            plugin: Bytes::from_static(b"caching_sha2_password"),
        }
    }

    fn login(user: &str, database: &str) -> Bytes {
        let login = Login {
            ours: None,
            flags: OFFERED,
            fixed: Bytes::from_static(&[7; 28]),
            user: user.as_bytes().to_vec(),
            database: database.as_bytes().to_vec(),
            attributes: Bytes::from_static(b"\x01a\x01b"),
        };
        login.write(&server(), b"scramble", None).freeze()
    }

    #[test]
    fn our_greeting_is_one_that_we_would_understand() {
        let mut packet = greeting(true);
        let packet = super::super::packet::take(&mut packet).unwrap().unwrap();
        let read = ServerGreeting::parse(&packet.payload).unwrap();
        assert_eq!(
            (read.flags, &read.plugin[..], read.salt.len()),
            (OFFERED | SSL, ANY_PLUGIN, SALT)
        );
    }

    #[test]
    fn the_token_is_found_and_taken_out() {
        for (user, database, name, left) in [
            ("root", "?token=db", "db", ("root", "")),
            ("root", "shop?token=db", "db", ("root", "shop")),
            ("root?token=db", "shop", "db", ("root", "shop")),
            ("?token=db", "shop", "db", ("me", "shop")),
        ] {
            let read = Login::parse(&login(user, database)).unwrap();
            assert_eq!(read.ours.as_ref().unwrap().name, name);
            let written = read.write(&server(), b"scramble", Some("me"));
            assert_eq!(written, login(left.0, left.1), "{user} {database}");
        }
        assert_eq!(Login::parse(&login("root", "shop")).unwrap().ours, None);
        assert_eq!(Login::parse(&login("a?token=x", "?token=y")), None, "two names");
        let whole = login("root", "?token=db");
        for cut in 0..whole.len() - 5 {
            assert_eq!(Login::parse(&whole.slice(..cut)), None, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_refused(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0)], 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = asks_for_tls(&bytes);
            if let Some(greeting) = ServerGreeting::parse(&bytes) {
                let _ = ask_again(&greeting);
            }
            if let Some(login) = Login::parse(&bytes) {
                let _ = login.write(&server(), &bytes, None);
            }
        }
    }
}
