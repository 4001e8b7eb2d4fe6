//! TCP mode: what comes through a tunnel goes to the local service, and back, byte for byte.

use crate::defaults as d;
use crate::gate::Gate;
use arp_common::duplex::{self, Transferred};
use arp_common::error_body::ErrorBody;
use arp_common::net;
use arp_common::protocol::TunnelKind;
use arp_common::transport::Stream;
use bytes::BytesMut;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// The local service.
#[derive(Debug)]
pub struct Forward {
    host: String,
    port: u16,
    last_answer: Mutex<Option<Instant>>,
    gate: Option<Gate>,
}

impl Forward {
    /// The service at `host`:`port`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            last_answer: Mutex::new(None),
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
                gate.serve(tunnel, head, self).await;
            };
        }
        let mut local = match self.dial().await {
            Ok(local) => local,
            Err(e) => {
                tracing::warn!(
                    "cannot reach the local service at {}:{}: {e}; is it running?",
                    self.host,
                    self.port
                );
                let is_http = kind.map_or_else(|| looks_like_http(&head), |k| k == TunnelKind::Http);
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

    /// Connects, and gives a service that answered a moment ago the time to come back.
    pub(crate) async fn dial(&self) -> io::Result<TcpStream> {
        let start = Instant::now();
        loop {
            let dialed = timeout(d::LOCAL_DIAL, TcpStream::connect((self.host.as_str(), self.port))).await;
            let error = match dialed {
                Ok(Ok(stream)) => {
                    net::tune(&stream);
                    *self.last_answer() = Some(Instant::now());
                    return Ok(stream);
                }
                Ok(Err(e)) => e,
                Err(_) => io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer in {} s", d::LOCAL_DIAL.as_secs()),
                ),
            };
            let was_up = self.last_answer().is_some_and(|at| at.elapsed() < d::RESTARTING);
            if error.kind() != io::ErrorKind::ConnectionRefused
                || !was_up
                || start.elapsed() > d::RESTART_PATIENCE
            {
                return Err(error);
            }
            sleep(d::RESTART_STEP).await;
        }
    }

    fn last_answer(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.last_answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a visitor is told when the service cannot be reached.
    pub(crate) fn unreachable(&self, error: &io::Error) -> String {
        format!(
            "cannot reach the local service at {}:{}: {error}; start it, or check --local-addr and --local-port of arpc",
            self.host, self.port
        )
    }

    /// Answers the request for the service, which cannot.
    async fn refuse(&self, mut tunnel: Stream, error: &io::Error) {
        let message = self.unreachable(error);
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
