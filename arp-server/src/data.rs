//! The relay's data directory: its key, its store, and the lock that keeps a second relay out.

use crate::defaults as d;
use crate::store::{Binding, Store, StoreError};
use arp_common::private;
use arp_common::tls::{Identity, IdentityError};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It cannot be made or written to.
    #[error("cannot use the data directory: {0}; choose another with --data-dir")]
    Io(#[from] io::Error),
    /// Another relay has it.
    #[error("another arps uses the data directory {0}; stop it, or give this one its own with --data-dir")]
    InUse(PathBuf),
    /// The key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The data directory of a running relay.
#[derive(Debug)]
pub struct Data {
    /// The relay's key.
    pub identity: Identity,
    /// Key of the hashes that stand for tokens, in cookies too: it stays the same, so that a browser's
    /// cookie holds across restarts.
    pub names_key: (u64, u64),
    /// Key bindings.
    pub store: Store,
    /// Clients known from earlier.
    pub known: Vec<Binding>,
    _lock: File,
}

/// The store's file in a data directory.
pub fn store_file(dir: &Path) -> PathBuf {
    dir.join("store.db")
}

/// The key, which is made if there is none.
///
/// # Errors
/// See [`IdentityError`].
pub fn identity(dir: &Path) -> Result<Identity, IdentityError> {
    Identity::load_or_create(&dir.join("relay-key.pem"))
}

/// Reads the key of the hashes, which is made if there is none or it is broken.
fn names_key(dir: &Path) -> io::Result<(u64, u64)> {
    let path = dir.join("names-key");
    let fresh: [u8; 16] = rand::random();
    private::create(&path, &fresh)?;
    let key = match <[u8; 16]>::try_from(private::read(&path, 64)?) {
        Ok(key) => key,
        Err(_) => {
            private::replace(&path, &fresh)?;
            fresh
        }
    };
    let key = u128::from_le_bytes(key);
    Ok(((key >> 64) as u64, key as u64))
}

impl Data {
    /// Opens a data directory for this process alone.
    ///
    /// # Errors
    /// See [`DataError`].
    pub fn open(dir: &Path, max_clients: usize) -> Result<Self, DataError> {
        private::create_dir(dir)?;
        let path = dir.join("lock");
        private::create(&path, b"")?;
        let lock = File::open(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataError::InUse(dir.to_owned())),
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
        let identity = identity(dir)?;
        let max_names = d::MAX_BOUND_NAMES.max(max_clients.saturating_mul(4));
        let (store, known) = Store::open(&store_file(dir), max_names, d::MAX_OFFLINE)?;
        Ok(Self {
            identity,
            names_key: names_key(dir)?,
            store,
            known,
            _lock: lock,
        })
    }
}
