//! Connections to the relay: TLS with the relay's key checked, or plain where that was asked for.

use super::channel::LinkError;
use super::outage::in_words;
use crate::config::{Config, Server};
use crate::defaults as d;
use crate::trust::{KnownRelays, Policy};
use arp_common::defaults::HANDSHAKE;
use arp_common::net;
use arp_common::tls::{self, ConnectError, E2eAcceptor, Fingerprint, Identity, IdentityError, Trust};
use arp_common::transport::Stream;
use rustls::ClientConfig;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::timeout;

/// Opens connections to one relay.
#[derive(Debug)]
pub struct Dialer {
    server: Server,
    secure: Option<Secure>,
}

#[derive(Debug)]
struct Secure {
    identity: Identity,
    policy: Policy,
    known: KnownRelays,
    /// Settings that hold the sessions to be resumed, and whether they still take any key.
    current: Mutex<Option<(Arc<ClientConfig>, bool)>>,
}

impl Dialer {
    /// For the relay of a configuration; makes this machine's key at the first call.
    ///
    /// # Errors
    /// If there is no key to be had.
    pub fn new(config: &Config) -> Result<Self, IdentityError> {
        let secure = if config.plaintext {
            None
        } else {
            Some(Secure {
                identity: Identity::load_or_create(&config.data_dir.join(crate::config::EDGE_KEY))?,
                policy: config.trust.clone(),
                known: KnownRelays::new(&config.data_dir),
                current: Mutex::default(),
            })
        };
        Ok(Self {
            server: config.server.clone(),
            secure,
        })
    }

    /// How relays know this machine; none in plain.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.secure.as_ref().map(|s| s.identity.fingerprint())
    }

    /// What visitors can speak TLS with, by the key of this machine.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn e2e(&self) -> Result<Option<E2eAcceptor>, rustls::Error> {
        let secure = self.secure.as_ref();
        secure.map(|s| E2eAcceptor::new(&s.identity)).transpose()
    }

    /// Connects to a port of the relay within the time for it.
    pub(super) async fn dial(&self, port: u16) -> Result<Stream, LinkError> {
        let host = &self.server.host;
        let failed = |e| LinkError::Unreachable(host.clone(), port, in_words(&e));
        let dialed = timeout(d::DIAL, net::connect(host, port)).await;
        let tcp = dialed
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed)?;
        let Some(secure) = &self.secure else {
            return Ok(Stream::Plain(tcp));
        };
        let pins = |e| LinkError::Pins(secure.known.path().to_owned(), e);
        let (config, first_use) = secure.config(&self.server).map_err(pins)?;
        let handshake = timeout(HANDSHAKE, tls::connect(tcp, host, config)).await;
        let timed_out = || ConnectError::Io(io::ErrorKind::TimedOut.into());
        match handshake.unwrap_or_else(|_| Err(timed_out())) {
            Ok((stream, key)) => {
                if first_use {
                    secure.pin(&self.server, key).map_err(pins)?;
                }
                Ok(stream)
            }
            Err(ConnectError::WrongKey(wrong)) => {
                // The pin may be taken back while we keep trying.
                *secure.lock() = None;
                Err(match secure.policy {
                    Policy::Fingerprint(_) => LinkError::NotTheKey(host.clone(), wrong.found),
                    _ => LinkError::KeyChanged {
                        host: host.clone(),
                        address: address(&self.server),
                        known: wrong.expected,
                        shown: wrong.found,
                    },
                })
            }
            Err(ConnectError::Untrusted(e)) => Err(LinkError::Untrusted(host.clone(), e)),
            Err(ConnectError::Io(e)) => Err(LinkError::NoTls(host.clone(), port, in_words(&e))),
        }
    }
}

/// As `arpc forget-server` takes it.
fn address(server: &Server) -> String {
    if server.host.contains(':') {
        format!("[{}]:{}", server.host, server.control_port)
    } else {
        format!("{}:{}", server.host, server.control_port)
    }
}

impl Secure {
    fn lock(&self) -> MutexGuard<'_, Option<(Arc<ClientConfig>, bool)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self, server: &Server) -> io::Result<(Arc<ClientConfig>, bool)> {
        let mut current = self.lock();
        if let Some(config) = &*current {
            return Ok(config.clone());
        }
        let trust = match &self.policy {
            Policy::FirstUse => match self.known.find(&server.host, server.control_port)? {
                Some(key) => Trust::Pinned(key),
                None => Trust::FirstUse,
            },
            Policy::Fingerprint(key) => Trust::Pinned(*key),
            Policy::Authorities(roots) => Trust::Authorities(roots.clone()),
        };
        let first_use = matches!(trust, Trust::FirstUse);
        let config = tls::client_config(&self.identity, &trust).map_err(io::Error::other)?;
        Ok(current.insert((config, first_use)).clone())
    }

    /// Pins the key of the first contact; from now on no other is taken.
    fn pin(&self, server: &Server, key: Fingerprint) -> io::Result<()> {
        let mut current = self.lock();
        // Two first contacts at once: the first one counts, and the other has to agree.
        match self.known.find(&server.host, server.control_port)? {
            Some(pinned) if pinned != key => {
                return Err(io::Error::other("the relay showed two different keys at once"));
            }
            Some(_) => {}
            None => {
                self.known.pin(&server.host, server.control_port, key)?;
                tracing::info!(
                    "first contact with the relay at {}: its key is {key} (`arps fingerprint` prints it there); \
                     no other is accepted from now on",
                    server.host
                );
            }
        }
        let config = tls::client_config(&self.identity, &Trust::Pinned(key)).map_err(io::Error::other)?;
        *current = Some((config, false));
        Ok(())
    }
}
