//! The header by which a balancer tells whose connection it passes on: the PROXY protocol, versions 1 and 2.
//!
//! Source: HAProxy's "The PROXY protocol, versions 1 & 2" (proxy-protocol.txt).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, in bytes, with its line break.
pub const MAX_V1: usize = 107;
/// Longest header of version 2 that is taken, in bytes: the addresses, and some further fields.
pub const MAX_V2: usize = 16 + 2048;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl std::str::FromStr for Version {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "v1" | "1" => Ok(Self::V1),
            "v2" | "2" => Ok(Self::V2),
            _ => Err("must be v1 or v2"),
        }
    }
}

/// What stands at the front of a connection that is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whose connection it is; none for the balancer's own (its health checks).
    pub source: Option<SocketAddr>,
    /// Length of the header, in bytes.
    pub length: usize,
}

/// The bytes are no such header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a header of the PROXY protocol")]
pub struct NotOne;

/// Reads the header at the front of `buf`; `None` until it is complete.
///
/// # Errors
/// [`NotOne`], as soon as that is known.
pub fn parse(buf: &[u8]) -> Result<Option<Header>, NotOne> {
    let common = buf.len().min(SIGNATURE.len());
    if buf[..common] == SIGNATURE[..common] && !buf.is_empty() {
        return parse_v2(buf);
    }
    parse_v1(buf)
}

fn parse_v1(buf: &[u8]) -> Result<Option<Header>, NotOne> {
    const BEGIN: &[u8] = b"PROXY ";
    let common = buf.len().min(BEGIN.len());
    if buf[..common] != BEGIN[..common] {
        return Err(NotOne);
    }
    let Some(end) = buf.iter().take(MAX_V1).position(|b| *b == b'\n') else {
        return if buf.len() >= MAX_V1 {
            Err(NotOne)
        } else {
            Ok(None)
        };
    };
    let line = buf[..end].strip_suffix(b"\r").ok_or(NotOne)?;
    let line = std::str::from_utf8(line).map_err(|_| NotOne)?;
    let length = end + 1;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        [
            "PROXY",
            family @ ("TCP4" | "TCP6"),
            source,
            destination,
            source_port,
            destination_port,
        ] => {
            let ip: IpAddr = source.parse().map_err(|_| NotOne)?;
            let to: IpAddr = destination.parse().map_err(|_| NotOne)?;
            if ip.is_ipv4() != (family == "TCP4") || to.is_ipv4() != ip.is_ipv4() {
                return Err(NotOne);
            }
            destination_port.parse::<u16>().map_err(|_| NotOne)?;
            Some(SocketAddr::new(ip, source_port.parse().map_err(|_| NotOne)?))
        }
        _ => return Err(NotOne),
    };
    Ok(Some(Header { source, length }))
}

fn parse_v2(buf: &[u8]) -> Result<Option<Header>, NotOne> {
    let Some(fixed) = buf.first_chunk::<16>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 || command >> 4 != 2 {
        return Err(NotOne);
    }
    let Some(addresses) = buf.get(16..length) else {
        return Ok(None);
    };
    let port = |at: usize| {
        addresses
            .get(at..at + 2)
            .map(|p| u16::from_be_bytes([p[0], p[1]]))
    };
    let source = match (command & 0xf, family) {
        // The balancer's own.
        (0, _) => None,
        (1, 0x11) => {
            let ip = addresses.first_chunk::<4>().ok_or(NotOne)?;
            Some(SocketAddr::new(
                Ipv4Addr::from(*ip).into(),
                port(8).ok_or(NotOne)?,
            ))
        }
        (1, 0x21) => {
            let ip = addresses.first_chunk::<16>().ok_or(NotOne)?;
            Some(SocketAddr::new(
                Ipv6Addr::from(*ip).into(),
                port(32).ok_or(NotOne)?,
            ))
        }
        // Of another family: it cannot be told.
        (1, _) => None,
        _ => return Err(NotOne),
    };
    Ok(Some(Header { source, length }))
}

