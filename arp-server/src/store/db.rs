//! The table of bindings and its rules.

use arp_common::ids::{ClientId, Token};
use arp_common::private;
use arp_common::tls::Fingerprint;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time that another process (`arps clients forget`) may hold the file.
const BUSY: Duration = Duration::from_secs(5);
/// A client's last visit is written down when the one on file is this old, in seconds.
const SEEN_STEP: i64 = 3600;
/// Version of the table below.
const SCHEMA: i64 = 1;
const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS bindings (
        name TEXT PRIMARY KEY,       -- in lower case: host names have none
        shown TEXT NOT NULL,         -- as the client writes it
        client TEXT NOT NULL,        -- id of the client that had it last
        key BLOB NOT NULL,           -- SHA-256 of the edge's public key
        routed INTEGER NOT NULL,     -- do visitors reach the client by it?
        first_seen INTEGER NOT NULL, -- seconds since 1970
        last_seen INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS by_client ON bindings (client);
    CREATE INDEX IF NOT EXISTS by_seen ON bindings (last_seen);";

/// Why the store does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// SQLite says no.
    #[error("the store of the relay failed: {0}")]
    Sql(#[from] rusqlite::Error),
    /// A newer arps wrote it.
    #[error(
        "{0} was written by a newer arps; use that one, or move the file away (all key bindings are lost then)"
    )]
    Newer(PathBuf),
    /// Its thread cannot be started.
    #[error("cannot start the store's thread: {0}")]
    Thread(std::io::Error),
    /// Its thread has ended, or a write failed.
    #[error("the store of the relay does not answer")]
    Closed,
}

/// Names that an edge wants.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its id, which is always among the names.
    pub client: ClientId,
    /// Further names.
    pub tokens: Vec<Token>,
    /// Do visitors reach it by its id?
    pub id_token: bool,
    /// The key it holds; none in plain.
    pub key: Option<Fingerprint>,
    /// May it ask for names that are not bound to its key yet?
    pub may_ask: bool,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The names are its own.
    Granted,
    /// Another key holds this one.
    Bound(Token),
    /// It has asked for too many names in vain.
    TooManyTries,
    /// There is no room for another name.
    Full,
}

/// One client as it is on file.
#[derive(Debug, Clone)]
pub struct Binding {
    /// Its id.
    pub client: ClientId,
    /// Its key.
    pub key: Fingerprint,
    /// Names by which visitors reach it.
    pub routed: Vec<Token>,
    /// All names that are bound to it, its id included.
    pub names: usize,
    /// First registration, in seconds since 1970.
    pub first_seen: i64,
    /// Last registration, to the hour, in seconds since 1970.
    pub last_seen: i64,
}

/// The open file.
#[derive(Debug)]
pub struct Db {
    sql: Connection,
}

