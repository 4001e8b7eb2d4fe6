//! TLS between edge and relay: TLS 1.3 of rustls, both sides known by the public key of a certificate that
//! they made themselves.
//!
//! Nothing here invents cryptography. A certificate is only the envelope of a key: its names and dates are
//! not looked at, and all signatures are checked by rustls. What a key may do is decided by those who call.

mod accept;
mod certificate;
mod connect;
mod e2e;
mod fingerprint;
mod identity;
mod verify;

pub use accept::{AcceptError, Accepted, Acceptor};
pub use certificate::{Certificate, CertificateError, Files};
pub use connect::{ConnectError, Trust, client_config, connect};
pub use e2e::{E2eAcceptor, e2e_connect};
pub use fingerprint::{BadFingerprint, Fingerprint};
pub use identity::{Identity, IdentityError};
pub use verify::WrongKey;

use rustls::crypto::CryptoProvider;
use std::sync::Arc;

/// What the link speaks, told in the handshake (ALPN). The relay shows the key that it made itself.
pub const ALPN: &[u8] = b"arp/2";
/// The same; the edge wants to see the relay's certificate of an authority.
pub const ALPN_CERTIFIED: &[u8] = b"arp/2-certified";

/// The cryptography that everything here uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Puts that cryptography in place for libraries that ask the process for it (the gateway's HTTP client). A second
/// call changes nothing.
pub fn install_provider() {
    // It fails only when one is in place, which can be no other than ring: nothing else is linked.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
