//! By which names visitors reach this edge: those of the configuration, and those that were added while it
//! runs, which are kept in a file and may expire.

pub mod local;

use arp_common::ids::{ClientId, Token};
use arp_common::private;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Further tokens one edge may have; relays take no more.
const MAX_TOKENS: usize = 64;
/// Largest file of tokens that is read, in bytes.
const MAX_FILE: usize = 256 * 1024;
/// Changes that may wait for the link.
const QUEUE: usize = 16;
/// Time the relay has to answer a change.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest time between two looks at the clock, which may jump.
const TICK: Duration = Duration::from_secs(30);

/// A token that was added while running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The token.
    pub token: Token,
    /// When it ends, in seconds since 1970; never if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// Why the names were not changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file of tokens cannot be read or written.
    #[error("cannot keep tokens: {0}")]
    File(#[from] io::Error),
    /// There is one already.
    #[error("there is such a token already")]
    Exists,
    /// There is none.
    #[error("there is no such token; `arpc tokens list` shows those there are")]
    Unknown,
    /// It comes from a flag, the environment or a file.
    #[error("this token is part of the configuration and does not expire; add another one that does")]
    Configured,
    /// Too many.
    #[error("no more than {MAX_TOKENS} tokens; revoke one first")]
    TooMany,
    /// There is no link now.
    #[error("arpc is not connected to its relay now; try again when it is")]
    Offline,
    /// The relay said no.
    #[error("the relay refused: {0}")]
    Refused(String),
}

/// A change that the relay is to be told; see [`Names::next_change`].
#[derive(Debug)]
pub struct Change(oneshot::Sender<Option<String>>);

impl Change {
    /// What the relay said: an error or none.
    pub fn answered(self, error: Option<String>) {
        let _ = self.0.send(error);
    }
}

/// Added tokens that the relay has not taken (again) yet. A registration leaves them out: a token that it
/// refuses must not keep the edge away.
#[derive(Debug, Default)]
struct Offer {
    /// The one that the relay is asked about now.
    asked: Option<Token>,
    /// Those that may have been the reason for a refusal, and are to be asked about one by one.
    doubted: Vec<Token>,
}

/// What is kept in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Tokens that were added while running.
    #[serde(default)]
    pub added: Vec<Added>,
    /// Names of the configuration (the client id may be one) that were taken back while running.
    #[serde(default)]
    pub revoked: Vec<Token>,
}

/// The file as it is written now, or the list that it was before names of the configuration could be revoked.
#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Now(Kept),
    Before(Vec<Added>),
}

impl From<File> for Kept {
    fn from(file: File) -> Self {
        match file {
            File::Now(kept) => kept,
            File::Before(added) => Self {
                added,
                revoked: Vec::new(),
            },
        }
    }
}

impl Kept {
    fn has_revoked(&self, name: &str) -> bool {
        self.revoked.iter().any(|r| r.as_str().eq_ignore_ascii_case(name))
    }
}

