//! A daemon's own key pair: made at its first start, kept in a file, worn in a self-made certificate.

use super::Fingerprint;
use crate::private;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest key file that is read, in bytes.
const MAX_KEY_FILE: usize = 16 * 1024;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file cannot be read or written.
    #[error("cannot keep the key of this machine: {0}")]
    Io(#[from] io::Error),
    /// The key file holds something else.
    #[error(
        "{0} does not hold a private key in PEM form ({1}); restore it from a backup, or move it away to begin with a new key"
    )]
    Malformed(PathBuf, String),
    /// No key could be made.
    #[error("cannot make a key: {0}")]
    Make(String),
}

/// A key pair with a certificate around it.
#[derive(Debug, Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// The key in `path`, which is made at the first call (ECDSA P-256, PKCS#8 in PEM, mode 0600).
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        if !path.exists() {
            if let Some(dir) = path.parent() {
                private::create_dir(dir)?;
            }
            let pair = KeyPair::generate().map_err(|e| IdentityError::Make(e.to_string()))?;
            private::create(path, pair.serialize_pem().as_bytes())?;
        }
        if private::close_to_others(path)? {
            tracing::warn!(
                "{} could be read by other users; it is closed to them now, but whoever read it has the key",
                path.display()
            );
        }
        let malformed = |e: String| IdentityError::Malformed(path.to_owned(), e);
        let pem = String::from_utf8(private::read(path, MAX_KEY_FILE)?)
            .map_err(|_| malformed("not text".into()))?;
        let pair = KeyPair::from_pem(&pem).map_err(|e| malformed(e.to_string()))?;
        Self::new(&pair)
    }

    /// A key that is kept nowhere.
    ///
    /// # Errors
    /// [`IdentityError::Make`].
    pub fn generate() -> Result<Self, IdentityError> {
        Self::new(&KeyPair::generate().map_err(|e| IdentityError::Make(e.to_string()))?)
    }

    fn new(pair: &KeyPair) -> Result<Self, IdentityError> {
        let failed = |e: &dyn std::fmt::Display| IdentityError::Make(e.to_string());
        let mut params = CertificateParams::default();
        // Nobody looks at the name; it tells a person with a packet sniffer what this is.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "arp");
        let certificate = params.self_signed(pair).map_err(|e| failed(&e))?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let key = any_supported_type(&der).map_err(|e| failed(&e))?;
        let fingerprint = Fingerprint::of(certificate.der()).map_err(|e| failed(&e))?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key));
        Ok(Self {
            certified,
            fingerprint,
        })
    }

    /// How others know this key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Certificate and signing key, for rustls.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_the_same_and_a_broken_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/key.pem");
        let first = Identity::load_or_create(&path).unwrap().fingerprint();
        assert_eq!(Identity::load_or_create(&path).unwrap().fingerprint(), first);
        assert_ne!(Identity::generate().unwrap().fingerprint(), first);
        std::fs::write(&path, "hello").unwrap();
        let error = Identity::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("key.pem") && error.contains("backup"), "{error}");
    }
}