/// Writes the header for a connection from `source`, if that is known, to `destination`.
pub fn write(version: Version, source: Option<SocketAddr>, destination: SocketAddr) -> Vec<u8> {
    // Both have to be of one family; an IPv4 address can stand in IPv6's form.
    let both = source.map(|source| match (source.ip(), destination.ip()) {
        (IpAddr::V4(_), IpAddr::V6(to)) => (source, SocketAddr::new(mapped_back(to), destination.port())),
        (IpAddr::V6(_), IpAddr::V4(to)) => (
            source,
            SocketAddr::new(to.to_ipv6_mapped().into(), destination.port()),
        ),
        _ => (source, destination),
    });
    match version {
        Version::V1 => match both {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some((from, to)) => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from_ip, to_ip) = (from.ip(), to.ip());
                format!(
                    "PROXY {family} {from_ip} {to_ip} {} {}\r\n",
                    from.port(),
                    to.port()
                )
                .into_bytes()
            }
        },
        Version::V2 => {
            let mut out = SIGNATURE.to_vec();
            match both {
                None => out.extend([0x20, 0, 0, 0]),
                Some((from, to)) => {
                    match (from.ip(), to.ip()) {
                        (IpAddr::V4(from), IpAddr::V4(to)) => {
                            out.extend([0x21, 0x11, 0, 12]);
                            out.extend(from.octets());
                            out.extend(to.octets());
                        }
                        (from, to) => {
                            out.extend([0x21, 0x21, 0, 36]);
                            out.extend(v6(from).octets());
                            out.extend(v6(to).octets());
                        }
                    }
                    out.extend(from.port().to_be_bytes());
                    out.extend(to.port().to_be_bytes());
                }
            }
            out
        }
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// An IPv6 address as an IPv4 one, where only that fits.
fn mapped_back(ip: Ipv6Addr) -> IpAddr {
    ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::LOCALHOST).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_headers_are_read_at_every_split() {
        let v2 = [
            &SIGNATURE[..],
            &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 10, 0, 0, 1, 0, 80, 1, 187],
        ]
        .concat();
        let own = [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat();
        for (bytes, source) in [
            (
                &b"PROXY TCP4 192.0.2.1 10.0.0.1 80 443\r\n"[..],
                Some("192.0.2.1:80"),
            ),
            (b"PROXY TCP6 2001:db8::1 ::1 80 443\r\n", Some("[2001:db8::1]:80")),
            (b"PROXY UNKNOWN\r\n", None),
            (b"PROXY UNKNOWN ::1 ::1 1 2\r\n", None),
            (&v2, Some("192.0.2.1:80")),
            (&own, None),
        ] {
            let want = Header {
                source: source.map(|s| s.parse().unwrap()),
                length: bytes.len(),
            };
            assert_eq!(parse(&[bytes, b"GET /"].concat()), Ok(Some(want)));
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
            }
        }
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 80 443\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 443\r\n",
            b"PROXY TCP4 192.0.2.1\r\n",
            &[&SIGNATURE[..], &[0x11, 0x11, 0, 0]].concat(),
            &[&SIGNATURE[..], &[0x21, 0x11, 0, 4, 1, 2, 3, 4]].concat(),
            &[&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat(),
            &[b'P'; 200],
        ] {
            assert_eq!(parse(bad), Err(NotOne), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(from in any::<IpAddr>(), to in any::<IpAddr>(), ports in any::<(u16, u16)>(), known in any::<bool>()) {
            let (from, to) = (SocketAddr::new(from, ports.0), SocketAddr::new(to, ports.1));
            for version in [Version::V1, Version::V2] {
                let bytes = write(version, known.then_some(from), to);
                let header = parse(&bytes).unwrap().unwrap();
                prop_assert_eq!(header, Header { source: known.then_some(from), length: bytes.len() });
            }
        }

        #[test]
        fn any_bytes_are_a_header_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..80), signed in any::<bool>()) {
            let bytes = if signed { [&SIGNATURE[..], &bytes].concat() } else { bytes };
            if let Ok(Some(header)) = parse(&bytes) {
                prop_assert!(header.length <= bytes.len());
            }
        }
    }
}
