//! TLS from a visitor to an edge, through a relay that carries bytes it cannot read. The edge shows the key that relays
//! know it by; the visitor was told its fingerprint by somebody else than the relay.

use super::verify::PinnedServer;
use super::{Fingerprint, Identity, WrongKey, provider};
use crate::transport::{Prefixed, Stream};
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, ServerConfig};
use std::io;
use std::sync::Arc;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// What is spoken between the two, told in the handshake (ALPN): no other connection of an edge can be taken for one.
const ALPN_E2E: &[u8] = b"arp-e2e/1";

/// The edge's side: takes connections with its own key.
#[derive(Clone)]
pub struct E2eAcceptor(TlsAcceptor);

impl std::fmt::Debug for E2eAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("E2eAcceptor")
    }
}

impl E2eAcceptor {
    /// With this key.
    ///
    /// # Errors
    /// If rustls cannot be set up with it.
    pub fn new(identity: &Identity) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
        config.alpn_protocols = vec![ALPN_E2E.to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Ends the handshake of a connection of which `head` was read already. The caller sets the deadline.
    ///
    /// # Errors
    /// If it is none.
    pub async fn accept(
        &self,
        head: BytesMut,
        stream: Stream,
    ) -> io::Result<server::TlsStream<Prefixed<Stream>>> {
        let tls = self.0.accept(Prefixed::new(head, stream)).await?;
        match tls.get_ref().1.alpn_protocol() {
            Some(ALPN_E2E) => Ok(tls),
            _ => Err(io::Error::other("it speaks something else")),
        }
    }
}

/// The visitor's side: takes the edge with this key and no other. The caller sets the deadline.
///
/// # Errors
/// If there is no such edge at the other end; the text says so.
pub async fn e2e_connect(
    head: BytesMut,
    stream: Stream,
    key: Fingerprint,
) -> io::Result<client::TlsStream<Prefixed<Stream>>> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedServer::new(Some(key))))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_E2E.to_vec()];
    // Nobody looks at the name; what it would say of the edge the relay need not see.
    config.enable_sni = false;
    let name = ServerName::try_from("edge.invalid").map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(config));
    connector
        .connect(name, Prefixed::new(head, stream))
        .await
        .map_err(|e| match wrong_key(&e) {
            Some(wrong) => io::Error::other(wrong),
            None => e,
        })
}

fn wrong_key(e: &io::Error) -> Option<WrongKey> {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) =
        e.get_ref()?.downcast_ref::<rustls::Error>()?
    else {
        return None;
    };
    other.0.downcast_ref::<WrongKey>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (Stream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialed = TcpStream::connect(listener.local_addr().unwrap());
        let (a, b) = tokio::join!(dialed, listener.accept());
        (Stream::Plain(a.unwrap()), Stream::Plain(b.unwrap().0))
    }

    #[tokio::test]
    async fn only_the_edge_with_that_key_is_taken() {
        let (edge, thief) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        for (shown, good) in [(&edge, true), (&thief, false)] {
            let acceptor = E2eAcceptor::new(shown).unwrap();
            let (visitor, tunnel) = pair().await;
            let (visitor, tunnel) = tokio::join!(
                e2e_connect(BytesMut::new(), visitor, edge.fingerprint()),
                acceptor.accept(BytesMut::new(), tunnel)
            );
            assert_eq!((visitor.is_ok(), tunnel.is_ok()), (good, good));
            match visitor {
                Ok(mut visitor) => {
                    visitor.write_all(b"x").await.unwrap();
                    visitor.flush().await.unwrap();
                    let mut byte = [0];
                    tunnel.unwrap().read_exact(&mut byte).await.unwrap();
                    assert_eq!(&byte, b"x");
                }
                Err(e) => {
                    let told = e.to_string();
                    assert!(told.contains(&thief.fingerprint().to_string()), "{told}");
                }
            }
        }
    }
}
