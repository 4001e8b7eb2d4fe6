//! What comes through a tunnel goes to a local service, and back, byte for byte.

use crate::defaults as d;
use crate::edge_tls::{EdgeTls, Sealed};
use crate::gate::Gate;
use crate::local::LocalService;
use crate::services::EndsTls;
use crate::trace::Traced;
use arp_common::defaults::HANDSHAKE;
use arp_common::duplex::{self, Transferred};
use arp_common::error_body::ErrorBody;
use arp_common::ids::Token;
use arp_common::net;
use arp_common::protocol::{Command, OpenError, Secret, TlsBegun, TunnelKind, write_frame};
use arp_common::tls::E2eAcceptor;
use arp_common::transport::{Carrier, Stream};
use bytes::BytesMut;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Takes tunnels to the local services, through the gate if there is one.
#[derive(Debug, Default)]
pub struct Forward {
    /// The one of all names that have none of their own.
    main: Option<LocalService>,
    named: HashMap<Token, LocalService>,
    gate: Option<Gate>,
    /// For visitors who want no relay to read what they send; there is none without a key of this machine.
    e2e: Option<E2eAcceptor>,
    /// For visitors who come by a host name, where there is a certificate for it.
    tls: Option<Arc<EdgeTls>>,
}

/// What the relay said of a tunnel at its first use.
#[derive(Debug, Default)]
pub struct Opening {
    /// What the bytes are, if it is a relay that says so.
    pub kind: Option<TunnelKind>,
    /// The service that is meant, by its token.
    pub service: Option<Token>,
    /// What the visitor shows to the gate.
    pub key: Option<Secret>,
    /// Who the visitor is, where the relay says so.
    pub peer: Option<SocketAddr>,
    /// Does the visitor speak TLS with us, by our own key?
    pub e2e: bool,
    /// How the visitor began TLS that the relay did not read.
    pub tls: Option<TlsBegun>,
    /// Does the relay wait to be told whether the service was reached?
    pub answer: bool,
}

impl Forward {
    /// To this service, by all names that have none of their own.
    pub fn new(service: LocalService) -> Self {
        Self {
            main: Some(service),
            ..Self::default()
        }
    }

    /// For visitors, too, who speak TLS with us.
    #[must_use]
    pub fn with_e2e(mut self, acceptor: Option<E2eAcceptor>) -> Self {
        self.e2e = acceptor;
        self
    }

    /// For visitors, too, who come by a host name for which there is a certificate.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<EdgeTls>>) -> Self {
        self.tls = tls;
        self
    }

    /// With a service that is reached by a token of its own.
    #[must_use]
    pub fn with_service(mut self, token: Token, service: LocalService) -> Self {
        self.named.insert(token, service);
        self
    }

    /// With a gate in front of it.
    #[must_use]
    pub fn with_gate(mut self, gate: Option<Gate>) -> Self {
        self.gate = gate;
        self
    }

    /// Serves one tunnel from its first use to its end. `head` was read from it already.
    pub async fn serve(&self, mut tunnel: Stream, head: BytesMut, opening: Opening) {
        let is_http = match opening.kind {
            Some(kind) => kind == TunnelKind::Http,
            // Behind a gate nothing else can come.
            None => self.gate.is_some() || looks_like_http(&head),
        };
        let service = match &opening.service {
            Some(token) => self.named.get(token),
            None => self.main.as_ref(),
        };
        let Some(service) = service else {
            let error = OpenError {
                code: "no_such_service".into(),
                message: "this edge agent has no service of that name".into(),
            };
            return if is_http {
                answer(tunnel, 404, "Not Found", &error).await
            } else {
                refuse(tunnel, opening.answer, error).await
            };
        };
        if let Some(begun) = opening.tls {
            return self.serve_tls(tunnel, head, opening, begun, service).await;
        }
        if let Some(gate) = &self.gate {
            if is_http {
                return gate.serve(tunnel, head, service).await;
            }
            if !opening.key.as_ref().is_some_and(|key| gate.opens(key)) {
                let message = "this edge agent asks for more than a token: give the key that its owner gave you \
                    (arpc connect --gate KEY, CONNECT with X-ARP-Key, or ?token=NAME&key=KEY)";
                let error = OpenError {
                    code: "edge_auth_required".into(),
                    message: message.into(),
                };
                return refuse(tunnel, opening.answer, error).await;
            }
        }
        if opening.e2e && self.e2e.is_none() {
            let error = OpenError {
                code: "no_e2e".into(),
                message: "this edge agent speaks no TLS of its own: it runs with --plaintext".into(),
            };
            return refuse(tunnel, opening.answer, error).await;
        }
        // On a tunnel of HTTP exchanges many visitors come one after the other.
        let dialed = if is_http {
            service.dial().await
        } else {
            service.dial_for(opening.peer).await
        };
        let mut local = match dialed {
            Ok(local) => Traced::client(local, is_http),
            Err(e) => {
                let error = unreachable(service, &e);
                return if is_http {
                    answer(tunnel, 502, "Bad Gateway", &error).await
                } else {
                    refuse(tunnel, opening.answer, error).await
                };
            }
        };
        if opening.answer && !opened(&mut tunnel).await {
            return;
        }
        if let Some(acceptor) = self.e2e.as_ref().filter(|_| opening.e2e) {
            // One that is cut ends without TLS's own goodbye, which the other side sees as a failure.
            return match timeout(HANDSHAKE, acceptor.accept(head, tunnel)).await {
                Ok(Ok(mut tunnel)) => carry(&mut tunnel, &mut local, BytesMut::new()).await,
                Ok(Err(e)) => tracing::debug!("no TLS with a visitor: {e}"),
                Err(_) => tracing::debug!("no TLS with a visitor in time"),
            };
        }
        carry(&mut tunnel, &mut local, head).await;
    }

    /// Serves a visitor's TLS that the relay did not read.
    async fn serve_tls(
        &self,
        mut tunnel: Stream,
        head: BytesMut,
        opening: Opening,
        begun: TlsBegun,
        service: &LocalService,
    ) {
        match service.ends_tls() {
            EndsTls::Relay => refuse(tunnel, opening.answer, no_passthrough()).await,
            EndsTls::Service => {
                let dialed = match begun {
                    TlsBegun::Direct => service.dial_for(opening.peer).await,
                    TlsBegun::Postgres => service.dial_postgres_tls(opening.peer).await,
                };
                let mut local = match dialed {
                    Ok(local) => local,
                    Err(e) => return refuse(tunnel, opening.answer, unreachable(service, &e)).await,
                };
                if opening.answer && !opened(&mut tunnel).await {
                    return;
                }
                carry(&mut tunnel, &mut local, head).await;
            }
            // Behind the gate there is HTTP, and each request has a connection of its own.
            EndsTls::Edge => {
                if let Some(gate) = &self.gate {
                    if let Some(tunnel) = self.unseal(tunnel, head, opening.answer).await {
                        gate.serve(tunnel, BytesMut::new(), service).await;
                    }
                    return;
                }
                let mut local = match service.dial_for(opening.peer).await {
                    Ok(local) => local,
                    Err(e) => return refuse(tunnel, opening.answer, unreachable(service, &e)).await,
                };
                if let Some(mut tunnel) = self.unseal(tunnel, head, opening.answer).await {
                    carry(&mut tunnel, &mut local, BytesMut::new()).await;
                }
            }
        }
    }

    /// Says that we are there, and ends the TLS of a visitor by our certificate.
    pub(crate) async fn unseal(&self, mut tunnel: Stream, head: BytesMut, answer: bool) -> Option<Sealed> {
        let Some(tls) = &self.tls else {
            refuse(tunnel, answer, no_passthrough()).await;
            return None;
        };
        if answer && !opened(&mut tunnel).await {
            return None;
        }
        let accepted = tls.accept(head, tunnel).await;
        accepted
            .inspect_err(|e| tracing::debug!("no TLS with a visitor: {e}"))
            .ok()
    }
}

