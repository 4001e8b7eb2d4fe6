//! Whom a raw connection is for, and the tunnel that takes it there.

use super::services::Service;
use crate::answer::{Refusal, Who};
use crate::defaults as d;
use crate::exchange::deadline::Deadline;
use crate::exchange::poll_io::Outgoing;
use crate::quota::counted;
use crate::registry::{Client, Spelling};
use crate::shared::Public;
use crate::tunnels::lease::Leased;
use crate::tunnels::tunnel::{Tunnel, Want};
use arp_common::ids::Token;
use arp_common::protocol::{Command, OpenError, Secret, TlsBegun, TunnelKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The client, and the service of it, that a connection is for.
pub(super) struct Reached {
    /// Whose it is.
    pub(super) client: Arc<Client>,
    /// By which name.
    pub(super) name: Token,
    /// What is known of the service.
    pub(super) service: Arc<Service>,
    /// Cancelled when the client gives the name up.
    pub(super) revoked: CancellationToken,
    /// Whose share of the client's tunnels it is.
    address: IpAddr,
    peer: SocketAddr,
}

/// What a visitor shows to the edge, through us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// For its gate.
    pub(super) key: Option<Secret>,
    /// Does it speak TLS with the edge itself?
    pub(super) e2e: bool,
    /// How it began TLS that goes to the edge unread.
    pub(super) tls: Option<TlsBegun>,
}

impl From<Option<Secret>> for Shown {
    fn from(key: Option<Secret>) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }
}

/// A tunnel that the service stands behind.
pub(super) struct Opened {
    pub(super) leased: Leased,
}

impl Public {
    /// Looks up whom a connection from `ip` is for. There is no other way for one to learn it, and it counts.
    ///
    /// # Errors
    /// What the visitor is to be told instead.
    pub(super) async fn reach(
        &self,
        name: &str,
        spelling: Spelling,
        ip: IpAddr,
        peer: SocketAddr,
    ) -> Result<Reached, Refusal> {
        let found = self.named(name, spelling, ip, peer).await?;
        let (client, token) = (found.client, found.token);
        let revoked = client.services.revocation(&token);
        // It may have been given up between the two, and nobody would cancel then.
        if !client.has(&token) {
            return Err(Refusal::unknown_token(&crate::routing::route::Unknown {
                given_up: true,
                go_on: None,
            }));
        }
        Ok(Reached {
            service: client.services.of(&token),
            name: token,
            client,
            revoked,
            address: counted(ip),
            peer,
        })
    }
}

/// How a try to open a tunnel ended.
enum Failed {
    /// The tunnel was dead.
    Dead,
    /// The edge does not want to.
    Refused(OpenError),
}

impl Reached {
    /// For a port of its own, which stands for the name.
    pub(super) fn by_port(client: Arc<Client>, service: Option<Token>, peer: SocketAddr) -> Self {
        let name = service.unwrap_or_else(|| client.id.clone().into());
        Self {
            service: client.services.of(&name),
            name,
            client,
            revoked: CancellationToken::new(),
            address: counted(peer.ip()),
            peer,
        }
    }

    /// Opens a tunnel, and waits until the edge has reached the service, where it tells that.
    ///
    /// # Errors
    /// What the visitor is to be told instead.
    pub(super) async fn open(&self, visitor: &Shown) -> Result<Opened, Refusal> {
        for _ in 0..d::MAX_ATTEMPTS {
            let checkout = self.client.pool.checkout(Want::Fresh, self.address);
            let mut leased = checkout.await.map_err(Refusal::no_tunnel)?;
            // Until it is over, an end of the tunnel is a failure, whatever becomes of this task.
            leased.tunnel.wr.begin();
            match self.begin(&mut leased.tunnel, visitor).await {
                Ok(()) => return Ok(Opened { leased }),
                Err(Failed::Dead) => {}
                Err(Failed::Refused(e)) => return Err(refusal(e)),
            }
        }
        let text = "the edge agent's tunnel broke off; try again";
        Err(Refusal::new(Who::Edge, 502, "tunnel_failed", text))
    }

    async fn begin(&self, tunnel: &mut Tunnel, visitor: &Shown) -> Result<(), Failed> {
        // Version 1 has no such word: its tunnels are raw from the first byte.
        if tunnel.version < 2 {
            return Ok(());
        }
        let new = tunnel.version >= 3;
        let open = Command::Open {
            kind: TunnelKind::Tcp,
            peer_addr: Some(self.peer),
            service: self.service.token.clone().filter(|_| new),
            key: visitor.key.clone().filter(|_| new),
            e2e: visitor.e2e && new,
            tls: visitor.tls.filter(|_| new),
        };
        let mut out = Outgoing {
            piece: open.encode().map_err(|_| Failed::Dead)?,
            ..Outgoing::default()
        };
        let mut deadline = Deadline::default();
        let sent = out.write(&mut tunnel.wr, &mut deadline, d::TUNNEL_ARRIVAL);
        sent.await.map_err(|_| Failed::Dead)?;
        if !new {
            return Ok(());
        }
        let heard = async {
            loop {
                if let Some(command) = Command::decode(&mut tunnel.buf).map_err(|_| Failed::Dead)? {
                    return Ok(command);
                }
                match tunnel.rd.read_buf(&mut tunnel.buf).await {
                    Ok(n) if n > 0 => {}
                    _ => return Err(Failed::Dead),
                }
            }
        };
        match timeout(d::OPENED, heard).await {
            Ok(Ok(Command::Opened { error: None })) => Ok(()),
            Ok(Ok(Command::Opened { error: Some(e) })) => Err(Failed::Refused(e)),
            Ok(Err(failed)) => Err(failed),
            Ok(Ok(_)) | Err(_) => Err(Failed::Dead),
        }
    }
}

/// What the visitor is told of an edge's refusal. Codes that it invents are not passed on.
fn refusal(e: OpenError) -> Refusal {
    const CODES: [(&str, u16, Who); 6] = [
        ("no_passthrough", 400, Who::Edge),
        ("no_e2e", 400, Who::Edge),
        ("local_service_unreachable", 502, Who::LocalService),
        ("edge_auth_required", 401, Who::Visitor),
        ("http_only", 400, Who::Visitor),
        ("no_such_service", 404, Who::Edge),
    ];
    let known = CODES.iter().find(|(code, ..)| *code == e.code);
    let (code, status, who) = known.copied().unwrap_or(("tunnel_failed", 502, Who::Edge));
    // One line, whatever the edge says.
    let message: String = e.message.chars().filter(|c| !c.is_control()).take(500).collect();
    Refusal::new(who, status, code, message)
}
