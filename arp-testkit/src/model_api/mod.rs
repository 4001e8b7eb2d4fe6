//! A loopback model API that scripts the real CLIs: Anthropic Messages for Claude Code, OpenAI Responses for
//! Codex, Google's `generateContent` for Gemini.
//!
//! It binds 127.0.0.1 on a free port, takes any key, records what it was asked (keys blanked out) and makes
//! no request itself. The newest text of the user decides the answer; text in `<tags>` that a CLI put around
//! it is skipped. A line of it begins with one of these, and the first rule that matches is used:
//!
//! | prompt | answer |
//! |---|---|
//! | `fake error 429 [once\|twice\|N times] [MSG]` | that HTTP status in the API's own error shape |
//! | `fake drop` | half an answer, then the connection is cut |
//! | `fake hold` | half an answer, the rest after [`ModelApi::release`] |
//! | `slow [N]` | words, spread over N seconds (20) |
//! | `think X` | a block of reasoning, then the text X |
//! | `call NAME {json}` | a call of that tool; each such line is one of several parallel calls |
//! | `run tool[: COMMAND]` | a call of the CLI's shell tool (`echo hello-from-tool`) |
//! | `say X` | the text X |
//! | anything else | `You said: …` |
//!
//! A request whose newest item is a tool's result gets the text `Tool result: …`, so every call ends in one
//! more turn of the model. A request that wants JSON by a schema gets a small object that fits.
//!
//! Other processes steer it over HTTP: `POST /__fake/queue`, `/__fake/release`, `/__fake/reset`,
//! `GET /__fake/requests`.

mod anthropic;
mod gemini;
mod http;
mod ids;
mod openai;
mod script;

pub use script::Reply;

use script::Script;
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running model API; it ends when this is dropped.
#[derive(Debug)]
pub struct ModelApi {
    address: SocketAddr,
    state: Arc<State>,
    _stop: DropGuard,
}

/// A request that a CLI made.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Path with its query.
    pub path: String,
    /// Header names in lower case, with keys blanked out.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Value,
}

/// What all requests share.
#[derive(Debug)]
struct State {
    script: Mutex<Script>,
    requests: Mutex<Vec<Recorded>>,
    /// Counts the releases; a held answer waits for the next one.
    releases: watch::Sender<u64>,
    /// How many answers are held now.
    held: watch::Sender<usize>,
}

impl ModelApi {
    /// Starts it on a free port of the loopback interface.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start() -> Self {
        Self::bind(0)
            .await
            .expect("the loopback interface has a free port")
    }

    /// Starts it on `port`.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub async fn bind(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            script: Mutex::default(),
            requests: Mutex::default(),
            releases: watch::channel(0).0,
            held: watch::channel(0).0,
        });
        let stop = CancellationToken::new();
        tokio::spawn(http::serve(listener, Arc::clone(&state), stop.clone()));
        Ok(Self {
            address,
            state,
            _stop: stop.drop_guard(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next model request gets this, whatever its prompt says.
    pub fn queue(&self, reply: Reply) {
        self.state.script.lock().unwrap().push(reply);
    }

    /// Lets the answers go on that are held now; later ones are held again.
    pub fn release(&self) {
        self.state.release();
    }

    /// Waits until an answer is held, so that a release does not come too early for it.
    pub async fn until_held(&self) {
        let mut held = self.state.held.subscribe();
        let _ = held.wait_for(|count| *count > 0).await;
    }

    /// The model requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Forgets the queue, the requests and the counted errors.
    pub fn reset(&self) {
        self.state.reset();
    }
}

impl State {
    fn release(&self) {
        self.releases.send_modify(|count| *count += 1);
    }

    fn reset(&self) {
        *self.script.lock().unwrap() = Script::default();
        self.requests.lock().unwrap().clear();
    }
}

/// The names in a list of tools.
fn names(tools: Option<&Value>) -> Vec<String> {
    let tools = tools.and_then(Value::as_array).into_iter().flatten();
    tools
        .filter_map(|tool| tool.get("name").or_else(|| tool.get("type"))?.as_str())
        .map(str::to_owned)
        .collect()
}

/// The text of a content field in any of the three APIs.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .map(text_of)
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Object(fields) => ["text", "content", "output"]
            .iter()
            .find_map(|key| fields.get(*key))
            .map(text_of)
            .unwrap_or_default(),
        _ => String::new(),
    }
}
