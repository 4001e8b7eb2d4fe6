//! TLS that ends here and not at the relay, by a certificate of this machine's own.

use arp_common::defaults::HANDSHAKE;
use arp_common::tls::{Certificate, CertificateError, Files};
use arp_common::transport::{Prefixed, Stream};
use bytes::BytesMut;
use std::io;
use std::sync::Arc;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

/// What a visitor may speak by ALPN that a service here can be expected to understand; everything else is spoken
/// without being named.
const NAMED: [&[u8]; 2] = [b"http/1.1", b"postgresql"];

/// Why there is no TLS here.
#[derive(Debug, thiserror::Error)]
pub enum EdgeTlsError {
    /// The certificate cannot be used.
    #[error("--tls-cert, --tls-key: {0}")]
    Certificate(#[from] CertificateError),
    /// rustls cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Ends TLS with a certificate that follows its files.
pub struct EdgeTls {
    certificate: Arc<Certificate>,
    /// One for each of [`NAMED`], and one for everything else.
    named: Vec<TlsAcceptor>,
    other: TlsAcceptor,
}

impl std::fmt::Debug for EdgeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EdgeTls")
    }
}

/// A visitor's connection, decrypted.
pub type Sealed = TlsStream<Prefixed<Stream>>;

impl EdgeTls {
    /// With the certificate in these files.
    ///
    /// # Errors
    /// See [`EdgeTlsError`].
    pub fn load(files: Files) -> Result<Self, EdgeTlsError> {
        let certificate = Arc::new(Certificate::load(files)?);
        let named = NAMED.iter().map(|name| certificate.acceptor(&[name]));
        Ok(Self {
            named: named.collect::<Result<_, _>>()?,
            other: certificate.acceptor(&[])?,
            certificate,
        })
    }

    /// Follows the files, forever.
    pub async fn watch(self: Arc<Self>) {
        self.certificate.clone().watch().await;
    }

    /// Ends the handshake of a connection of which `head` was read already, within the time for it.
    ///
    /// # Errors
    /// If it is none, or not in time.
    pub(crate) async fn accept(&self, head: BytesMut, tunnel: Stream) -> io::Result<Sealed> {
        let accept = async {
            let hello =
                LazyConfigAcceptor::new(rustls::server::Acceptor::default(), Prefixed::new(head, tunnel));
            let hello = hello.await?;
            let told: Vec<&[u8]> = hello.client_hello().alpn().into_iter().flatten().collect();
            let acceptor = NAMED
                .iter()
                .zip(&self.named)
                .find(|(name, _)| told.contains(*name))
                .map_or(&self.other, |(_, acceptor)| acceptor);
            let config = acceptor.config().clone();
            hello.into_stream(config).await
        };
        timeout(HANDSHAKE, accept)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
