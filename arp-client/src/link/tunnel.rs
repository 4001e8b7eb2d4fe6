//! One tunnel: dialed when the relay asks for it, served from its first use on.

use super::outage::Blocked;
use super::{Dialer, Link};
use crate::command::{PeerInfo, Via};
use crate::config::Config;
use crate::defaults as d;
use crate::forward::{self, Forward, Opening};
use crate::serving::CommandMode;
use crate::trace::Traced;
use arp_common::defaults::HANDSHAKE;
use arp_common::protocol::{Command, FrameReader, OpenError, TunnelKind, write_frame};
use arp_common::transport::{Carrier, Prefixed, Stream};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Dials at a time, over all links of the process.
static DIALS: Semaphore = Semaphore::const_new(d::MAX_DIALS);

/// What visitors reach through a tunnel.
pub enum Handler {
    /// A local TCP service.
    Tcp(Forward),
    /// The HTTP API and console of command mode, and local services beside it.
    Command(CommandMode, Forward),
}

/// Opens the tunnel that the relay asked for and serves it, in a task of its own.
pub(super) fn open(link: &Link, id: String, version: u32) {
    if link.tunnels.len() >= d::MAX_TUNNELS {
        tracing::warn!(
            "the relay asks for more than {} tunnels; not opening another",
            d::MAX_TUNNELS
        );
        return;
    }
    let (config, dialer, handler) = (link.config.clone(), link.dialer.clone(), link.handler.clone());
    let (idle, kill, blocked) = (link.idle.clone(), link.kill.clone(), link.blocked.clone());
    let open = link.standing.opened();
    link.tunnels.spawn(kill.ends(async move {
        serve(&config, &dialer, &handler, &blocked, id, version, &idle).await;
        drop(open);
    }));
}

async fn serve(
    config: &Config,
    dialer: &Dialer,
    handler: &Arc<Handler>,
    blocked: &Blocked,
    id: String,
    version: u32,
    idle: &CancellationToken,
) {
    let ready = async {
        let tunnel = present(config, dialer, blocked, id).await?;
        first_use(tunnel, version).await
    };
    let used = tokio::select! {
        used = ready => used,
        () = idle.cancelled() => return,
    };
    let Some(Used {
        tunnel,
        head,
        opening,
        peer,
    }) = used
    else {
        return;
    };
    tracing::trace!(kind = ?opening.kind, ?peer, "tunnel in use");
    match &**handler {
        Handler::Tcp(forward) => forward.serve(tunnel, head, opening).await,
        Handler::Command(_, services) if opening.service.is_some() => {
            services.serve(tunnel, head, opening).await;
        }
        Handler::Command(mode, services) if opening.tls.is_some() => {
            if let Some(tunnel) = services.unseal(tunnel, head, opening.answer).await {
                let peer = PeerInfo {
                    via: Via::Sealed,
                    addr: peer,
                };
                mode.serve(Traced::server(tunnel), peer, idle.clone()).await;
            }
        }
        Handler::Command(..) if opening.kind == Some(TunnelKind::Tcp) => {
            let error = OpenError {
                code: "http_only".into(),
                message: "this edge agent serves HTTP here; open its URL in a browser".into(),
            };
            forward::refuse(tunnel, opening.answer, error).await;
        }
        Handler::Command(mode, _) => {
            let peer = PeerInfo {
                via: Via::Relay,
                addr: peer,
            };
            let tunnel = Traced::server(Prefixed::new(head, tunnel));
            mode.serve(tunnel, peer, idle.clone()).await;
        }
    }
}

/// Dials the proxy port and says which request this answers.
async fn present(config: &Config, dialer: &Dialer, blocked: &Blocked, id: String) -> Option<Stream> {
    let turn = DIALS.acquire().await.ok()?;
    let dialed = dialer.dial(config.server.proxy_port).await;
    let mut tunnel = match dialed {
        Ok(tunnel) => {
            blocked.works();
            tunnel
        }
        Err(e) => {
            drop(turn);
            blocked
                .failed(&config.server.host, config.server.proxy_port, &e)
                .await;
            return None;
        }
    };
    // Visitors may pause while they read.
    arp_common::net::let_pause(tunnel.tcp(), true);
    let hello = Command::NewProxyConn {
        proxy_conn_id: id,
        client_id: config.client_id.clone(),
    };
    timeout(HANDSHAKE, write_frame(&mut tunnel, &hello))
        .await
        .ok()?
        .ok()?;
    Some(tunnel)
}

/// A tunnel with its first bytes.
struct Used {
    tunnel: Stream,
    head: BytesMut,
    opening: Opening,
    peer: Option<SocketAddr>,
}

/// Waits for the first use of an idle tunnel. It may be hours until then, and nothing is held for it but
/// the connection.
async fn first_use(mut tunnel: Stream, version: u32) -> Option<Used> {
    // Of TLS the socket tells nothing: bytes may have been read with the handshake.
    if let Some(tcp) = tunnel.plain() {
        tcp.readable().await.ok()?;
    }
    if version < 2 {
        let mut head = BytesMut::new();
        let n = tunnel.read_buf(&mut head).await.ok()?;
        return (n > 0).then_some(Used {
            tunnel,
            head,
            opening: Opening::default(),
            peer: None,
        });
    }
    let mut frames = FrameReader::new(tunnel);
    let open = frames.next().await.ok()??;
    let Command::Open {
        kind,
        peer_addr,
        service,
        key,
        e2e,
        tls,
    } = open
    else {
        tracing::warn!("the relay began a tunnel with something else than Open; dropping it");
        return None;
    };
    let (tunnel, head) = frames.into_parts();
    Some(Used {
        tunnel,
        head,
        opening: Opening {
            kind: Some(kind),
            service,
            key,
            peer: peer_addr,
            e2e,
            tls,
            answer: kind == TunnelKind::Tcp && version >= 3,
        },
        peer: peer_addr,
    })
}
