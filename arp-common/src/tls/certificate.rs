//! The certificate of an authority that visitors are shown, read again when its files change.

use super::provider;
use crate::defaults as d;
use crate::private;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// Where certificate chain and key are, in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain, its own certificate first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read the certificate: {0}")]
    Read(#[from] std::io::Error),
    /// A file holds something else.
    #[error("{0}: {1}")]
    Malformed(PathBuf, String),
    /// Key and certificate do not go together, or the key is of an unknown kind.
    #[error("--tls-cert and --tls-key cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// A certificate that follows its files.
#[derive(Debug)]
pub struct Certificate {
    files: Files,
    current: RwLock<(Vec<u8>, Arc<CertifiedKey>)>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn load(files: Files) -> Result<Self, CertificateError> {
        let content = read(&files)?;
        let key = parse(&files, &content)?;
        let current = RwLock::new((content.concat(), Arc::new(key)));
        Ok(Self { files, current })
    }

    /// Looks at the files now and then, forever. A change that makes no sense (half of it written yet) is
    /// told, and the old certificate stays.
    pub async fn watch(self: Arc<Self>) {
        let mut told = Vec::new();
        loop {
            tokio::time::sleep(d::CERTIFICATE_POLL).await;
            let me = self.clone();
            let Ok(result) = tokio::task::spawn_blocking(move || me.reload()).await else {
                return;
            };
            match result {
                Ok(true) => {
                    tracing::info!("the certificate that visitors see was changed; using the new one")
                }
                Ok(false) => {}
                Err((content, e)) if content != told => {
                    tracing::warn!("the changed certificate cannot be used, the old one stays: {e}");
                    told = content;
                }
                Err(_) => {}
            }
        }
    }

    /// Looks at the files once, and says whether they hold something new.
    ///
    /// # Errors
    /// See [`CertificateError`]; with it what was read, and the old certificate stays.
    pub fn reload(&self) -> Result<bool, (Vec<u8>, CertificateError)> {
        let content = read(&self.files).map_err(|e| (e.to_string().into_bytes(), e))?;
        let whole = content.concat();
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == whole {
            return Ok(false);
        }
        let key = parse(&self.files, &content).map_err(|e| (whole.clone(), e))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (whole, Arc::new(key));
        Ok(true)
    }

    /// TLS for visitors, with these protocols by ALPN, best first; with whatever they speak if there are none.
    ///
    /// # Errors
    /// If rustls cannot be set up.
    pub fn acceptor(self: &Arc<Self>, alpn: &[&[u8]]) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(current.1.clone())
    }
}

fn read(files: &Files) -> Result<[Vec<u8>; 2], CertificateError> {
    let cert = private::read(&files.cert, d::MAX_CERTIFICATE_FILE)?;
    Ok([cert, private::read(&files.key, d::MAX_CERTIFICATE_FILE)?])
}

fn parse(files: &Files, [cert, key]: &[Vec<u8>; 2]) -> Result<CertifiedKey, CertificateError> {
    let malformed = |path: &PathBuf, e: String| CertificateError::Malformed(path.clone(), e);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .map_err(|e| malformed(&files.cert, format!("not a certificate in PEM form: {e}")))?;
    if chain.is_empty() {
        return Err(malformed(&files.cert, "holds no certificate in PEM form".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|e| malformed(&files.key, format!("not a private key in PEM form: {e}")))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(CertificateError::Unusable)
}