impl Db {
    /// Opens the file, and makes it if need be (mode 0600).
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            // SQLite gives its journals the rights of the file itself.
            private::create(path, b"")?;
        }
        private::close_to_others(path)?;
        let sql = Connection::open(path)?;
        sql.busy_timeout(BUSY)?;
        sql.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        // A binding that was granted must not be forgotten by a power cut.
        sql.pragma_update(None, "synchronous", "FULL")?;
        let version: i64 = sql.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        if version > SCHEMA {
            return Err(StoreError::Newer(path.to_owned()));
        }
        sql.execute_batch(CREATE)?;
        sql.pragma_update(None, "user_version", SCHEMA)?;
        Ok(Self { sql })
    }

    /// The `max` clients seen last, the latest first.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn bindings(&self, max: usize) -> Result<Vec<Binding>, StoreError> {
        let mut clients = self.sql.prepare(
            "SELECT client, key, count(*), min(first_seen), max(last_seen) FROM bindings
             GROUP BY client, key ORDER BY max(last_seen) DESC LIMIT ?1",
        )?;
        let mut names = self.sql.prepare(
            "SELECT shown FROM bindings WHERE client = ?1 AND key = ?2 AND routed = 1 ORDER BY name",
        )?;
        let rows = clients.query_map([i64::try_from(max).unwrap_or(i64::MAX)], |r| {
            let (client, key): (String, [u8; 32]) = (r.get(0)?, r.get(1)?);
            Ok((client, key, r.get(2)?, r.get(3)?, r.get(4)?))
        })?;
        let mut all = Vec::new();
        for row in rows {
            let (client, key, count, first_seen, last_seen): (_, _, i64, _, _) = row?;
            let routed = names.query_map(params![client, key], |r| r.get::<_, String>(0))?;
            let routed = routed.filter_map(|n| n.ok()?.parse().ok()).collect();
            // A row that somebody wrote by hand and that is no name is passed over.
            let Ok(client) = client.parse() else { continue };
            all.push(Binding {
                client,
                key: Fingerprint::from_bytes(key),
                routed,
                names: usize::try_from(count).unwrap_or(0),
                first_seen,
                last_seen,
            });
        }
        Ok(all)
    }

    /// Unbinds a client with all its names, or a single further name. Tells how many names became free.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn forget(&mut self, name: &str) -> Result<usize, StoreError> {
        let work = self.sql.transaction()?;
        let mut gone = work.execute("DELETE FROM bindings WHERE client = ?1", [name])?;
        if gone == 0 {
            gone = work.execute(
                "DELETE FROM bindings WHERE name = ?1",
                [name.to_ascii_lowercase()],
            )?;
        }
        work.commit()?;
        Ok(gone)
    }

    /// Decides claims in order, in one transaction. At most `max_names` are bound in all.
    ///
    /// # Errors
    /// If SQLite fails; nothing is bound then.
    pub fn claim_all(&mut self, claims: &[&Claim], max_names: usize) -> Result<Vec<Verdict>, StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let work = self.sql.transaction()?;
        let mut verdicts = Vec::with_capacity(claims.len());
        for claim in claims {
            verdicts.push(decide(&work, claim, max_names, now)?);
        }
        work.commit()?;
        Ok(verdicts)
    }
}

struct Wanted {
    shown: Token,
    name: String,
    routed: bool,
    /// Routed, last seen, client; if it is bound to the claim's key already.
    held: Option<(bool, i64, String)>,
}

fn decide(work: &Transaction<'_>, claim: &Claim, max_names: usize, now: i64) -> Result<Verdict, StoreError> {
    let id = Token::from(claim.client.clone());
    let mut wanted: Vec<Wanted> = Vec::with_capacity(claim.tokens.len() + 1);
    let further = claim.tokens.iter().map(|t| (t.clone(), true));
    for (shown, routed) in std::iter::once((id, claim.id_token)).chain(further) {
        let name = shown.as_str().to_ascii_lowercase();
        if wanted.iter().any(|w| w.name == name) {
            continue;
        }
        let mut find =
            work.prepare_cached("SELECT key, routed, last_seen, client FROM bindings WHERE name = ?1")?;
        let row = find
            .query_row([&name], |r| {
                Ok((r.get::<_, [u8; 32]>(0)?, (r.get(1)?, r.get(2)?, r.get(3)?)))
            })
            .optional()?;
        let held = match row {
            Some((key, held)) if claim.key.is_some_and(|k| *k.as_bytes() == key) => Some(held),
            // Whoever tries too much is not even told whether there is such a name.
            _ if !claim.may_ask => return Ok(Verdict::TooManyTries),
            Some(_) => return Ok(Verdict::Bound(shown)),
            None => None,
        };
        wanted.push(Wanted {
            shown,
            name,
            routed,
            held,
        });
    }
    let Some(key) = &claim.key else {
        // Nothing can be bound to a client that has no key.
        return Ok(Verdict::Granted);
    };
    let fresh = wanted.iter().filter(|w| w.held.is_none()).count();
    if fresh > 0 {
        let count: i64 = work.query_row("SELECT count(*) FROM bindings", [], |r| r.get(0))?;
        if usize::try_from(count).unwrap_or(usize::MAX).saturating_add(fresh) > max_names {
            return Ok(Verdict::Full);
        }
    }
    for w in &wanted {
        let as_it_was = w.held.as_ref().is_some_and(|(routed, seen, client)| {
            *routed == w.routed && client == claim.client.as_str() && (now - seen).abs() < SEEN_STEP
        });
        if as_it_was {
            continue;
        }
        work.prepare_cached(
            "INSERT INTO bindings VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
             ON CONFLICT (name) DO UPDATE SET shown = ?2, client = ?3, routed = ?5, last_seen = ?6",
        )?
        .execute(params![
            w.name,
            w.shown.as_str(),
            claim.client.as_str(),
            key.as_bytes(),
            w.routed,
            now
        ])?;
    }
    retire(work, claim, key, &wanted)?;
    Ok(Verdict::Granted)
}

