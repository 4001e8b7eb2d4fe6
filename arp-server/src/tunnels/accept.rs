//! The proxy port: tunnels arrive, say which request they answer, and go to their pool.

use super::pending::Pending;
use crate::defaults as d;
use arp_common::defaults::HANDSHAKE;
use arp_common::ids::TunnelId;
use arp_common::protocol::{Command, FrameError, FrameReader};
use arp_common::tls::{AcceptError, Accepted, Acceptor};
use std::sync::Arc;
use tokio::net::TcpStream;

/// Why a connection on the proxy port was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// Not our protocol, or broken off.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// No TLS.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// In plain, which is not allowed.
    #[error("it speaks without TLS, which this relay does not take (--allow-plaintext)")]
    Plaintext,
    /// It said nothing in time.
    #[error("no frame within {} s", HANDSHAKE.as_secs())]
    Silent,
    /// It spoke of something else first.
    #[error("the first frame is not NewProxyConn")]
    NotATunnel,
    /// Nobody asked for this id, or not this client, or too long ago.
    #[error("a tunnel that nobody asked for")]
    NotAskedFor,
}

/// Takes one connection of the proxy port.
///
/// # Errors
/// See [`TunnelError`]; the connection is closed.
pub(crate) async fn take(tcp: TcpStream, acceptor: &Acceptor, pending: &Pending) -> Result<(), TunnelError> {
    let accepted = tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp))
        .await
        .map_err(|_| TunnelError::Silent)??;
    let (stream, key) = match accepted {
        Accepted::Secure(stream, key) => (stream, Some(key)),
        Accepted::Plain(stream) => (stream, None),
        Accepted::PlainRefused(_) => return Err(TunnelError::Plaintext),
    };
    let mut frames = FrameReader::new(stream);
    let first = tokio::time::timeout(HANDSHAKE, frames.next())
        .await
        .map_err(|_| TunnelError::Silent)??;
    let Some(Command::NewProxyConn {
        proxy_conn_id,
        client_id,
    }) = first
    else {
        return Err(TunnelError::NotATunnel);
    };
    let id: TunnelId = proxy_conn_id.parse().map_err(|_| TunnelError::NotAskedFor)?;
    let asked = pending
        .claim(id, &client_id, key)
        .ok_or(TunnelError::NotAskedFor)?;
    let (stream, buf) = frames.into_parts();
    let (rd, wr) = stream.into_split();
    asked.pool.arrived(rd, wr, buf, asked.generation);
    Ok(())
}

/// Looks for tunnels that never came, until the relay stops.
pub(crate) async fn expire(pending: Arc<Pending>) {
    let mut tick = tokio::time::interval(d::POOL_REPAIR);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        pending.expire();
    }
}
