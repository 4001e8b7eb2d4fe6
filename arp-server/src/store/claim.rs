//! The rules: who may have which name, and who makes room when there are too many.

use super::db::{Db, SEEN_STEP, StoreError, now};
use crate::defaults as d;
use arp_common::ids::{ClientId, Token};
use arp_common::tls::Fingerprint;
use rusqlite::{Connection, OptionalExtension, params};

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
    /// So many names that nobody has yet may be bound for it.
    pub may_bind: usize,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The names are its own; so many of them are new.
    Granted(usize),
    /// Another key holds this one.
    Bound(Token),
    /// It has asked for too many names in vain.
    TooManyTries,
    /// There is no room for another name.
    Full(Limit),
}

/// Which limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Of new names for one address.
    Address,
    /// Of names for one key.
    Key,
    /// Of names for all.
    Relay,
}

/// How many names there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub names: usize,
    /// For one key.
    pub per_key: usize,
}

/// Is the client with this id connected now?
pub type Online = dyn Fn(&str) -> bool + Send;

struct Wanted {
    shown: Token,
    name: String,
    routed: bool,
    /// Routed, last seen, client; if it is bound to the claim's key already.
    held: Option<(bool, i64, String)>,
}

impl Db {
    /// Decides claims in order, in one transaction.
    ///
    /// # Errors
    /// If SQLite fails; nothing is bound then.
    pub fn claim_all(
        &mut self,
        claims: &[&Claim],
        limits: Limits,
        online: &Online,
    ) -> Result<Vec<Verdict>, StoreError> {
        let work = self.sql.transaction()?;
        let mut verdicts = Vec::with_capacity(claims.len());
        for claim in claims {
            verdicts.push(decide(&work, claim, limits, online, now())?);
        }
        work.commit()?;
        Ok(verdicts)
    }

    /// Decides a claim without writing anything: `None` where something would have to be written.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn recognise(&self, claim: &Claim) -> Result<Option<Verdict>, StoreError> {
        Ok(match look_up(&self.sql, claim)? {
            Err(refused) => Some(refused),
            Ok(wanted) if claim.key.is_none() || wanted.iter().all(|w| w.held.is_some()) => {
                Some(Verdict::Granted(0))
            }
            Ok(_) => None,
        })
    }

    /// Notes that a client is here, and whether a visitor has ever asked for it.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn seen(&self, client: &ClientId, key: &Fingerprint, used: bool) -> Result<(), StoreError> {
        let now = now();
        self.sql
            .prepare_cached(
                "UPDATE bindings SET last_seen = ?3, used = max(used, ?4)
                 WHERE client = ?1 AND key = ?2 AND (routed = 1 OR name = lower(client))
                     AND (last_seen <= ?3 - ?5 OR used < ?4)",
            )?
            .execute(params![client.as_str(), key.as_bytes(), now, used, SEEN_STEP])?;
        Ok(())
    }
}

/// What is on file of the names of a claim, or why it cannot have them.
fn look_up(sql: &Connection, claim: &Claim) -> Result<Result<Vec<Wanted>, Verdict>, StoreError> {
    let id = Token::from(claim.client.clone());
    let mut wanted: Vec<Wanted> = Vec::with_capacity(claim.tokens.len() + 1);
    let further = claim.tokens.iter().map(|t| (t.clone(), true));
    for (shown, routed) in std::iter::once((id, claim.id_token)).chain(further) {
        let name = shown.as_str().to_ascii_lowercase();
        if wanted.iter().any(|w| w.name == name) {
            continue;
        }
        let mut find =
            sql.prepare_cached("SELECT key, routed, last_seen, client FROM bindings WHERE name = ?1")?;
        let row = find
            .query_row([&name], |r| {
                Ok((r.get::<_, [u8; 32]>(0)?, (r.get(1)?, r.get(2)?, r.get(3)?)))
            })
            .optional()?;
        let held = match row {
            Some((key, held)) if claim.key.is_some_and(|k| *k.as_bytes() == key) => Some(held),
            // Whoever tries too much is not even told whether there is such a name.
            _ if !claim.may_ask => return Ok(Err(Verdict::TooManyTries)),
            Some(_) => return Ok(Err(Verdict::Bound(shown))),
            None => None,
        };
        wanted.push(Wanted {
            shown,
            name,
            routed,
            held,
        });
    }
    Ok(Ok(wanted))
}

