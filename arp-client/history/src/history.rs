//! The history of all agents on this machine.

use crate::defaults::MAX_SESSIONS;
use crate::format::Format;
use crate::homes::is_safe_id;
use crate::page::{Filter, Opened, Page, Taken, raw};
use crate::query::{self, SessionFilter};
use crate::scan::Scanner;
use crate::shapes::{
    Deleted, EventPage, LiveSession, Projects, RawPage, ScanReport, Session, Sessions, Status,
    WorkingDirectories,
};
use crate::store::{Store, is_damaged};
use crate::{AgentKind, HistoryConfig, HistoryError, delete, formats, summary, talk};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The history of all agents on this machine. To be shared (`Arc`); every method blocks.
pub struct History {
    config: HistoryConfig,
    store: Store,
    /// Bytes read from session files since the start.
    bytes: AtomicU64,
    /// By agent, in the order of [`AgentKind::ALL`].
    kept: [Kept; AgentKind::ALL.len()],
    /// The Codex binary that was found, where the configuration names none.
    codex_found: OnceLock<PathBuf>,
}

/// An agent's history.
struct Kept {
    format: Box<dyn Format>,
    turnstile: Turnstile,
}

/// Lets one scan of an agent's files run at a time, and those who waited for it use its result.
#[derive(Default)]
struct Turnstile {
    begun: AtomicU64,
    /// The latest scan that is done. Scans are numbered from 1.
    done: Mutex<u64>,
}

impl History {
    /// Opens the index. Reads no home yet: the first listing of an agent does, or [`History::scan`].
    ///
    /// # Errors
    /// When the index can neither be opened nor made.
    pub fn open(config: HistoryConfig) -> Result<Self, HistoryError> {
        Ok(Self {
            store: Store::open(&config.index_path)?,
            config,
            bytes: AtomicU64::new(0),
            kept: AgentKind::ALL.map(|agent| Kept {
                format: formats::of(agent),
                turnstile: Turnstile::default(),
            }),
            codex_found: OnceLock::new(),
        })
    }

    /// Tells where the Codex binary was found. It deletes its own sessions, from its database too, where the
    /// configuration names no other one. The first word counts.
    pub fn found_codex(&self, binary: PathBuf) {
        let _ = self.codex_found.set(binary);
    }

    /// Where the agents' homes are.
    pub fn config(&self) -> &HistoryConfig {
        &self.config
    }

    /// Bytes read from session files since the start, by all calls together.
    pub fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads what is new in all homes. To be called once after the start, in the background: the first scan of a
    /// large home takes seconds, and listings wait for it.
    ///
    /// # Errors
    /// When the index fails.
    pub fn scan(&self) -> Result<ScanReport, HistoryError> {
        let mut total = ScanReport::default();
        for agent in AgentKind::ALL {
            if self.config.home(agent).is_none() {
                continue;
            }
            let report = self.mended(|| self.scan_agent(agent))?;
            total.files += report.files;
            total.read += report.read;
            total.gone += report.gone;
            total.bytes += report.bytes;
        }
        Ok(total)
    }

    /// Projects with their sessions, the most recently used first.
    ///
    /// # Errors
    /// [`HistoryError::NoHome`] when the agent's home is not known; when the index fails.
    pub fn projects(
        &self,
        agent: AgentKind,
        limit: Option<usize>,
        offset: usize,
    ) -> Result<Projects, HistoryError> {
        let limit = limit.unwrap_or(MAX_SESSIONS).min(MAX_SESSIONS);
        self.listed(agent, || {
            Ok(self.store.read(|c| query::projects(c, agent, limit, offset))?)
        })
    }

    /// Directories that the agent worked in, the most recently used first.
    ///
    /// # Errors
    /// As [`History::projects`].
    pub fn working_directories(&self, agent: AgentKind) -> Result<WorkingDirectories, HistoryError> {
        self.listed(agent, || Ok(self.store.read(|c| query::directories(c, agent))?))
    }

