//! Sockets: dialing, listeners, the options every connection gets, an accept loop that survives a full table.

use crate::defaults as d;
use crate::pacing;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

/// Opens a listener. With no `host` it takes IPv6 and IPv4 on one socket, or IPv4 alone where the machine
/// has no IPv6. Port 0 asks the system for a free one. `flag` is where the user says which port.
///
/// # Errors
/// As the operating system says, with address and a hint for the usual two reasons.
pub fn listen(host: Option<IpAddr>, port: u16, flag: &str) -> io::Result<TcpListener> {
    let result = match host {
        Some(ip) => bind(SocketAddr::new(ip, port), false),
        None => bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), true).or_else(|e| match e.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(e),
            _ => bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), false),
        }),
    };
    result.map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => {
                format!("; is another copy running? Stop it, or choose another port with {flag}")
            }
            io::ErrorKind::PermissionDenied if port < 1024 => {
                format!("; ports below 1024 need privileges: choose a higher one with {flag}")
            }
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address: check --bind".to_owned(),
            _ => String::new(),
        };
        let host = host.map_or_else(|| "every address,".to_owned(), |h| h.to_string());
        io::Error::new(
            e.kind(),
            format!("cannot listen on {host} port {port} ({flag}): {e}{hint}"),
        )
    })
}

fn bind(addr: SocketAddr, dual: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if dual {
        socket.set_only_v6(false)?;
    }
    // On Windows the option means something else: it lets a second process steal the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    pacing::spare(&SockRef::from(&socket), addr.ip());
    socket.bind(&addr.into())?;
    socket.listen(d::LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Opens a listener at exactly this address, as [`TcpListener::bind`] does.
///
/// # Errors
/// As the operating system says.
pub fn listen_at(addr: SocketAddr) -> io::Result<TcpListener> {
    bind(addr, false)
}

/// Connects to the first address of a host that answers, and tunes the connection (see [`tune`]). Sets no time limit.
///
/// # Errors
/// If the name is unknown, or that of the last address that was tried.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = None;
    for addr in tokio::net::lookup_host((host, port)).await? {
        match connect_to(addr).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

/// The same, to one address.
///
/// # Errors
/// As the operating system says.
pub async fn connect_to(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    pacing::spare(&SockRef::from(&socket), addr.ip());
    let stream = socket.connect(addr).await?;
    tune(&stream);
    Ok(stream)
}

/// Gives a connection what every leg gets: no delay for small writes, and a dead peer is noticed within
/// 45 s, idle or not. A refused option is no reason to refuse the connection.
pub fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(d::KEEPALIVE_IDLE)
        .with_interval(d::KEEPALIVE_INTERVAL);
    #[cfg(not(windows))]
    let keepalive = keepalive.with_retries(d::KEEPALIVE_PROBES);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(d::TCP_USER_TIMEOUT));
}

/// Tells the kernel whether the peer may have its reasons to take nothing for a while: then the daemons' own limits
/// decide how long. Linux gives a peer that pauses up as soon as one that is gone.
pub fn let_pause(stream: &TcpStream, pauses: bool) {
    #[cfg(target_os = "linux")]
    {
        let timeout = if pauses {
            d::TCP_PAUSE_TIMEOUT
        } else {
            d::TCP_USER_TIMEOUT
        };
        let _ = SockRef::from(stream).set_tcp_user_timeout(Some(timeout));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, pauses);
}

/// Makes dropping the connection a reset, so that the peer cannot take an end by failure for a proper one.
pub fn reset_on_drop(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Takes [`reset_on_drop`] back.
pub fn close_on_drop(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(None);
}

/// Is there nothing to be read at this moment, neither a byte nor an end nor a failure? Asks the kernel, which
/// may know what the runtime has not been told yet.
pub fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let peeked = SockRef::from(stream).peek(&mut byte);
    peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// Has the peer closed its side, or gone? On Linux this shows even while bytes that came before are unread;
/// elsewhere only after them.
pub fn has_ended(stream: &TcpStream) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
        poll(&mut polled, Some(&now)).is_ok_and(|n| n > 0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(stream).peek(&mut byte) {
            Ok(n) => n == 0,
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// Unmaps `::ffff:a.b.c.d`, as it comes from dual-stack listeners, to the IPv4 address it is.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Accepts until `stop` is cancelled and hands each connection, tuned, to `each`, which must not block.
/// When the process or the system is out of file descriptors the loop pauses, says so once, and goes on.
pub async fn accept_loop(
    listener: TcpListener,
    what: &'static str,
    stop: CancellationToken,
    mut each: impl FnMut(TcpStream, SocketAddr),
) {
    let mut pause = Duration::ZERO;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = Duration::ZERO;
                tune(&stream);
                each(stream, canonical(peer));
            }
            Err(e) if is_connection_error(&e) => {}
            Err(e) => {
                if pause.is_zero() {
                    tracing::warn!("cannot accept on the {what} port: {e}; trying again");
                }
                pause = (pause * 2).clamp(d::ACCEPT_BACKOFF, d::ACCEPT_BACKOFF_MAX);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

/// Errors that belong to the connection that was about to be accepted, not to the listener.
fn is_connection_error(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Raises the soft limit of open files to the hard one: a relay needs a few for each visitor and edge, and
/// the usual soft limit of 1024 is made for programs that use select(2).
pub fn raise_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            limit.current = limit.maximum;
            let _ = setrlimit(Resource::Nofile, limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_is_connected_to_and_who_refuses_is_told_from_who_is_unknown() {
        let listener = listen_at((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let at = listener.local_addr().unwrap();
        for host in ["127.0.0.1", "localhost"] {
            let (dialed, accepted) = tokio::join!(connect(host, at.port()), listener.accept());
            let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap().0);
            assert_eq!(dialed.peer_addr().unwrap(), at);
            assert!(dialed.nodelay().unwrap());
            drop(accepted);
        }
        // An edge waits for a service that refuses, as it may be starting again. A port that is taken and not listened
        // on is nobody else's meanwhile.
        let silent = TcpSocket::new_v4().unwrap();
        silent.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let refused = connect("127.0.0.1", silent.local_addr().unwrap().port())
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
        assert!(connect("no-such-host.invalid", 80).await.is_err());
    }

    /// Says something where BBR is the system's choice.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn neither_end_paces_on_loopback() {
        for listener in [
            listen(Some(Ipv4Addr::LOCALHOST.into()), 0, "--port").unwrap(),
            listen_at((Ipv4Addr::LOCALHOST, 0).into()).unwrap(),
        ] {
            let at = listener.local_addr().unwrap();
            let (dialed, accepted) = tokio::join!(connect_to(at), listener.accept());
            for stream in [dialed.unwrap(), accepted.unwrap().0] {
                let name = SockRef::from(&stream).tcp_congestion().unwrap();
                assert!(!name.starts_with(b"bbr"), "{}", name.escape_ascii());
            }
        }
    }
}
