//! What comes through a tunnel goes to a local service, and back, byte for byte.

use crate::defaults as d;
use crate::gate::Gate;
use crate::local::LocalService;
use crate::trace::Traced;
use arp_common::defaults::HANDSHAKE;
use arp_common::duplex::{self, Transferred};
use arp_common::error_body::ErrorBody;
use arp_common::ids::Token;
use arp_common::net;
use arp_common::protocol::{Command, OpenError, Secret, TunnelKind, write_frame};
use arp_common::tls::E2eAcceptor;
use arp_common::transport::Stream;
use bytes::BytesMut;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
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
                tracing::warn!("cannot reach the local service at {service}: {e}; is it running?");
                let error = OpenError {
                    code: "local_service_unreachable".into(),
                    message: service.unreachable(&e),
                };
                return if is_http {
                    answer(tunnel, 502, "Bad Gateway", &error).await
                } else {
                    refuse(tunnel, opening.answer, error).await
                };
            }
        };
        if opening.answer {
            let opened = write_frame(&mut tunnel, &Command::Opened { error: None });
            if !matches!(timeout(HANDSHAKE, opened).await, Ok(Ok(()))) {
                return;
            }
        }
        if let Some(acceptor) = self.e2e.as_ref().filter(|_| opening.e2e) {
            return encrypted(acceptor, tunnel, head, local).await;
        }
        let mut count = Transferred::default();
        if let Err(e) = duplex::copy(&mut tunnel, &mut local, head, BytesMut::new(), &mut count).await {
            tracing::debug!(up = count.a_to_b, down = count.b_to_a, "tunnel broke off: {e}");
        }
    }
}

/// Carries a connection whose visitor speaks TLS with us. One that is cut ends without TLS's own goodbye, which the
/// other side sees as a failure.
async fn encrypted(
    acceptor: &E2eAcceptor,
    tunnel: Stream,
    head: BytesMut,
    mut local: impl AsyncRead + AsyncWrite + Unpin,
) {
    let accepted = timeout(HANDSHAKE, acceptor.accept(head, tunnel)).await;
    match accepted {
        Ok(Ok(mut tunnel)) => {
            let _ = tokio::io::copy_bidirectional(&mut tunnel, &mut local).await;
        }
        Ok(Err(e)) => tracing::debug!("no TLS with a visitor: {e}"),
        Err(_) => tracing::debug!("no TLS with a visitor in time"),
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