    /// Sessions, the most recently used first.
    ///
    /// # Errors
    /// As [`History::projects`].
    pub fn sessions(&self, agent: AgentKind, filter: &SessionFilter) -> Result<Sessions, HistoryError> {
        let (mut sessions, total) = self.listed(agent, || {
            Ok(self.store.read(|c| query::sessions(c, agent, filter))?)
        })?;
        let live = self.live(agent);
        for session in &mut sessions {
            self.complete(session, &live);
        }
        Ok(Sessions { sessions, total })
    }

    /// One session by the agent's own id.
    ///
    /// # Errors
    /// [`HistoryError::UnknownSession`] when there is none of that id; as [`History::projects`].
    pub fn session(&self, agent: AgentKind, id: &str) -> Result<Session, HistoryError> {
        let (mut session, _) = self.mended(|| self.locate(agent, id))?;
        self.complete(&mut session, &self.live(agent));
        Ok(session)
    }

    /// The session of that id, whichever agent's it is.
    ///
    /// # Errors
    /// When the index fails.
    pub fn find(&self, id: &str) -> Result<Option<Session>, HistoryError> {
        for agent in AgentKind::ALL {
            match self.session(agent, id) {
                Ok(session) => return Ok(Some(session)),
                Err(HistoryError::UnknownSession { .. } | HistoryError::NoHome(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// A page of a session's lines, as the agent wrote them. Only complete lines: one that is being written is
    /// given when its end is there.
    ///
    /// # Errors
    /// As [`History::session`]; [`HistoryError::Changed`] when the file was replaced in this moment.
    pub fn messages(
        &self,
        agent: AgentKind,
        id: &str,
        page: Page,
        filter: Filter,
    ) -> Result<RawPage, HistoryError> {
        self.retried(|| {
            let (session, opened) = self.opened(agent, id)?;
            let format = self.format(agent);
            let (mut messages, mut lines) = (Vec::new(), Vec::new());
            let next = opened.walk(&self.store, &self.bytes, page, false, |number, line| {
                if filter == Filter::Conversation
                    && line.bytes.is_some_and(|b| summary::is_housekeeping(format, b))
                {
                    return Taken::LeftOut;
                }
                messages.push(raw(&line));
                lines.push(number);
                Taken::Given
            })?;
            Ok(RawPage {
                session_id: session.id,
                messages,
                lines,
                total_lines: opened.lines,
                next,
            })
        })
    }

    /// A page of a session as events. Records are lines; for Gemini, whose lines replace one another, they are the
    /// messages that stand.
    ///
    /// # Errors
    /// As [`History::messages`].
    pub fn events(&self, agent: AgentKind, id: &str, page: Page) -> Result<EventPage, HistoryError> {
        self.retried(|| {
            let (session, opened) = self.opened(agent, id)?;
            talk::page(&self.store, &self.bytes, self.format(agent), &opened, page).map(|talk| EventPage {
                session_id: session.id,
                events: talk.events,
                total_lines: talk.records,
                next: talk.next,
            })
        })
    }

    /// Sessions that a process of the agent has open: Claude's by its own notes, Codex's by its open files (Linux
    /// only). Gemini's cannot be told.
    pub fn live(&self, agent: AgentKind) -> Vec<LiveSession> {
        self.config
            .home(agent)
            .map(|home| self.format(agent).live(home))
            .unwrap_or_default()
    }

    /// Deletes a session with all that belongs to it on disk. `force` also when it is live.
    ///
    /// # Errors
    /// As [`History::session`]; [`HistoryError::Live`] when an agent has it open (a Gemini session: when it was
    /// written to within the last half minute) and `force` is not set.
    pub fn delete(&self, agent: AgentKind, id: &str, force: bool) -> Result<Deleted, HistoryError> {
        let (session, _) = self.mended(|| self.locate(agent, id))?;
        let (home, format) = (self.home(agent)?, self.format(agent));
        let files = self.store.read(|c| query::files_of(c, agent, &session.id))?;
        if !force {
            let open = format.live(home).iter().any(|l| l.session_id == session.id);
            let recent = || files.iter().any(|f| format.is_recent(&home.join(&f.rel)));
            if open || recent() {
                return Err(HistoryError::Live {
                    agent,
                    id: session.id,
                });
            }
        }
        let codex = self.config.codex_command.as_ref().or(self.codex_found.get());
        let removed = delete::delete(format, codex.map(PathBuf::as_path), home, &session.id, &files)?;
        self.mended(|| self.scan_agent(agent))?;
        Ok(Deleted {
            session_id: session.id,
            removed,
        })
    }

    /// A session's file, up to date and open.
    fn opened(&self, agent: AgentKind, id: &str) -> Result<(Session, Opened), HistoryError> {
        let (session, file) = self.locate(agent, id)?;
        let opened = Opened::open(&self.store, self.home(agent)?, file)?;
        Ok((session, opened))
    }

    /// A session's rows, up to date. The id is only ever compared with those in the index.
    fn locate(&self, agent: AgentKind, id: &str) -> Result<(Session, i64), HistoryError> {
        let unknown = || HistoryError::UnknownSession {
            agent,
            id: crate::json::short(id),
        };
        if !is_safe_id(id) {
            return Err(unknown());
        }
        let known = self.store.read(|c| query::files_of(c, agent, id))?;
        let mut there = !known.is_empty();
        if there {
            let _turn = lock(&self.kept(agent).turnstile.done);
            for file in &known {
                there &= self.scanner(agent)?.refresh(&file.rel)?;
            }
        }
        // Not there, or not where it was: look at the whole home.
        if !there || self.format(agent).moves() {
            self.scan_agent(agent)?;
        }
        self.store.read(|c| query::one(c, agent, id))?.ok_or_else(unknown)
    }

    fn listed<T>(
        &self,
        agent: AgentKind,
        list: impl Fn() -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        self.mended(|| {
            self.scan_agent(agent)?;
            list()
        })
    }

    /// Adds what is not in the index, and whether it is live.
    fn complete(&self, session: &mut Session, live: &[LiveSession]) {
        let Some(home) = self.config.home(session.agent) else {
            return;
        };
        if live.iter().any(|l| l.session_id == session.id) {
            session.status = Status::Ongoing;
        }
        self.format(session.agent).complete(home, session);
    }

    fn home(&self, agent: AgentKind) -> Result<&PathBuf, HistoryError> {
        self.config.home(agent).ok_or(HistoryError::NoHome(agent))
    }

    fn scanner(&self, agent: AgentKind) -> Result<Scanner<'_>, HistoryError> {
        let home = self.home(agent)?;
        Ok(Scanner {
            store: &self.store,
            format: self.format(agent),
            home,
            counter: &self.bytes,
        })
    }

    fn kept(&self, agent: AgentKind) -> &Kept {
        &self.kept[agent as usize]
    }

    fn format(&self, agent: AgentKind) -> &dyn Format {
        self.kept(agent).format.as_ref()
    }

    /// Scans, or waits for a scan that began after this call.
    fn scan_agent(&self, agent: AgentKind) -> Result<ScanReport, HistoryError> {
        let turnstile = &self.kept(agent).turnstile;
        let wanted = turnstile.begun.load(Ordering::SeqCst) + 1;
        let mut done = lock(&turnstile.done);
        if *done >= wanted {
            return Ok(ScanReport::default());
        }
        let number = turnstile.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let report = self.scanner(agent)?.scan()?;
        *done = number;
        Ok(report)
    }

    /// Does something with the index; should the index turn out to be damaged, makes it again and tries once more.
    fn mended<T>(&self, f: impl Fn() -> Result<T, HistoryError>) -> Result<T, HistoryError> {
        match f() {
            Err(HistoryError::Index(error)) if is_damaged(&error) => {
                self.store.rebuild()?;
                f()
            }
            other => other,
        }
    }

    /// As [`History::mended`], and once more when a file was replaced while it was looked at.
    fn retried<T>(&self, f: impl Fn() -> Result<T, HistoryError>) -> Result<T, HistoryError> {
        match self.mended(&f) {
            Err(HistoryError::Changed | HistoryError::Io { .. }) => f(),
            other => other,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