/// All names of this edge.
#[derive(Debug)]
pub struct Names {
    id: ClientId,
    configured: Vec<Token>,
    /// Those among them that lead to a local service and to nothing else.
    of_services: Vec<Token>,
    /// Is the client id a token by the configuration?
    id_token: bool,
    path: PathBuf,
    kept: Mutex<Kept>,
    offer: Mutex<Offer>,
    changes: mpsc::Sender<Change>,
    told: tokio::sync::Mutex<mpsc::Receiver<Change>>,
    /// One change at a time.
    turn: tokio::sync::Mutex<()>,
    /// A token was added, which may end sooner than all others.
    sooner: tokio::sync::Notify,
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// Start of the names of files that belong to one client id, which must not show in them.
fn stem(id: &ClientId) -> String {
    let digest = Sha256::digest(id.as_str().as_bytes());
    let hex: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("tokens-{hex}")
}

fn file_of(dir: &Path, id: &ClientId) -> PathBuf {
    dir.join(stem(id)).with_extension("json")
}

fn read(path: &Path) -> io::Result<Kept> {
    match private::read(path, MAX_FILE) {
        Ok(json) => serde_json::from_slice::<File>(&json)
            .map(Kept::from)
            .map_err(|_| {
                let text = format!(
                    "{} is damaged; put it right, or take it away (tokens that were added are lost then)",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(e) => Err(e),
    }
}

impl Names {
    /// The names of `id`: `configured` ones, those in its file, and the id itself if it is one.
    ///
    /// # Errors
    /// If the file is there and cannot be understood.
    pub fn load(
        dir: &Path,
        id: &ClientId,
        configured: Vec<Token>,
        id_token: bool,
    ) -> Result<Self, TokenError> {
        let path = file_of(dir, id);
        let (changes, told) = mpsc::channel(QUEUE);
        let names = Self {
            id: id.clone(),
            configured,
            of_services: Vec::new(),
            id_token,
            kept: Mutex::new(read(&path)?),
            path,
            offer: Mutex::default(),
            changes,
            told: tokio::sync::Mutex::new(told),
            turn: tokio::sync::Mutex::default(),
            sooner: tokio::sync::Notify::new(),
        };
        names.drop_expired()?;
        Ok(names)
    }

    /// Can the file of `id` be used?
    ///
    /// # Errors
    /// If it is there and cannot be understood.
    pub fn check(dir: &Path, id: &ClientId) -> Result<(), TokenError> {
        read(&file_of(dir, id))?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self) -> MutexGuard<'_, Offer> {
        self.offer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which names lead to a local service and to nothing else.
    #[must_use]
    pub fn with_services(mut self, services: Vec<Token>) -> Self {
        self.of_services = services;
        self
    }

    /// As [`Names::current`], without those that lead to local services: they open neither console nor API.
    pub fn of_console(&self) -> (Vec<Token>, bool) {
        let (mut tokens, id_token) = self.current();
        tokens.retain(|token| !self.of_services.contains(token));
        (tokens, id_token)
    }

    /// Further tokens that are valid now and were not refused, and whether the id is one too.
    pub fn current(&self) -> (Vec<Token>, bool) {
        let offer = self.offer();
        let out = |t: &Token| offer.asked.as_ref() == Some(t) || offer.doubted.contains(t);
        (self.valid(out), self.lets_id_in())
    }

    /// The same with the token that the relay is asked about now.
    pub(crate) fn wanted(&self) -> (Vec<Token>, bool) {
        let offer = self.offer();
        let out = |t: &Token| offer.asked.as_ref() != Some(t) && offer.doubted.contains(t);
        (self.valid(out), self.lets_id_in())
    }

    /// Is the client id a token now?
    fn lets_id_in(&self) -> bool {
        self.id_token && !self.lock().has_revoked(self.id.as_str())
    }

    fn valid(&self, out: impl Fn(&Token) -> bool) -> Vec<Token> {
        let now = now();
        let kept = self.lock();
        let valid = kept.added.iter().filter(|a| a.expires.is_none_or(|e| e > now));
        let configured = self.configured.iter().filter(|t| !kept.has_revoked(t.as_str()));
        let mut all: Vec<Token> = configured.cloned().collect();
        for token in valid.map(|a| &a.token) {
            if !all.contains(token) && !out(token) {
                all.push(token.clone());
            }
        }
        all
    }

    /// The relay refused a registration for good. True if an added token may be why: the next registration is
    /// without them.
    pub(crate) fn doubt(&self) -> bool {
        let offered = self.current().0;
        let mut offer = self.offer();
        let had = offer.doubted.len();
        for token in offered.into_iter().filter(|t| !self.configured.contains(t)) {
            offer.doubted.push(token);
        }
        offer.doubted.len() > had
    }

    /// Asks the relay about the doubted tokens, one by one, and drops those that it refuses. Does not end:
    /// dropped with the link.
    pub(crate) async fn settle(&self) {
        loop {
            let turn = self.turn.lock().await;
            let Some(token) = self.offer().doubted.first().cloned() else {
                break;
            };
            self.offer().asked = Some(token.clone());
            let told = self.tell().await;
            self.offer().asked = None;
            match told {
                Ok(()) => {}
                Err(TokenError::Refused(why)) => {
                    tracing::warn!("the token {token} was dropped, because the relay refused it: {why}");
                    self.lock().added.retain(|a| a.token != token);
                    if let Err(e) = self.save() {
                        tracing::warn!("{e}");
                    }
                }
                // They are asked about when the relay is reached again.
                Err(_) => break,
            }
            self.offer().doubted.retain(|t| *t != token);
            drop(turn);
        }
        std::future::pending().await
    }

    /// Tokens of the configuration, and what was changed while running.
    pub fn list(&self) -> (Vec<Token>, Kept) {
        (self.configured.clone(), self.lock().clone())
    }

    /// Is this a name by the configuration?
    fn is_configured(&self, name: &str) -> bool {
        let same = |t: &str| t.eq_ignore_ascii_case(name);
        self.configured.iter().any(|t| same(t.as_str())) || (self.id_token && same(self.id.as_str()))
    }

    /// Adds a token and waits until the relay has taken it. One of the configuration that was revoked is let in
    /// again.
    ///
    /// # Errors
    /// See [`TokenError`]; nothing is added then.
    pub async fn add(&self, new: Added) -> Result<(), TokenError> {
        let _turn = self.turn.lock().await;
        let same = |t: &Token| t.as_str().eq_ignore_ascii_case(new.token.as_str());
        let before = self.lock().clone();
        if self.is_configured(new.token.as_str()) {
            if new.expires.is_some() {
                return Err(TokenError::Configured);
            }
            if !before.has_revoked(new.token.as_str()) {
                return Err(TokenError::Exists);
            }
            self.lock().revoked.retain(|t| !same(t));
        } else {
            if before.added.iter().any(|a| same(&a.token)) {
                return Err(TokenError::Exists);
            }
            if self.configured.len() + before.added.len() >= MAX_TOKENS {
                return Err(TokenError::TooMany);
            }
            self.offer().asked = Some(new.token.clone());
            self.lock().added.push(new);
        }
        let done = match self.tell().await {
            Ok(()) => self.save(),
            Err(e) => Err(e),
        };
        self.offer().asked = None;
        match &done {
            Ok(()) => self.sooner.notify_one(),
            Err(_) => *self.lock() = before,
        }
        done
    }

    /// Takes a token back, one of the configuration (the client id too) until it is added again. It is gone at once
    /// here; the relay hears of it now or when it is reached again.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn revoke(&self, token: &str) -> Result<(), TokenError> {
        let _turn = self.turn.lock().await;
        {
            let mut kept = self.lock();
            let had = kept.added.len();
            kept.added
                .retain(|a| !a.token.as_str().eq_ignore_ascii_case(token));
            if self.is_configured(token) && !kept.has_revoked(token) {
                let name: Result<Token, _> = token.parse();
                kept.revoked.push(name.map_err(|_| TokenError::Unknown)?);
            } else if kept.added.len() == had {
                return Err(TokenError::Unknown);
            }
        }
        self.save()?;
        match self.tell().await {
            // Without a link nobody is reached by it either, and the next registration leaves it out.
            Ok(()) | Err(TokenError::Offline) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Takes tokens back when they expire, until `stop`.
    pub async fn expire(&self, stop: CancellationToken) {
        loop {
            let next = self.lock().added.iter().filter_map(|a| a.expires).min();
            let pause = next.map_or(TICK, |at| Duration::from_secs(at.saturating_sub(now())).min(TICK));
            tokio::select! {
                () = tokio::time::sleep(pause.max(Duration::from_millis(200))) => {}
                () = self.sooner.notified() => continue,
                () = stop.cancelled() => return,
            }
            let _turn = self.turn.lock().await;
            match self.drop_expired() {
                Ok(0) => {}
                Ok(n) => {
                    tracing::info!("{n} token(s) expired");
                    if let Err(e) = self.tell().await {
                        tracing::debug!("the relay was not told: {e}");
                    }
                }
                Err(e) => tracing::warn!("{e}"),
            }
        }
    }

    /// The next change that the relay must be told, for the link.
    pub(crate) async fn next_change(&self) -> Change {
        let next = self.told.lock().await.recv().await;
        match next {
            Some(change) => change,
            // Not reached: we hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Without a relay there is nobody to ask: every change is taken. Does not end.
    pub async fn without_relay(&self) {
        loop {
            self.next_change().await.answered(None);
        }
    }

    async fn tell(&self) -> Result<(), TokenError> {
        let (answer, heard) = oneshot::channel();
        // A link that is away leaves the change in the queue; it is stale then and answered by nobody.
        self.changes
            .try_send(Change(answer))
            .map_err(|_| TokenError::Offline)?;
        match tokio::time::timeout(ANSWER, heard).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(error))) => Err(TokenError::Refused(error)),
            Ok(Err(_)) | Err(_) => Err(TokenError::Offline),
        }
    }

    fn drop_expired(&self) -> Result<usize, TokenError> {
        let now = now();
        let gone = {
            let added = &mut self.lock().added;
            let had = added.len();
            added.retain(|a| a.expires.is_none_or(|e| e > now));
            had - added.len()
        };
        if gone > 0 {
            self.save()?;
        }
        Ok(gone)
    }

    fn save(&self) -> Result<(), TokenError> {
        let json = serde_json::to_vec_pretty(&*self.lock()).map_err(io::Error::other)?;
        if let Some(dir) = self.path.parent() {
            private::create_dir(dir)?;
        }
        Ok(private::replace(&self.path, &json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Names {
        let id = "demo".parse().unwrap();
        Names::load(dir, &id, vec!["fixed".parse().unwrap()], true).unwrap()
    }

    fn added(token: &str, expires: Option<u64>) -> Added {
        let token = token.parse().unwrap();
        Added { token, expires }
    }

    #[test]
    fn a_services_token_opens_no_console() {
        let dir = tempfile::tempdir().unwrap();
        let names = names(dir.path());
        let all = names.current();
        let of_services = vec![all.0[0].clone()];
        let names = names.with_services(of_services);
        assert_eq!(names.current(), all, "the relay is told of it");
        assert!(names.of_console().0.is_empty());
    }

    #[tokio::test]
    async fn tokens_are_kept_when_the_relay_takes_them_and_end_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let names = names(dir.path());
        let relay = async {
            for answer in [None, Some("taken".to_owned()), None, None, None, None, None, None] {
                names.next_change().await.answered(answer);
            }
        };
        let person = async {
            names.add(added("alice", None)).await.unwrap();
            assert!(matches!(
                names.add(added("bob", None)).await,
                Err(TokenError::Refused(_))
            ));
            assert!(matches!(
                names.add(added("Fixed", None)).await,
                Err(TokenError::Exists)
            ));
            names.add(added("brief", Some(now() + 3600))).await.unwrap();
            assert!(matches!(names.revoke("bob").await, Err(TokenError::Unknown)));
            names.revoke("alice").await.unwrap();
            // Those of the configuration, too, the client id among them; until they are added again.
            names.revoke("FIXED").await.unwrap();
            names.revoke("demo").await.unwrap();
            assert!(matches!(names.revoke("demo").await, Err(TokenError::Unknown)));
            assert!(!names.current().1);
            assert_eq!(self::names(dir.path()).current().0.len(), 1, "it is kept");
            let later = added("fixed", Some(now() + 9));
            assert!(matches!(names.add(later).await, Err(TokenError::Configured)));
            names.add(added("fixed", None)).await.unwrap();
            names.add(added("demo", None)).await.unwrap();
            assert!(names.current().1);
        };
        tokio::join!(relay, person);
        let shown = |n: &Names| {
            n.current()
                .0
                .iter()
                .map(|t| t.as_str().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&names), ["fixed", "brief"]);
        // After a restart they are there again, unless their time is over.
        assert_eq!(shown(&self::names(dir.path())), ["fixed", "brief"]);
        names.lock().added[0].expires = Some(now());
        assert_eq!(shown(&names), ["fixed"]);
        names.save().unwrap();
        assert!(self::names(dir.path()).list().1.added.is_empty());
    }

    proptest::proptest! {
        /// A file that somebody wrote into is read or refused; what is read is bounded and can be kept again.
        #[test]
        fn any_file_is_read_or_refused(
            text in "(\\[?\\{?\"?(token|expires|alice|[0-9a-z./]{0,9})\"?[:,]? ?\\}?\\]?){0,9}",
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = names(dir.path()).path;
            for content in [text.as_bytes(), &bytes, b"[{\"token\":\"a/b\"}]", b"[{\"token\":\"ok\",\"x\":1}]",
                b"{\"added\":[{\"token\":\"ok\"}],\"revoked\":[\"fixed\"]}"] {
                std::fs::write(&path, content).unwrap();
                let id = "demo".parse().unwrap();
                if let Ok(names) = Names::load(dir.path(), &id, Vec::new(), true) {
                    names.save().unwrap();
                    proptest::prop_assert_eq!(self::names(dir.path()).list().1, names.list().1);
                }
            }
        }
    }
}
