//! The socket of a running instance, which only this user can open: one question a line, one answer a line.

use super::report::About;
use arp_sessions::ipc::{self, Frames};
use arp_tunnels::Handle;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for one question to arrive.
const TIME: Duration = Duration::from_secs(10);
/// Time for the last answer to be taken.
const LAST: Duration = Duration::from_secs(1);
/// Longest time between two answers to [`Ask::Follow`].
const FOLLOW: Duration = Duration::from_secs(5);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// How does it stand?
    Status,
    /// Look at its health now.
    Health,
    /// How does it stand, again and again?
    Follow,
    /// End. Answered when nothing is left.
    Stop,
}

/// Answers for one instance.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) about: Arc<About>,
    pub(super) handle: Handle,
    pub(super) stop: CancellationToken,
    /// True when nothing is left of it.
    pub(super) done: watch::Receiver<bool>,
}

/// The socket, and those who were answered.
pub(super) struct Listening {
    listener: ipc::Listener,
    tasks: TaskTracker,
}

impl Listening {
    /// Takes no further questions, and gives those who wait for an answer to theirs.
    pub(super) fn close(self) -> Waiting {
        self.tasks.close();
        Waiting(self.tasks)
    }
}

/// Those who wait for the last answer.
pub(super) struct Waiting(TaskTracker);

impl Waiting {
    /// Waits until they have it, or do not take it.
    pub(super) async fn answered(self) {
        let _ = tokio::time::timeout(LAST, self.0.wait()).await;
    }
}

impl Server {
    pub(super) fn bind(&self, dir: &Path) -> io::Result<Listening> {
        Ok(Listening {
            listener: ipc::Listener::bind(&dir.join("control"))?,
            tasks: TaskTracker::new(),
        })
    }

    /// Answers for ever.
    pub(super) async fn serve(&self, at: &Listening) {
        loop {
            match at.listener.accept().await {
                Ok(stream) => {
                    let server = self.clone();
                    at.tasks.spawn(async move {
                        // Whoever asks and goes away misses the answer, and nobody else does.
                        let _ = server.answer(Frames::new(stream)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(target: "tunnel", %error, "cannot take a connection to the tunnel's socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn answer(&self, mut frames: Frames) -> io::Result<()> {
        let asked = tokio::time::timeout(TIME, frames.receive::<Ask>()).await;
        let Ok(Some(ask)) = asked.map_err(|_| io::ErrorKind::TimedOut)? else {
            let text = "not a question that this arpc knows; is it of another version?";
            return frames
                .send(&json!({"type": "error", "code": "unknown_question", "message": text}))
                .await;
        };
        match ask {
            Ask::Status => frames.send(&self.report()).await,
            Ask::Health => {
                self.handle.check().await;
                frames.send(&self.report()).await
            }
            Ask::Follow => self.follow(frames).await,
            Ask::Stop => {
                self.stop.cancel();
                let mut done = self.done.clone();
                let _ = done.wait_for(|done| *done).await;
                frames.send(&json!({"type": "stopped"})).await
            }
        }
    }

    async fn follow(&self, mut frames: Frames) -> io::Result<()> {
        let mut view = self.handle.watch();
        loop {
            view.borrow_and_update();
            frames.send(&self.report()).await?;
            let changed = tokio::time::timeout(FOLLOW, view.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return Ok(());
            }
        }
    }

    fn report(&self) -> Value {
        self.about.report(&self.handle.watch().borrow())
    }
}

/// Asks the instance at `dir`.
pub(crate) async fn ask(dir: &Path, question: Ask) -> io::Result<Frames> {
    let mut frames = Frames::new(ipc::connect(&dir.join("control")).await?);
    frames.send(&question).await?;
    Ok(frames)
}

/// Asks, and waits for the one answer.
pub(crate) async fn ask_once(dir: &Path, question: Ask, time: Duration) -> io::Result<Value> {
    let talk = async {
        let mut frames = ask(dir, question).await?;
        frames
            .receive::<Value>()
            .await?
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    };
    match tokio::time::timeout(time, talk).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the tunnel's process does not answer",
        )),
    }
}
