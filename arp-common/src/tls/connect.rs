//! The edge's side: whom it trusts, and the handshake.

use super::verify::PinnedServer;
use super::{ALPN, ALPN_CERTIFIED, Fingerprint, Identity, WrongKey, provider};
use crate::transport::Stream;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Sessions of one relay that are kept for further tunnels (rustls keeps at most 8 for each server).
const SESSIONS: usize = 8;

/// Which relay an edge talks to.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Whoever answers: only for the first contact, whose key the caller then pins.
    FirstUse,
    /// The holder of this key.
    Pinned(Fingerprint),
    /// One whose certificate was given by one of these authorities, for the name that was dialed.
    Authorities(Arc<RootCertStore>),
}

/// Why there is no secure connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The relay has another key than the pinned one.
    #[error(transparent)]
    WrongKey(WrongKey),
    /// Its certificate is not good.
    #[error("its certificate is not trusted: {0}")]
    Untrusted(String),
    /// The peer does not speak TLS, or the connection failed.
    #[error(transparent)]
    Io(io::Error),
}

/// Settings for all connections to one relay; they share sessions, so that only the first one costs a
/// full handshake.
///
/// # Errors
/// If rustls cannot be set up with what was given.
pub fn client_config(identity: &Identity, trust: &Trust) -> Result<Arc<ClientConfig>, rustls::Error> {
    let (verifier, alpn): (Arc<dyn ServerCertVerifier>, _) = match trust {
        Trust::FirstUse => (Arc::new(PinnedServer::new(None)), ALPN),
        Trust::Pinned(key) => (Arc::new(PinnedServer::new(Some(*key))), ALPN),
        Trust::Authorities(roots) => {
            let built = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider()).build();
            let built = built.map_err(|e| rustls::Error::General(e.to_string()))?;
            (built, ALPN_CERTIFIED)
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified())));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

/// Ends the handshake of a connection that was just opened to `host`, and tells the relay's key. The caller
/// sets the deadline.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    tcp: TcpStream,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<(Stream, Fingerprint), ConnectError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e| ConnectError::Io(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
    let tls = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(classify)?;
    let key = tls.get_ref().1.peer_certificates().and_then(|c| c.first());
    let key = key.ok_or_else(|| ConnectError::Untrusted("it showed none".into()))?;
    let key = Fingerprint::of(key).map_err(|e| ConnectError::Untrusted(e.to_string()))?;
    Ok((Stream::Tls(Box::new(tls.into())), key))
}

fn classify(e: io::Error) -> ConnectError {
    let tls = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(fault)) = tls else {
        return ConnectError::Io(e);
    };
    if let CertificateError::Other(other) = fault
        && let Some(wrong) = other.0.downcast_ref::<WrongKey>()
    {
        return ConnectError::WrongKey(*wrong);
    }
    ConnectError::Untrusted(fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::{Accepted, Acceptor};
    use super::*;
    use rustls::HandshakeKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair(
        acceptor: &Acceptor,
        config: &Arc<ClientConfig>,
    ) -> Result<(Stream, Accepted), ConnectError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await };
        let tcp = TcpStream::connect(addr).await.unwrap();
        let (client, server) = tokio::join!(connect(tcp, "relay.test", config.clone()), accept);
        Ok((client?.0, server.unwrap()))
    }

    fn kind(stream: &Stream) -> HandshakeKind {
        let Stream::Tls(tls) = stream else { panic!() };
        let (_, state) = tls.get_ref();
        state.handshake_kind().unwrap()
    }

    /// Carries a byte each way, which also brings the tickets to the client.
    async fn talk(client: &mut Stream, server: &mut Stream) {
        for (a, b) in [(0, 1), (1, 0)] {
            let mut byte = [0];
            let ends: [&mut Stream; 2] = if a < b { [client, server] } else { [server, client] };
            let [from, to] = ends;
            from.write_all(b"x").await.unwrap();
            from.flush().await.unwrap();
            to.read_exact(&mut byte).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_resumed_session_keeps_the_key_of_the_edge() {
        let (relay, edge) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let acceptor = Acceptor::new(&relay, None, false).unwrap();
        let config = client_config(&edge, &Trust::Pinned(relay.fingerprint())).unwrap();
        for round in 0..6 {
            let (mut client, accepted) = pair(&acceptor, &config).await.unwrap();
            let Accepted::Secure(mut server, key) = accepted else {
                panic!()
            };
            assert_eq!(key, edge.fingerprint(), "round {round}");
            let expected = if round == 0 {
                HandshakeKind::Full
            } else {
                HandshakeKind::Resumed
            };
            assert_eq!(
                (kind(&client), kind(&server)),
                (expected, expected),
                "round {round}"
            );
            talk(&mut client, &mut server).await;
        }
        // Another edge cannot ride on those sessions: its own settings hold none of them.
        let other = Identity::generate().unwrap();
        let config = client_config(&other, &Trust::Pinned(relay.fingerprint())).unwrap();
        let (_, accepted) = pair(&acceptor, &config).await.unwrap();
        let Accepted::Secure(_, key) = accepted else {
            panic!()
        };
        assert_eq!(key, other.fingerprint());
    }

    #[tokio::test]
    async fn another_key_than_the_pinned_one_is_refused_before_ours_is_shown() {
        let (relay, thief) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let edge = Identity::generate().unwrap();
        let config = client_config(&edge, &Trust::Pinned(relay.fingerprint())).unwrap();
        let acceptor = Acceptor::new(&thief, None, false).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await };
        let dial = async {
            let tcp = TcpStream::connect(addr).await.unwrap();
            connect(tcp, "relay.test", config).await
        };
        let (client, server) = tokio::join!(dial, accept);
        let Err(ConnectError::WrongKey(wrong)) = client else {
            panic!("{client:?}")
        };
        assert_eq!(
            wrong,
            WrongKey {
                expected: relay.fingerprint(),
                found: thief.fingerprint()
            }
        );
        assert!(server.is_err());
    }

    #[tokio::test]
    async fn an_edge_without_a_key_is_refused() {
        let acceptor = Acceptor::new(&Identity::generate().unwrap(), None, false).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedServer::new(None)))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accept = async { acceptor.accept(listener.accept().await.unwrap().0).await };
        let dial = async {
            let tcp = TcpStream::connect(addr).await.unwrap();
            connect(tcp, "relay.test", Arc::new(config)).await
        };
        let (_client, server) = tokio::join!(dial, accept);
        assert!(server.is_err());
    }

    /// What a handshake costs: `cargo test -p arp-common --release handshake_cost -- --ignored --nocapture`
    #[tokio::test]
    #[ignore = "a measurement"]
    async fn handshake_cost() {
        let (relay, edge) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let acceptor = Acceptor::new(&relay, None, false).unwrap();
        let trust = Trust::Pinned(relay.fingerprint());
        let rounds = 1000;
        for resumed in [false, true] {
            let mut config = client_config(&edge, &trust).unwrap();
            let mut spent = std::time::Duration::ZERO;
            for _ in 0..rounds {
                if !resumed {
                    config = client_config(&edge, &trust).unwrap();
                }
                let start = std::time::Instant::now();
                let (mut client, accepted) = pair(&acceptor, &config).await.unwrap();
                spent += start.elapsed();
                let Accepted::Secure(mut server, _) = accepted else {
                    panic!()
                };
                talk(&mut client, &mut server).await;
            }
            println!(
                "resumed {resumed}: {:?} a connection, both sides, TCP included",
                spent / rounds
            );
        }
    }
}
