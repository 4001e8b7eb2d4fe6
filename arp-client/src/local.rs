//! The local service: how it is dialed, and what a visitor is told when it cannot be reached.

use crate::defaults as d;
use crate::services::EndsTls;
use arp_common::net;
use arp_common::proxy_header::{self, Version};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// The local service.
#[derive(Debug)]
pub struct LocalService {
    host: String,
    port: u16,
    proxy: Option<Version>,
    ends_tls: EndsTls,
    last_answer: Mutex<Option<Instant>>,
}

impl fmt::Display for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl LocalService {
    /// The service at `host`:`port`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            proxy: None,
            ends_tls: EndsTls::default(),
            last_answer: Mutex::new(None),
        }
    }

    /// Tells it who its visitors are.
    #[must_use]
    pub fn with_proxy_protocol(mut self, version: Option<Version>) -> Self {
        self.proxy = version;
        self
    }

    /// Says where the TLS of its visitors ends.
    #[must_use]
    pub fn with_tls(mut self, ends: EndsTls) -> Self {
        self.ends_tls = ends;
        self
    }

    /// Where the TLS of its visitors ends.
    pub(crate) fn ends_tls(&self) -> EndsTls {
        self.ends_tls
    }

    /// Connects for one raw connection of a visitor, and says who that is where it wants to know.
    pub(crate) async fn dial_for(&self, visitor: Option<SocketAddr>) -> io::Result<TcpStream> {
        let mut stream = self.dial().await?;
        if let Some(version) = self.proxy {
            let header = proxy_header::write(version, visitor, stream.peer_addr()?);
            timeout(d::LOCAL_DIAL, stream.write_all(&header)).await??;
        }
        Ok(stream)
    }

    /// The same to a PostgreSQL server that ends TLS itself: a visitor has asked for TLS in its protocol's own way and
    /// been told yes, so we ask, too ("Frontend/Backend Protocol", `SSLRequest`).
    pub(crate) async fn dial_postgres_tls(&self, visitor: Option<SocketAddr>) -> io::Result<TcpStream> {
        const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
        let mut stream = self.dial_for(visitor).await?;
        let ask = async {
            stream.write_all(&SSL_REQUEST).await?;
            stream.read_u8().await
        };
        match timeout(d::LOCAL_DIAL, ask).await?? {
            b'S' => Ok(stream),
            _ => Err(io::Error::other("it takes no TLS (ssl = on in postgresql.conf)")),
        }
    }

    /// Connects, and gives a service that answered a moment ago the time to come back.
    pub(crate) async fn dial(&self) -> io::Result<TcpStream> {
        let start = Instant::now();
        loop {
            let dialed = timeout(d::LOCAL_DIAL, net::connect(&self.host, self.port)).await;
            let error = match dialed {
                Ok(Ok(stream)) => {
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
            "cannot reach the local service at {self}: {error}; start it, or check --local-addr and --local-port of arpc"
        )
    }
}
