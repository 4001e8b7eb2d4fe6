//! What differs between the three model APIs: where a request says who it is for, how a key is sent, what a stream's
//! events mean, and how an end must look for the agent at hand to go on by itself.

mod claude;
mod codex;
mod gemini;

use crate::files::upstreams::Upstream;
use crate::forward::without;
use crate::json;
use crate::service::Service;
use crate::usage::Tokens;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, StatusCode};
use std::time::Duration;

/// What a request says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The agent's session; a key for affinity and accounts.
    pub session: Option<String>,
    /// Its sub-agent, where it is one.
    pub agent: Option<String>,
    /// What kind of request it is, as Claude Code says with hints on: `main`, `subagent`, `compaction`, `auxiliary`.
    pub class: Option<String>,
    /// Where the agent works, where it says.
    pub project: Option<String>,
    /// Was the agent started by `arpc` for a session, so that it waits for as long as it is told?
    pub joined: bool,
    /// The model that it asks for.
    pub model: Option<String>,
    /// Does it ask a model to write (so that it costs)?
    pub generates: bool,
}

/// How a stream that broke is ended for the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The connection is cut in the middle of the body.
    Cut,
    /// These events, then a clean end.
    Events(Bytes),
}

/// What the first event of an answer says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// Nothing yet: a comment, a ping.
    Unclear,
    /// An answer begins.
    Answer,
    /// It is an error in place of an answer.
    Error(String),
}

/// Reads along with a stream.
pub trait Reader: Send {
    /// Is it known of this event, without reading it, that nothing in it counts?
    fn passes_over(&self, event: &[u8]) -> bool {
        let _ = event;
        false
    }
    /// One event's data.
    fn event(&mut self, data: &[u8]);
    /// What was used so far.
    fn tokens(&self) -> Tokens;
    /// The model that answered, where it says.
    fn model(&self) -> Option<&str>;
    /// Is the answer complete, whatever comes or does not come now?
    fn complete(&self) -> bool;
    /// An error that came inside the stream.
    fn error(&self) -> Option<&str>;
    /// How to end it here, where the upstream broke off.
    fn ending(&self) -> Ending;
}

const SESSION_HEADERS: [HeaderName; 2] = [
    HeaderName::from_static("x-arp-session"),
    HeaderName::from_static("x-clp-session"),
];
/// The agent's directory, percent-encoded.
const PROJECT_HEADER: HeaderName = HeaderName::from_static("x-arp-project");

