//! The relay's data directory: its key, its store, and the lock that keeps a second relay out.

use crate::bans::Ban;
use crate::defaults as d;
use crate::store::{self, Binding, Day, Db, StoreError};
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
    pub db: Db,
    /// Clients known from earlier.
    pub known: Vec<Binding>,
    /// All names that are bound to somebody.
    pub bound: Vec<String>,
    /// Who was banned while an earlier relay ran.
    pub bans: Vec<Ban>,
    /// Traffic of earlier days.
    pub days: Vec<Day>,
    _lock: File,
}

/// The file of the ports that edge agents have for themselves.
pub fn ports_file(dir: &Path) -> PathBuf {
    dir.join("remote-ports.json")
}

/// The socket of a relay that runs, which the command line asks.
pub fn socket_file(dir: &Path) -> PathBuf {
    dir.join("arps.sock")
}

/// The file of the store.
pub fn store_file(dir: &Path) -> PathBuf {
    dir.join("store.db")
}

/// What is wrong with a data directory, found without changing anything in it. A relay may be running there.
pub fn faults(dir: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    faults.extend(private::usable_dir(dir).err().map(|e| e.to_string()));
    let key = key_file(dir);
    if key.exists() {
        faults.extend(Identity::load_or_create(&key).err().map(|e| e.to_string()));
    }
    if used_before(dir) {
        faults.extend(Db::open(&store_file(dir), true).err().map(|e| e.to_string()));
    }
    faults
}

fn key_file(dir: &Path) -> PathBuf {
    dir.join("relay-key.pem")
}

/// The key, which is made if there is none.
///
/// # Errors
/// See [`IdentityError`].
pub fn identity(dir: &Path) -> Result<Identity, IdentityError> {
    Identity::load_or_create(&key_file(dir))
}

/// Is there a key, or would one that is made now belong to whom the directory does? Root asks the relay of a service,
/// which could not read what root makes.
pub fn may_make_key(dir: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let owner = std::fs::metadata(dir).map(|m| m.uid());
        key_file(dir).exists()
            || owner.is_ok_and(|uid| uid == rustix::process::geteuid().as_raw())
            || !dir.exists()
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        true
    }
}

fn names_key_file(dir: &Path) -> PathBuf {
    dir.join("names-key")
}

/// Has a relay served with this data directory before? Then its store must be there.
pub fn used_before(dir: &Path) -> bool {
    names_key_file(dir).exists()
}

/// Reads the key of the hashes, which is made if there is none or it is broken.
fn names_key(dir: &Path) -> io::Result<(u64, u64)> {
    let path = names_key_file(dir);
    let fresh: [u8; 16] = rand::random();
    private::create(&path, &fresh)?;
    let key = match <[u8; 16]>::try_from(private::read(&path, 64)?) {
        Ok(key) => key,
        Err(_) => {
            // Browsers have to open their pages anew, no more.
            tracing::warn!("{} is damaged; a new one is made", path.display());
            if let Err(e) = private::replace(&path, &fresh) {
                tracing::warn!("it cannot be written: {e}");
            }
            fresh
        }
    };
    let key = u128::from_le_bytes(key);
    Ok(((key >> 64) as u64, key as u64))
}

/// Opens the store, or a copy of it in memory where nothing can be written.
fn open_store(dir: &Path) -> Result<Db, StoreError> {
    let (path, before) = (store_file(dir), used_before(dir));
    match Db::open(&path, before) {
        Err(e @ (StoreError::Sql(_) | StoreError::File(_))) if before => match Db::copy(&path) {
            Ok(copy) => {
                tracing::error!("{}", store::cannot_write(&path, &e));
                Ok(copy)
            }
            Err(_) => Err(e),
        },
        opened => opened,
    }
}

impl Data {
    /// Opens a data directory for this process alone.
    ///
    /// # Errors
    /// See [`DataError`].
    pub fn open(dir: &Path) -> Result<Self, DataError> {
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
        let db = open_store(dir)?;
        let (known, bound) = (db.bindings(d::MAX_OFFLINE)?, db.names()?);
        // A row that somebody wrote by hand and that is no ban is passed over.
        let bans = db
            .bans()?
            .iter()
            .filter_map(|(ban, _)| ban.parse().ok())
            .collect();
        let days = db.traffic()?;
        Ok(Self {
            identity,
            // Last, because it says that there is a store.
            names_key: names_key(dir)?,
            db,
            known,
            bound,
            bans,
            days,
            _lock: lock,
        })
    }
}
