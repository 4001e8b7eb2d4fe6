//! TCP mode: what comes through a tunnel goes to the local service, and back, byte for byte.

use crate::defaults as d;
use crate::gate::Gate;
use crate::local::LocalService;
use crate::trace::Traced;
use arp_common::duplex::{self, Transferred};
use arp_common::error_body::ErrorBody;
use arp_common::net;
use arp_common::protocol::TunnelKind;
use arp_common::transport::Stream;
use bytes::BytesMut;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Takes tunnels to the local service, through the gate if there is one.
#[derive(Debug)]
pub struct Forward {
    service: LocalService,
    gate: Option<Gate>,
}

impl Forward {
    /// To the service at `host`:`port`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            service: LocalService::new(host, port),
            gate: None,
        }
    }

    /// With a gate in front of it.
    #[must_use]
    pub fn with_gate(mut self, gate: Option<Gate>) -> Self {
        self.gate = gate;
        self
    }

    /// Serves one tunnel from its first use to its end. `head` was read from it already; `kind` is what
    /// the relay said of it, if it is one that says.
    pub async fn serve(&self, mut tunnel: Stream, head: BytesMut, kind: Option<TunnelKind>) {
        if let Some(gate) = &self.gate {
            // Only HTTP has a place for what the gate asks for.
            return if kind == Some(TunnelKind::Tcp) {
                net::reset_on_drop(tunnel.tcp());
            } else {
                gate.serve(tunnel, head, &self.service).await;
            };
        }
        let is_http = kind.map_or_else(|| looks_like_http(&head), |k| k == TunnelKind::Http);
        let mut local = match self.service.dial().await {
            Ok(local) => Traced::client(local, is_http),
            Err(e) => {
                tracing::warn!(
                    "cannot reach the local service at {}: {e}; is it running?",
                    self.service
                );
                return if is_http {
                    self.refuse(tunnel, &e).await
                } else {
                    net::reset_on_drop(tunnel.tcp())
                };
            }
        };
        let mut count = Transferred::default();
        if let Err(e) = duplex::copy(&mut tunnel, &mut local, head, BytesMut::new(), &mut count).await {
            tracing::debug!(up = count.a_to_b, down = count.b_to_a, "tunnel broke off: {e}");
        }
    }

    /// Answers the request for the service, which cannot.
    async fn refuse(&self, mut tunnel: Stream, error: &io::Error) {
        let message = self.service.unreachable(error);
        let body = ErrorBody::new("local_service_unreachable", &message).line();
        let answer = format!(
            "HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n\
             X-ARP-Error: local_service_unreachable\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let send = async {
            tunnel.write_all(answer.as_bytes()).await?;
            tunnel.flush().await?;
            tunnel.shutdown().await?;
            // Bytes left unread would turn our close into a reset that can overtake the answer.
            tokio::io::copy(&mut (&mut tunnel).take(d::LINGER_BYTES), &mut tokio::io::sink()).await
        };
        let _ = timeout(d::LINGER, send).await;
    }
}

/// On a tunnel of a version 1 relay only the bytes themselves tell.
fn looks_like_http(head: &[u8]) -> bool {
    const METHODS: [&str; 7] = ["GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS "];
    METHODS.iter().any(|m| head.starts_with(m.as_bytes()))
}
