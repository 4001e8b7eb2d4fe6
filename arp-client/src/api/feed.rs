//! What a reader of one session gets, in order, whatever it is sent over: SSE and WebSocket write the same feed.

use crate::command::gateway::News;
use arp_sessions::model::SessionView;
use arp_sessions::read::{Cursor, Entry, Sequence, Start};
use arp_sessions::{Follower, error::SessionError};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

/// The session object is sent at most this often, unless its state changes.
const SESSION_EVERY: Duration = Duration::from_millis(200);
/// Batches that wait for a slow reader.
const BATCHES: usize = 1;
/// About so many bytes a batch. A reader that does not read holds a few of these, and there may be hundreds.
const BATCH_BYTES: usize = 32 * 1024;
/// What is larger is read from disk in pieces when it is sent.
const LARGE: usize = 128 * 1024;

/// When a feed ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// When the session has no process any more.
    End,
    /// When nothing runs and nothing waits, and at least so many turns were begun.
    Turn(u64),
    /// When the session is deleted.
    Removed,
}

/// What a reader wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedRequest {
    pub(crate) sequence: Sequence,
    /// Where it begins.
    pub(crate) from: Start,
    pub(crate) until: Until,
}

/// What a reader gets.
#[derive(Debug)]
pub(crate) enum Item {
    /// The session object, new or changed.
    Session(Arc<SessionView>),
    /// Lines or events.
    Entries(Vec<Entry>),
    /// The gateway said something of the session.
    Gateway(Arc<News>),
    /// In a feed of lines: an approval came or went (the event as JSON).
    Approval(String),
    /// Everything that was there at the beginning was sent; the newest number.
    CaughtUp(u64),
    /// The end that was waited for.
    Completion(Value),
    /// The session was deleted.
    Removed,
    /// The log cannot be read.
    Failed(SessionError),
}

/// Starts a feed. It stops when its reader does.
pub(crate) fn start(
    follower: Follower,
    request: FeedRequest,
    gateway: Option<broadcast::Receiver<Arc<News>>>,
) -> mpsc::Receiver<Item> {
    let (sender, receiver) = mpsc::channel(BATCHES);
    let feed = Feed {
        // In a feed of lines the events are only looked through for approvals, from now on.
        side: (request.sequence == Sequence::Lines)
            .then(|| follower.read(Sequence::Events, Start::At(follower.view().last_seq + 1))),
        main: follower.read(request.sequence, request.from).within(LARGE),
        session: follower.view().id.clone(),
        gateway,
        follower,
        request,
        sender,
        sent: None,
        sent_at: Instant::now(),
        caught_up: false,
        completed: false,
    };
    tokio::spawn(feed.run());
    receiver
}

struct Feed {
    session: String,
    gateway: Option<broadcast::Receiver<Arc<News>>>,
    follower: Follower,
    main: Cursor,
    side: Option<Cursor>,
    request: FeedRequest,
    sender: mpsc::Sender<Item>,
    sent: Option<Arc<SessionView>>,
    sent_at: Instant,
    caught_up: bool,
    completed: bool,
}

/// The reader is gone, or the feed is at its end.
struct Over;

impl Feed {
    async fn run(mut self) {
        while let Ok(next) = self.step().await {
            self = next;
        }
    }

    async fn step(mut self) -> Result<Self, Over> {
        // First how things stand, then what there is to read: what stands is complete when all is read.
        let tail = self.follower.tail();
        let view = self.follower.view();
        if tail.removed {
            self.send(Item::Removed).await?;
            return Err(Over);
        }
        let waits = self.session(&view).await?;
        self = self.entries().await?;
        if !self.caught_up {
            self.caught_up = true;
            self.send(Item::CaughtUp(self.main.next() - 1)).await?;
        }
        let newest = if self.request.sequence == Sequence::Lines {
            view.total_lines
        } else {
            view.last_seq
        };
        let done = match self.request.until {
            Until::End | Until::Removed => !view.status.is_live(),
            Until::Turn(turns) => !view.status.is_live() || (view.at_rest() && view.turns >= turns),
        };
        if !done {
            self.completed = false;
        } else if !self.completed && self.main.next() > newest {
            self.session_now(&view).await?;
            self.completed = true;
            self.send(Item::Completion(completion(&view))).await?;
            if self.request.until != Until::Removed {
                return Err(Over);
            }
        }
        let patience = async {
            match waits {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            going_on = self.follower.changed() => if going_on { Ok(self) } else { Err(Over) },
            () = patience => Ok(self),
            news = super::events::of_gateway(&mut self.gateway) => {
                if news.session == self.session {
                    self.send(Item::Gateway(news)).await?;
                }
                Ok(self)
            }
            () = self.sender.closed() => Err(Over),
        }
    }

    /// Sends the session object if it is news. When is it to be looked at again?
    async fn session(&mut self, view: &Arc<SessionView>) -> Result<Option<Instant>, Over> {
        let Some(sent) = &self.sent else {
            self.session_now(view).await?;
            return Ok(None);
        };
        if Arc::ptr_eq(sent, view) {
            return Ok(None);
        }
        let important = sent.status != view.status || sent.pending_approvals != view.pending_approvals;
        let due = self.sent_at + SESSION_EVERY;
        if important || due <= Instant::now() {
            self.session_now(view).await?;
            return Ok(None);
        }
        Ok(Some(due))
    }

    async fn session_now(&mut self, view: &Arc<SessionView>) -> Result<(), Over> {
        if self.sent.as_ref().is_some_and(|sent| Arc::ptr_eq(sent, view)) {
            return Ok(());
        }
        self.sent = Some(Arc::clone(view));
        self.sent_at = Instant::now();
        self.send(Item::Session(Arc::clone(view))).await
    }

    /// Sends all entries that are there.
    async fn entries(mut self) -> Result<Self, Over> {
        loop {
            let (main, read) = self.main.page(usize::MAX, BATCH_BYTES).await;
            self.main = main;
            match read {
                Ok(entries) if entries.is_empty() => break,
                Ok(entries) => self.send(Item::Entries(entries)).await?,
                Err(error) => {
                    self.send(Item::Failed(error)).await?;
                    return Err(Over);
                }
            }
        }
        while let Some(side) = self.side.take() {
            let (side, read) = side.batch().await;
            self.side = Some(side);
            let entries = read.unwrap_or_default();
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                // Our own serialization puts the type first.
                if entry.text.starts_with(r#"{"type":"approval"#) {
                    self.send(Item::Approval(entry.text)).await?;
                }
            }
        }
        Ok(self)
    }

    async fn send(&self, item: Item) -> Result<(), Over> {
        self.sender.send(item).await.map_err(|_| Over)
    }
}

/// The last object of a stream.
pub(crate) fn completion(view: &SessionView) -> Value {
    use arp_agents::event::TurnStatus;
    use arp_sessions::model::Status;
    let ended_well = matches!(view.status, Status::Completed | Status::Idle | Status::Parked);
    json!({
        "type": "completion",
        "session_id": view.id,
        "success": ended_well && view.last_turn != Some(TurnStatus::Failed),
        "exit_code": view.exit_code,
        "total_lines": view.total_lines,
        "last_seq": view.last_seq,
        "status": view.status,
        "error": view.error,
    })
}
