//! Listening sockets that outlive the process: the service manager keeps them over a restart (systemd's
//! `FileDescriptorStoreMax`), or has opened them itself (a `.socket` unit). Whoever connects while nobody runs waits in
//! the kernel's queue instead of being refused.

use crate::net;
use std::io;
use std::net::IpAddr;
use tokio::net::TcpListener;

/// Sockets that were handed to this process and that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Kept {
    sockets: Vec<(String, std::net::TcpListener)>,
}

impl Kept {
    /// Those of the environment (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`). Call it once, before any thread that
    /// reads the environment.
    #[cfg(unix)]
    pub fn from_env() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut handed = listenfd::ListenFd::from_env();
        let mut sockets = Vec::new();
        for at in 0..handed.len() {
            let name = names.next().unwrap_or_default().to_owned();
            match handed.take_tcp_listener(at) {
                Ok(Some(socket)) => sockets.push((name, socket)),
                Ok(None) => {}
                Err(e) => tracing::warn!(name, "a socket of the service manager is of no use: {e}"),
            }
        }
        Self { sockets }
    }

    /// There are none on this system.
    #[cfg(not(unix))]
    pub fn from_env() -> Self {
        Self::default()
    }

    /// Gives the socket that was kept for this port, or opens one; from now on it is kept under `name`.
    ///
    /// # Errors
    /// As [`net::listen`].
    pub fn listen(
        &mut self,
        name: &str,
        host: Option<IpAddr>,
        port: u16,
        flag: &str,
    ) -> io::Result<TcpListener> {
        let fits = |(kept, socket): &(String, std::net::TcpListener)| {
            let Ok(at) = socket.local_addr() else { return false };
            let place = match host {
                Some(ip) => at.ip() == ip,
                None => at.ip().is_unspecified(),
            };
            place
                && if port == 0 {
                    kept == name
                } else {
                    at.port() == port
                }
        };
        let listener = match self.sockets.iter().position(fits) {
            Some(at) => {
                let (_, socket) = self.sockets.swap_remove(at);
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket)?
            }
            None => net::listen(host, port, flag)?,
        };
        keep(name, &listener);
        Ok(listener)
    }
}

/// Has the service manager keep a socket under this name, and no other one.
fn keep(name: &str, listener: &TcpListener) {
    #[cfg(unix)]
    {
        use sd_notify::NotifyState as S;
        use std::os::fd::AsFd;
        let kept = sd_notify::notify(&[S::FdStoreRemove, S::FdName(name)])
            .and_then(|()| sd_notify::notify_with_fds(&[S::FdStore, S::FdName(name)], &[listener.as_fd()]));
        if let Err(e) = kept {
            tracing::debug!(name, "the service manager does not keep the socket: {e}");
        }
    }
    #[cfg(not(unix))]
    let _ = (name, listener);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kept_socket_is_taken_by_port_or_by_name() {
        let local: IpAddr = [127, 0, 0, 1].into();
        let socket = || std::net::TcpListener::bind((local, 0)).unwrap();
        let (a, b) = (socket(), socket());
        let (port_a, port_b) = (a.local_addr().unwrap().port(), b.local_addr().unwrap().port());
        let mut kept = Kept {
            sockets: vec![("x".into(), a), ("public".into(), b)],
        };
        let mut listen = |name, port| kept.listen(name, Some(local), port, "--port").unwrap();
        let port_of = |l: &TcpListener| l.local_addr().unwrap().port();
        let fresh = listen("control", 0);
        assert!(![port_a, port_b].contains(&port_of(&fresh)), "that is another's");
        assert_eq!(
            port_of(&listen("control", port_a)),
            port_a,
            "as the port of a unit of its own"
        );
        assert_eq!(port_of(&listen("public", 0)), port_b);
        assert!(kept.sockets.is_empty());
    }
}
