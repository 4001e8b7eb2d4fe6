//! The proxy port: tunnels arrive, say which request they answer, and go to their pool.

use crate::defaults as d;
use crate::registry::Registry;
use arp_common::defaults::HANDSHAKE;
use arp_common::ids::TunnelId;
use arp_common::protocol::{Command, FrameError, FrameReader};
use arp_common::transport::Stream;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why a connection on the proxy port was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// Not our protocol, or broken off.
    #[error(transparent)]
    Frame(#[from] FrameError),
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
pub async fn take(stream: Stream, _peer: SocketAddr, registry: &Arc<Registry>) -> Result<(), TunnelError> {
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
    let asked = registry
        .pending()
        .claim(id, &client_id)
        .ok_or(TunnelError::NotAskedFor)?;
    let (stream, buf) = frames.into_parts();
    let (rd, wr) = stream.into_split();
    asked.pool.arrived(rd, wr, buf, asked.generation);
    Ok(())
}

/// Looks for tunnels that never came, until the relay stops.
pub async fn expire(registry: Arc<Registry>) {
    let mut tick = tokio::time::interval(d::POOL_REPAIR);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        registry.pending().expire();
    }
}
