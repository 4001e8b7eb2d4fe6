//! Connections inside one machine send at once.
//!
//! BBR, which many servers have as the system's choice, spaces out what a connection sends by a timer of its own. That
//! is what it is good at over a network. Between two programs of one machine there is no path to spare: without the timers
//! requests through relay and edge cost a tenth less on loopback, and one large stream half (docs/benchmarks.md). Where
//! the system's choice paces, sockets on loopback take another; all others keep it.

use socket2::SockRef;
use std::net::IpAddr;

/// Has a socket that is bound to this address, or is about to connect to it, send without pacing if that is loopback.
/// For a listener it holds for what it accepts from then on. A refused option changes nothing.
#[cfg(target_os = "linux")]
pub(crate) fn spare(socket: &SockRef<'_>, at: IpAddr) {
    /// In every kernel, and open to every user.
    const PLAIN: &[u8] = b"reno";
    if at.to_canonical().is_loopback() && socket.tcp_congestion().is_ok_and(|name| paces(&name)) {
        let _ = socket.set_tcp_congestion(PLAIN);
    }
}

/// The portable form: other systems do not pace by themselves.
#[cfg(not(target_os = "linux"))]
pub(crate) fn spare(_: &SockRef<'_>, _: IpAddr) {}

/// Does this algorithm space out what it sends? All that do so in Linux are versions of one; the kernel pads names
/// with zeros.
#[cfg(target_os = "linux")]
fn paces(name: &[u8]) -> bool {
    name.starts_with(b"bbr")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn only_loopback_is_spared_and_what_does_not_pace_is_left() {
        let name = |socket: &Socket| {
            let name = socket.tcp_congestion().unwrap();
            String::from_utf8(name.into_iter().take_while(|b| *b != 0).collect()).unwrap()
        };
        let paced = ["bbr", "cubic", "reno"].map(|first| {
            let spared = |at: IpAddr| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
                // A kernel without it, or a user who may not choose it.
                socket.set_tcp_congestion(first.as_bytes()).ok()?;
                spare(&SockRef::from(&socket), at);
                Some(name(&socket))
            };
            let local: [IpAddr; 3] = [
                Ipv4Addr::new(127, 0, 0, 9).into(),
                Ipv6Addr::LOCALHOST.into(),
                Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
            ];
            let want = if first == "bbr" { "reno" } else { first };
            for at in local {
                assert!(spared(at).is_none_or(|now| now == want), "{first} at {at}");
            }
            for at in [IpAddr::from([192, 0, 2, 1]), Ipv6Addr::UNSPECIFIED.into()] {
                assert!(spared(at).is_none_or(|now| now == first), "{first} at {at}");
            }
            spared(local[0]).is_some()
        });
        assert!(paced[2], "reno is in every kernel");
    }
}
