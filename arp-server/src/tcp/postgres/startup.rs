//! The start-up packet: read whole, relieved of what is ours, written anew.

use crate::tcp::token::{self, Ours};
use bytes::{BufMut, BytesMut};

/// Most parameters of a packet.
const MAX_PARAMETERS: usize = 64;

/// Why a packet is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadStartup {
    /// Of version 1 or 2.
    TooOld,
    /// Not by its rules.
    Malformed,
    /// It names two clients.
    TwoNames,
}

/// A start-up packet of version 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Startup {
    version: u32,
    /// What was ours in it.
    pub(super) ours: Option<Ours>,
    /// Names and values, in order, without what was ours.
    parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Startup {
    /// Reads a packet, its length included.
    pub(super) fn parse(packet: &[u8]) -> Result<Self, BadStartup> {
        let (_, rest) = packet.split_first_chunk::<4>().ok_or(BadStartup::Malformed)?;
        let (version, mut rest) = rest.split_first_chunk::<4>().ok_or(BadStartup::Malformed)?;
        let version = u32::from_be_bytes(*version);
        if version >> 16 != 3 {
            return Err(BadStartup::TooOld);
        }
        let mut ours: Option<Ours> = None;
        let mut parameters = Vec::new();
        loop {
            let name = string(&mut rest)?;
            if name.is_empty() {
                break;
            }
            if parameters.len() == MAX_PARAMETERS {
                return Err(BadStartup::Malformed);
            }
            let mut value = string(&mut rest)?.to_vec();
            if matches!(name, b"user" | b"database" | b"options")
                && let Ok(text) = std::str::from_utf8(&value)
                && let Some((found, left)) = token::take(text)
            {
                // libpq takes the user for the database as well where none is given.
                if ours.as_ref().is_some_and(|o| o.name != found.name) {
                    return Err(BadStartup::TwoNames);
                }
                ours.get_or_insert(found);
                value = left.trim().as_bytes().to_vec();
                // The database is the user's, as if none had been given.
                if value.is_empty() && name != b"user" {
                    continue;
                }
            }
            parameters.push((name.to_vec(), value));
        }
        if !rest.is_empty() {
            return Err(BadStartup::Malformed);
        }
        Ok(Self {
            version,
            ours,
            parameters,
        })
    }

    /// The packet for the server; an empty user becomes `default_user`. `None` if there is neither.
    pub(super) fn write(&self, default_user: Option<&str>) -> Option<BytesMut> {
        let mut out = BytesMut::new();
        out.put_u32(0);
        out.put_u32(self.version);
        let mut has_user = false;
        for (name, value) in &self.parameters {
            let mut value = &value[..];
            if name == b"user" {
                if value.is_empty() {
                    value = default_user?.as_bytes();
                }
                has_user = true;
            }
            put(&mut out, name, value);
        }
        if !has_user {
            put(&mut out, b"user", default_user?.as_bytes());
        }
        out.put_u8(0);
        let length = u32::try_from(out.len()).ok()?;
        out[..4].copy_from_slice(&length.to_be_bytes());
        Some(out)
    }
}

fn put(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_u8(0);
    out.put_slice(value);
    out.put_u8(0);
}

/// Takes a string off the front that ends with a zero byte.
fn string<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], BadStartup> {
    let end = rest.iter().position(|b| *b == 0).ok_or(BadStartup::Malformed)?;
    let (string, after) = rest.split_at(end);
    *rest = &after[1..];
    Ok(string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut out = BytesMut::new();
        out.put_u32(0);
        out.put_u32(version);
        for (name, value) in parameters {
            put(&mut out, name.as_bytes(), value.as_bytes());
        }
        out.put_u8(0);
        let length = out.len() as u32;
        out[..4].copy_from_slice(&length.to_be_bytes());
        out.to_vec()
    }

    const V3: u32 = 3 << 16;

    #[test]
    fn the_token_is_found_in_each_place_and_taken_out() {
        for (given, name, left) in [
            (
                &[("user", "?token=db"), ("database", "mydb")][..],
                "db",
                &[("user", "me"), ("database", "mydb")][..],
            ),
            (
                &[("user", "alice?token=db"), ("database", "d")],
                "db",
                &[("user", "alice"), ("database", "d")],
            ),
            (
                &[("user", "alice"), ("database", "d?token=db")],
                "db",
                &[("user", "alice"), ("database", "d")],
            ),
            (
                &[("user", "?token=db"), ("database", "?token=db")],
                "db",
                &[("user", "me")],
            ),
            (&[("user", "a"), ("options", "?token=db")], "db", &[("user", "a")]),
            (
                &[("user", "a"), ("options", "-c geqo=off ?token=db")],
                "db",
                &[("user", "a"), ("options", "-c geqo=off")],
            ),
        ] {
            let startup = Startup::parse(&packet(V3, given)).unwrap();
            assert_eq!(startup.ours.as_ref().unwrap().name, name);
            assert_eq!(startup.write(Some("me")).unwrap(), packet(V3, left), "{given:?}");
        }
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        let given = packet(
            V3 + 2,
            &[("user", "a"), ("application_name", "x?token=y"), ("_pq_.z", "")],
        );
        let startup = Startup::parse(&given).unwrap();
        assert_eq!(
            (startup.ours.clone(), startup.write(None).unwrap().to_vec()),
            (None, given)
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let two = packet(V3, &[("user", "a?token=x"), ("database", "?token=y")]);
        assert_eq!(Startup::parse(&two), Err(BadStartup::TwoNames));
        assert_eq!(Startup::parse(&packet(2 << 16, &[])), Err(BadStartup::TooOld));
        let good = packet(V3, &[("user", "a?token=x"), ("database", "d")]);
        for cut in 0..good.len() {
            assert_eq!(Startup::parse(&good[..cut]), Err(BadStartup::Malformed), "{cut}");
        }
        assert_eq!(
            Startup::parse(&[&good[..], b"x"].concat()),
            Err(BadStartup::Malformed)
        );
        let many = vec![("a", "b"); MAX_PARAMETERS + 1];
        assert_eq!(Startup::parse(&packet(V3, &many)), Err(BadStartup::Malformed));
        let nobody = Startup::parse(&packet(V3, &[("database", "d?token=x")])).unwrap();
        assert_eq!(nobody.write(None), None);
        assert_eq!(
            nobody.write(Some("me")).unwrap(),
            packet(V3, &[("database", "d"), ("user", "me")])
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_or_refused(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0)], 0..120)) {
            let mut whole = vec![0, 0, 0, 0, 0, 3, 0, 0];
            whole.extend(&bytes);
            for packet in [&bytes[..], &whole] {
                if let Ok(startup) = Startup::parse(packet) {
                    if let Some(written) = startup.write(Some("me")) {
                        let again = Startup::parse(&written).unwrap();
                        prop_assert_eq!(again.version, startup.version);
                    }
                }
            }
        }
    }
}
