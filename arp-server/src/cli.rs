//! What `arps` does besides serving: tell its fingerprint, list and forget clients.

use crate::data;
use crate::store::{Binding, Db, StoreError};
use arp_common::tls::IdentityError;
use clap::Subcommand;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Things to do instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Print the fingerprint of the relay's key, for `arpc --server-fingerprint`.
    Fingerprint,
    /// List the clients whose names are bound to a key, or free one.
    Clients {
        /// What to do; lists them by default.
        #[command(subcommand)]
        action: Option<Clients>,
    },
}

/// What to do with known clients.
#[derive(Debug, Clone, Subcommand)]
pub enum Clients {
    /// List them, those seen last first.
    List,
    /// Free a client's names, so that an edge agent with another key can have them.
    Forget {
        /// The client's id (or one of its further tokens).
        id: String,
    },
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody has this name.
    #[error("no client is bound to this name; `arps clients` lists them")]
    Unknown,
}

/// Does it, on the data directory of a relay that may be running, and gives what is to be printed.
///
/// # Errors
/// See [`ActionError`].
pub fn run(action: &Action, dir: &Path) -> Result<String, ActionError> {
    match action {
        Action::Fingerprint => Ok(format!("{}\n", data::identity(dir)?.fingerprint())),
        Action::Clients { action } => match action {
            None | Some(Clients::List) => {
                arp_common::private::create_dir(dir).map_err(StoreError::File)?;
                Ok(list(&Db::open(&data::store_file(dir))?.bindings(usize::MAX)?))
            }
            Some(Clients::Forget { id }) => {
                arp_common::private::create_dir(dir).map_err(StoreError::File)?;
                match Db::open(&data::store_file(dir))?.forget(id)? {
                    0 => Err(ActionError::Unknown),
                    n => Ok(format!(
                        "forgot {n} name(s); the next edge agent that registers them has them\n"
                    )),
                }
            }
        },
    }
}

fn list(clients: &[Binding]) -> String {
    if clients.is_empty() {
        return "no client is bound to a key yet\n".to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<34} {:<52} {:>5} {:>8} {:>8}",
        "CLIENT", "KEY", "NAMES", "FIRST", "LAST"
    );
    for c in clients {
        let _ = writeln!(
            text,
            "{:<34} {:<52} {:>5} {:>8} {:>8}",
            c.client.as_str(),
            c.key.to_string(),
            c.names,
            ago(now - c.first_seen),
            ago(now - c.last_seen)
        );
    }
    text
}

/// A time that has passed, to the unit that matters.
fn ago(secs: i64) -> String {
    match secs.max(0) {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s @ 3600..86_400 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}
