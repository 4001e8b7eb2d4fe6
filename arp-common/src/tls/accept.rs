//! The relay's side: a look at the first byte, then TLS, or plain where that is allowed.

use super::verify::AnyClient;
use super::{ALPN, ALPN_CERTIFIED, Fingerprint, Identity, provider};
use crate::transport::Stream;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// First byte of every TLS connection: the type of a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// First byte of every plain frame: its length is below 16 MiB.
const PLAIN_FRAME: u8 = 0x00;
/// Session tickets for each handshake. An edge that opens several tunnels at once uses one for each.
const TICKETS: usize = 4;

/// Why a connection was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The connection failed, or the TLS handshake did.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer speaks neither TLS nor our protocol.
    #[error("the first byte is 0x{0:02x}: neither TLS nor a frame")]
    NotAPeer(u8),
}

/// A connection that was taken.
#[derive(Debug)]
pub enum Accepted {
    /// By TLS, from the holder of this key.
    Secure(Stream, Fingerprint),
    /// In plain.
    Plain(Stream),
    /// In plain, which is not allowed: the peer is to be told.
    PlainRefused(Stream),
}

/// Takes connections of edges.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    allow_plaintext: bool,
}

/// Shows the self-made key, or the certificate of an authority to an edge that asks for it.
#[derive(Debug)]
struct Shown {
    own: Arc<CertifiedKey>,
    certified: Option<Arc<dyn ResolvesServerCert>>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wants_certified = hello
            .alpn()
            .is_some_and(|mut protocols| protocols.any(|p| p == ALPN_CERTIFIED));
        match &self.certified {
            Some(certified) if wants_certified => certified.resolve(hello),
            _ => Some(self.own.clone()),
        }
    }
}

impl Acceptor {
    /// Shows `identity`; edges that ask for a certificate of an authority see `certified`.
    ///
    /// # Errors
    /// If rustls cannot be set up.
    pub fn new(
        identity: &Identity,
        certified: Option<Arc<dyn ResolvesServerCert>>,
        allow_plaintext: bool,
    ) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(AnyClient::new()))
            .with_cert_resolver(Arc::new(Shown {
                own: identity.certified(),
                certified,
            }));
        config.alpn_protocols = vec![ALPN.to_vec(), ALPN_CERTIFIED.to_vec()];
        // Tickets hold the whole session, the edge's certificate in it, under keys that change every few
        // hours and end with the process: the relay stores nothing.
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        config.send_tls13_tickets = TICKETS;
        Ok(Self {
            tls: TlsAcceptor::from(Arc::new(config)),
            allow_plaintext,
        })
    }

    /// Finds out what a connection is, and ends its handshake. The caller sets the deadline.
    ///
    /// # Errors
    /// See [`AcceptError`].
    pub async fn accept(&self, tcp: TcpStream) -> Result<Accepted, AcceptError> {
        let mut first = [0];
        if tcp.peek(&mut first).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match first[0] {
            TLS_HANDSHAKE => {
                let tls = self.tls.accept(tcp).await?;
                let key = tls.get_ref().1.peer_certificates().and_then(|c| c.first());
                let key = key.ok_or_else(|| io::Error::other("the edge showed no key"))?;
                let key = Fingerprint::of(key).map_err(io::Error::other)?;
                Ok(Accepted::Secure(Stream::Tls(Box::new(tls.into())), key))
            }
            PLAIN_FRAME if self.allow_plaintext => Ok(Accepted::Plain(Stream::Plain(tcp))),
            PLAIN_FRAME => Ok(Accepted::PlainRefused(Stream::Plain(tcp))),
            other => Err(AcceptError::NotAPeer(other)),
        }
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor")
            .field("allow_plaintext", &self.allow_plaintext)
            .finish_non_exhaustive()
    }
}