/// Names that the client no longer uses lead nowhere, and stay bound: nobody who knew one can have it.
fn retire(
    work: &Transaction<'_>,
    claim: &Claim,
    key: &Fingerprint,
    wanted: &[Wanted],
) -> Result<(), StoreError> {
    let mut find =
        work.prepare_cached("SELECT name FROM bindings WHERE client = ?1 AND key = ?2 AND routed = 1")?;
    let names = find.query_map(params![claim.client.as_str(), key.as_bytes()], |r| {
        r.get::<_, String>(0)
    })?;
    let names: Vec<String> = names.collect::<Result<_, _>>()?;
    for name in names.iter().filter(|n| !wanted.iter().any(|w| w.name == **n)) {
        work.execute("UPDATE bindings SET routed = 0 WHERE name = ?1", [name])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Option<Fingerprint> {
        Some(Fingerprint::from_bytes([n; 32]))
    }

    fn claim(client: &str, tokens: &[&str], key: Option<Fingerprint>) -> Claim {
        Claim {
            client: client.parse().unwrap(),
            tokens: tokens.iter().map(|t| t.parse().unwrap()).collect(),
            id_token: true,
            key,
            may_ask: true,
        }
    }

    fn ask(db: &mut Db, claim: &Claim) -> Verdict {
        db.claim_all(&[claim], 8).unwrap().remove(0)
    }

    #[test]
    fn a_name_belongs_to_the_first_key_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let mut db = Db::open(&path).unwrap();
        let bound = |name: &str| Verdict::Bound(name.parse().unwrap());
        assert_eq!(ask(&mut db, &claim("Demo", &["alice"], key(1))), Verdict::Granted);
        assert_eq!(ask(&mut db, &claim("Demo", &[], key(1))), Verdict::Granted);
        drop(db);
        let mut db = Db::open(&path).unwrap();
        // Neither id nor token, in no case, not as a token, not after it was given up, not in plain.
        assert_eq!(ask(&mut db, &claim("demo", &[], key(2))), bound("demo"));
        assert_eq!(ask(&mut db, &claim("x", &["DEMO"], key(2))), bound("DEMO"));
        assert_eq!(ask(&mut db, &claim("x", &["Alice"], key(2))), bound("Alice"));
        assert_eq!(ask(&mut db, &claim("demo", &[], None)), bound("demo"));
        // A refused claim binds nothing.
        assert_eq!(ask(&mut db, &claim("x", &[], key(3))), Verdict::Granted);
        let known = db.bindings(9).unwrap();
        let demo = known.iter().find(|b| b.client.as_str() == "Demo").unwrap();
        assert_eq!((demo.names, demo.routed.len(), Some(demo.key)), (2, 1, key(1)));
        assert_eq!(db.forget("Demo").unwrap(), 2);
        assert_eq!(ask(&mut db, &claim("demo", &[], key(2))), Verdict::Granted);
    }

    #[test]
    fn plain_clients_bind_nothing_and_the_table_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(&dir.path().join("store.db")).unwrap();
        assert_eq!(ask(&mut db, &claim("old", &[], None)), Verdict::Granted);
        assert!(db.bindings(9).unwrap().is_empty());
        let tokens = ["a", "b", "c", "d", "e", "f", "g"];
        assert_eq!(ask(&mut db, &claim("one", &tokens, key(1))), Verdict::Granted);
        assert_eq!(ask(&mut db, &claim("two", &[], key(2))), Verdict::Full);
        assert_eq!(ask(&mut db, &claim("one", &tokens, key(1))), Verdict::Granted);
    }

    #[test]
    fn whoever_tried_too_often_learns_nothing_and_owners_do_not_mind() {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(&dir.path().join("store.db")).unwrap();
        assert_eq!(ask(&mut db, &claim("one", &[], key(1))), Verdict::Granted);
        let tired = |id, k| Claim {
            may_ask: false,
            ..claim(id, &[], k)
        };
        assert_eq!(ask(&mut db, &tired("one", key(2))), Verdict::TooManyTries);
        assert_eq!(ask(&mut db, &tired("none", key(2))), Verdict::TooManyTries);
        assert_eq!(ask(&mut db, &tired("one", key(1))), Verdict::Granted);
    }
}