fn decide(
    work: &Connection,
    claim: &Claim,
    limits: Limits,
    online: &Online,
    now: i64,
) -> Result<Verdict, StoreError> {
    let wanted = match look_up(work, claim)? {
        Ok(wanted) => wanted,
        Err(refused) => return Ok(refused),
    };
    let Some(key) = &claim.key else {
        // Nothing can be bound to a client that has no key.
        return Ok(Verdict::Granted(0));
    };
    let fresh = wanted.iter().filter(|w| w.held.is_none()).count();
    if fresh > 0
        && let Some(limit) = no_room(work, claim, key, fresh, limits, online, now)?
    {
        return Ok(Verdict::Full(limit));
    }
    for w in &wanted {
        let as_it_was = w.held.as_ref().is_some_and(|(routed, seen, client)| {
            *routed == w.routed && client == claim.client.as_str() && (now - seen).abs() < SEEN_STEP
        });
        if as_it_was {
            continue;
        }
        work.prepare_cached(
            "INSERT INTO bindings (name, shown, client, key, routed, first_seen, last_seen, used)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 0)
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
    Ok(Verdict::Granted(fresh))
}

/// Is there no room for so many new names? Those who can, make some.
fn no_room(
    work: &Connection,
    claim: &Claim,
    key: &Fingerprint,
    fresh: usize,
    limits: Limits,
    online: &Online,
    now: i64,
) -> Result<Option<Limit>, StoreError> {
    if fresh > claim.may_bind {
        return Ok(Some(Limit::Address));
    }
    let number = |count: i64| usize::try_from(count).unwrap_or(usize::MAX);
    let own = work
        .prepare_cached("SELECT count(*) FROM bindings WHERE key = ?1")?
        .query_row([key.as_bytes()], |r| r.get(0))
        .map(number)?;
    let above = (own + fresh).saturating_sub(limits.per_key);
    // A key's own names that it has given up come first; they are nobody's but its own to lose.
    if above > 0 && give_back(work, key, above)? < above {
        return Ok(Some(Limit::Key));
    }
    let all = work
        .prepare_cached("SELECT count(*) FROM bindings")?
        .query_row([], |r| r.get(0))
        .map(number)?;
    let above = (all + fresh).saturating_sub(limits.names);
    // Some more than are needed, so that a flood does not look through the table at each name.
    let ask = above.max(limits.names / 100);
    if above > 0 && evict(work, key, ask, online, now)? < above {
        return Ok(Some(Limit::Relay));
    }
    Ok(None)
}

/// Frees names of this key that it no longer uses, those given up longest ago first; tells how many.
fn give_back(work: &Connection, key: &Fingerprint, n: usize) -> Result<usize, StoreError> {
    let n = i64::try_from(n).unwrap_or(i64::MAX);
    let gone = work
        .prepare_cached(
            "DELETE FROM bindings WHERE name IN
                 (SELECT name FROM bindings WHERE key = ?1 AND routed = 0 AND name != lower(client)
                  ORDER BY last_seen LIMIT ?2)",
        )?
        .execute(params![key.as_bytes(), n])?;
    Ok(gone)
}

/// Frees names of clients that are away: first those for which no visitor ever came, the oldest first; then those
/// that have not been here for [`d::LONG_GONE`]. Tells how many.
fn evict(
    work: &Connection,
    key: &Fingerprint,
    n: usize,
    online: &Online,
    now: i64,
) -> Result<usize, StoreError> {
    let long_gone = i64::try_from(d::LONG_GONE.as_secs()).unwrap_or(i64::MAX);
    let mut gone: Vec<String> = Vec::new();
    for (query, before) in [
        (
            "SELECT name, client FROM bindings WHERE used = 0 AND last_seen <= ?1 AND key != ?2 ORDER BY last_seen",
            now,
        ),
        (
            "SELECT name, client FROM bindings WHERE last_seen <= ?1 AND key != ?2 ORDER BY last_seen",
            now.saturating_sub(long_gone),
        ),
    ] {
        let mut find = work.prepare_cached(query)?;
        let mut rows = find.query(params![before, key.as_bytes()])?;
        while gone.len() < n
            && let Some(row) = rows.next()?
        {
            let (name, client): (String, String) = (row.get(0)?, row.get(1)?);
            if !online(&client) && !gone.contains(&name) {
                gone.push(name);
            }
        }
    }
    let mut delete = work.prepare_cached("DELETE FROM bindings WHERE name = ?1")?;
    for name in &gone {
        delete.execute([name])?;
    }
    if !gone.is_empty() {
        tracing::info!(
            "{} names of clients that are away and unused were freed to make room for others",
            gone.len()
        );
    }
    Ok(gone.len())
}

/// Names that the client no longer uses lead nowhere, and stay bound: nobody who knew one can have it.
fn retire(work: &Connection, claim: &Claim, key: &Fingerprint, wanted: &[Wanted]) -> Result<(), StoreError> {
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
mod tests;