impl Service {
    /// Who a request is for and what it wants.
    #[must_use]
    pub fn identity(self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Identity {
        let text = |name: &HeaderName| headers.get(name)?.to_str().ok().map(str::to_owned);
        let mut identity = Identity {
            session: SESSION_HEADERS.iter().find_map(text),
            project: text(&PROJECT_HEADER).and_then(|path| {
                percent_encoding::percent_decode_str(&path)
                    .decode_utf8()
                    .ok()
                    .map(Into::into)
            }),
            ..Identity::default()
        };
        match self {
            Self::Claude => claude::identify(&mut identity, method, path, &text),
            Self::Codex => codex::identify(&mut identity, method, path, &text),
            Self::Gemini => gemini::identify(&mut identity, method, path),
        }
        if identity.model.is_none() && *method == Method::POST {
            identity.model = json::text_member(body, "model");
        }
        // Somebody's long text is no name.
        identity.session = identity.session.filter(|id| (1..=128).contains(&id.len()));
        identity.agent = identity.agent.filter(|id| (1..=128).contains(&id.len()));
        identity.model = identity.model.filter(|id| (1..=256).contains(&id.len()));
        identity.project = identity.project.filter(|path| (1..=1024).contains(&path.len()));
        identity
    }

    /// Takes the agent's credentials out and puts the upstream's in.
    pub fn credentials(self, headers: &mut HeaderMap, upstream: &Upstream) {
        const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
        const GOOGLE_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
        // A login's account belongs to the login, which stays here.
        const ACCOUNT: HeaderName = HeaderName::from_static("chatgpt-account-id");
        without(headers, |name| {
            [AUTHORIZATION, PROXY_AUTHORIZATION, API_KEY, GOOGLE_KEY, ACCOUNT].contains(name)
        });
        let secret = |text: &str| {
            let mut value = HeaderValue::from_str(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        if let Some(token) = &upstream.auth_token
            && let Some(value) = secret(&format!("Bearer {}", token.expose()))
        {
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(key) = &upstream.api_key
            && let Some(value) = secret(key.expose())
        {
            let name = if self == Self::Gemini { GOOGLE_KEY } else { API_KEY };
            headers.insert(name, value);
        }
        // Google's API takes keys in its own field only, and people put them where the others have them.
        if self == Self::Gemini
            && upstream.api_key.is_none()
            && let Some(token) = &upstream.auth_token
            && let Some(value) = secret(token.expose())
        {
            headers.insert(GOOGLE_KEY, value);
        }
    }

    /// Reads along with a stream of this API, asked for at `path`.
    #[must_use]
    pub fn reader(self, path: &str) -> Box<dyn Reader> {
        match self {
            Self::Claude => Box::<claude::Messages>::default(),
            Self::Codex => Box::new(codex::Responses::at(path)),
            Self::Gemini => Box::<gemini::Chunks>::default(),
        }
    }

    /// What the first event's data of a stream says.
    #[must_use]
    pub fn first(self, data: &[u8]) -> First {
        match self {
            Self::Claude => claude::first(data),
            Self::Codex => codex::first(data),
            Self::Gemini => gemini::first(data),
        }
    }

    /// What a whole (not streamed) answer cost, and the model that it names.
    #[must_use]
    pub fn whole(self, body: &[u8]) -> (Tokens, Option<String>) {
        match self {
            Self::Claude => claude::whole(body),
            Self::Codex => codex::whole(body),
            Self::Gemini => gemini::whole(body),
        }
    }

    /// The path of a request for another model, where the path names it.
    #[must_use]
    pub fn path_with_model(self, path: &str, model: &str) -> Option<String> {
        (self == Self::Gemini).then(|| gemini::path_with_model(path, model))?
    }

    /// Sent in silence, so that the agent does not give up: of the kind that it counts.
    #[must_use]
    pub const fn keep_alive(self) -> &'static [u8] {
        match self {
            Self::Claude => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
            Self::Codex => b"data: {\"type\":\"keepalive\"}\n\n",
            Self::Gemini => b"data: {}\n\n",
        }
    }

    /// After so long without a head the agent is given one, so that it goes on waiting. Claude Code gives up after
    /// 360 s, Codex not within 660 s, Gemini CLI after 60 s.
    #[must_use]
    pub const fn patience(self) -> Duration {
        match self {
            Self::Claude => Duration::from_secs(240),
            Self::Codex => Duration::from_secs(240),
            Self::Gemini => Duration::from_secs(40),
        }
    }

    /// An error of our own, in the form that this agent shows to a person. `fatal` ones end the turn at once; others
    /// are tried again by the agent.
    #[must_use]
    pub fn own_error(self, code: &str, message: &str, fatal: bool) -> (StatusCode, Bytes) {
        let (status, body) = match self {
            Self::Claude => claude::own_error(code, message, fatal),
            Self::Codex => codex::own_error(code, message, fatal),
            Self::Gemini => gemini::own_error(code, message, fatal),
        };
        (status, body.to_string().into())
    }

    /// An error in place of the first event, where a head with 200 has been sent already.
    #[must_use]
    pub fn late_error(self, message: &str) -> Ending {
        match self {
            // Nothing was passed on but pings: a cut connection is a whole request again.
            Self::Claude => Ending::Cut,
            Self::Codex => Ending::Events(codex::failed(message)),
            Self::Gemini => Ending::Events(gemini::error_chunk(message)),
        }
    }

    /// The last upstream's error, made into one that this agent survives where it may pass. One that is patient waits
    /// for as long as the upstream has named.
    pub fn soften(
        self,
        status: &mut StatusCode,
        headers: &mut HeaderMap,
        body: &mut Bytes,
        wait: Option<Duration>,
    ) {
        match self {
            Self::Claude => claude::soften(status, headers, wait),
            Self::Codex => codex::soften(status, headers, body, wait),
            Self::Gemini => gemini::soften(status),
        }
    }

    /// Without what another account has signed or sealed in earlier turns; `None` if there is none of it.
    #[must_use]
    pub fn without_seals(self, body: &[u8]) -> Option<Bytes> {
        match self {
            Self::Claude => claude::without_thinking(body),
            Self::Codex => codex::without_reasoning(body),
            Self::Gemini => gemini::without_signatures(body),
        }
    }

    /// Does an error inside a stream speak of the request itself, so that no other upstream would answer it either?
    #[must_use]
    pub fn is_of_request(self, message: &str) -> bool {
        const WORDS: [&str; 5] = [
            "context_length",
            "context window",
            "too long",
            "invalid_prompt",
            "invalid_request",
        ];
        WORDS.iter().any(|word| message.contains(word))
    }

    /// Does the agent want the answer as a stream?
    #[must_use]
    pub fn wants_stream(self, path: &str, body: &[u8]) -> bool {
        match self {
            Self::Gemini => path.contains(":streamGenerateContent"),
            Self::Claude | Self::Codex => {
                json::member(body, "stream").and_then(|range| body.get(range)) == Some(&b"true"[..])
            }
        }
    }

    /// Does this 400 refuse what another account has signed or sealed?
    #[must_use]
    pub fn refuses_seals(self, body: &[u8]) -> bool {
        let text = String::from_utf8_lossy(body).to_lowercase().replace('`', "");
        let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
        match self {
            Self::Claude => any(&["signature", "redacted_thinking", "thinking block"]) && any(&["thinking"]),
            Self::Codex => any(&[
                "invalid_encrypted_content",
                "encrypted content",
                "encrypted_content",
            ]),
            Self::Gemini => any(&["thought signature", "thought_signature", "thoughtsignature"]),
        }
    }
}

/// The value at a path such as `/a/b`, whose names need no escapes. Each event is asked for several.
fn at<'a>(value: &'a serde_json::Value, path: &str) -> Option<&'a serde_json::Value> {
    path.split('/')
        .skip(1)
        .try_fold(value, |value, name| match value {
            serde_json::Value::Object(members) => members.get(name),
            serde_json::Value::Array(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        })
}

/// The value of a text field in JSON that was parsed.
fn text<'a>(value: &'a serde_json::Value, path: &str) -> Option<&'a str> {
    at(value, path)?.as_str()
}

/// The value of a count in JSON that was parsed; 0 where it is missing or `null`.
fn count(value: &serde_json::Value, path: &str) -> u64 {
    at(value, path).and_then(serde_json::Value::as_u64).unwrap_or(0)
}