/// Tells the relay that the service was reached.
async fn opened(tunnel: &mut Stream) -> bool {
    let opened = write_frame(tunnel, &Command::Opened { error: None });
    matches!(timeout(HANDSHAKE, opened).await, Ok(Ok(())))
}

fn no_passthrough() -> OpenError {
    OpenError {
        code: "no_passthrough".into(),
        message: "this edge agent ends no TLS for this name".into(),
    }
}

fn unreachable(service: &LocalService, e: &io::Error) -> OpenError {
    tracing::warn!("cannot reach the local service at {service}: {e}; is it running?");
    OpenError {
        code: "local_service_unreachable".into(),
        message: service.unreachable(e),
    }
}

/// Carries bytes both ways, to the end.
async fn carry<A, B>(tunnel: &mut A, local: &mut B, head: BytesMut)
where
    A: AsyncRead + AsyncWrite + Carrier + Unpin,
    B: AsyncRead + AsyncWrite + Carrier + Unpin,
{
    let mut count = Transferred::default();
    if let Err(e) = duplex::copy(tunnel, local, head, BytesMut::new(), &mut count).await {
        tracing::debug!(up = count.a_to_b, down = count.b_to_a, "tunnel broke off: {e}");
    }
}

/// Answers the request for a service that cannot.
async fn answer(mut tunnel: Stream, status: u16, reason: &str, error: &OpenError) {
    let body = ErrorBody::new(&error.code, &error.message).line();
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n\
         X-ARP-Error: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        error.code,
        body.len()
    );
    let send = async {
        tunnel.write_all(answer.as_bytes()).await?;
        tunnel.flush().await?;
        linger(&mut tunnel).await
    };
    let _ = timeout(d::LINGER, send).await;
}

/// Ends a raw tunnel for which there is no service. A relay that does not wait for a word sees a failure.
pub(crate) async fn refuse(mut tunnel: Stream, answer: bool, error: OpenError) {
    if !answer {
        return net::reset_on_drop(tunnel.tcp());
    }
    let send = async {
        write_frame(&mut tunnel, &Command::Opened { error: Some(error) })
            .await
            .map_err(io::Error::other)?;
        linger(&mut tunnel).await
    };
    let _ = timeout(d::LINGER, send).await;
}

/// Closes so that what was written last is seen: bytes left unread would turn our close into a reset that can
/// overtake it.
async fn linger(tunnel: &mut Stream) -> io::Result<u64> {
    tunnel.shutdown().await?;
    tokio::io::copy(&mut tunnel.take(d::LINGER_BYTES), &mut tokio::io::sink()).await
}

/// On a tunnel of a version 1 relay only the bytes themselves tell.
fn looks_like_http(head: &[u8]) -> bool {
    const METHODS: [&str; 7] = ["GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS "];
    METHODS.iter().any(|m| head.starts_with(m.as_bytes()))
}
