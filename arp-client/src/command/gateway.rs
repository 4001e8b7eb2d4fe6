//! The model gateway of this machine, joined to the sessions: agents that are started here go through it, by
//! environment and flags alone, and what it sees of a session is told with the session.
//!
//! A request names its session by the base URL (`/s/ID`) or a header, so that the gateway's session is ours.

use arp_agents::agent::Launch;
use arp_gateway::home::Home;
use arp_gateway::live::Live;
use arp_gateway::process::{self, ProcessError, Running};
use arp_gateway::service::Service;
use arp_gateway::setup::{self, Folders};
use arp_gateway::sse::{self, Splitter};
use arp_sessions::error::SessionError;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

/// Sessions whose state is remembered; the gateway itself knows all.
const MAX_SESSIONS: usize = 2_000;
/// News that wait for a slow reader.
const WAITING: usize = 256;
/// Pause before the gateway is looked for again.
const AGAIN: Duration = Duration::from_secs(2);
/// Time to connect, on this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest event of the gateway.
const MAX_EVENT: usize = 1 << 20;

/// What is told of a session: the event's name, and its object.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) session: String,
    pub(crate) name: &'static str,
    pub(crate) data: Value,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gateway {
    home: Home,
    sessions: Mutex<HashMap<String, Value>>,
    news: broadcast::Sender<Arc<News>>,
    /// It was just started, or found: its events are there to be followed.
    runs: Notify,
}

impl Gateway {
    /// The gateway of this user.
    pub(crate) fn of_user() -> io::Result<Self> {
        Ok(Self {
            home: Home::of_user()?,
            sessions: Mutex::default(),
            news: broadcast::Sender::new(WAITING),
            runs: Notify::new(),
        })
    }

    /// What happens to sessions from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Arc<News>> {
        self.news.subscribe()
    }

    /// How a session stands, as far as the gateway has said anything of it since we run.
    pub(crate) fn session(&self, id: &str) -> Option<Value> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(id).cloned()
    }

    /// Where it runs, if it runs.
    pub(crate) async fn running(&self) -> Result<Option<Running>, ProcessError> {
        let home = self.home.clone();
        tokio::task::spawn_blocking(move || process::running(&home))
            .await
            .map_err(|e| ProcessError::Other(e.to_string()))?
    }

    /// Where it runs; it is started if it does not.
    pub(crate) async fn ensure(&self) -> Result<Running, ProcessError> {
        let home = self.home.clone();
        tokio::task::spawn_blocking(move || {
            if let Some(running) = process::running(&home)? {
                return Ok(running);
            }
            let program = crate::cli::gateway_program()?;
            match process::start(&home, &program) {
                // Somebody was quicker.
                Err(ProcessError::Running(_)) => process::running(&home)?.ok_or(ProcessError::NotRunning),
                started => started,
            }
        })
        .await
        .map_err(|e| ProcessError::Other(e.to_string()))?
    }

    /// Sends an agent that is about to be started for a session through the gateway, if there is an upstream for it.
    pub(crate) async fn route(
        &self,
        session: &str,
        executor: &str,
        launch: &mut Launch,
    ) -> Result<(), SessionError> {
        let Ok(service) = executor.parse::<Service>() else {
            return Ok(());
        };
        let home = self.home.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let none = Live::new(home).snapshot(service).upstreams.list.is_empty();
            (none, Folders::of_user())
        });
        let (none, folders) = looked
            .await
            .map_err(|error| SessionError::Internal(error.to_string()))?;
        if none {
            tracing::warn!(
                session,
                "the gateway has no upstream for {service}: the agent goes its own way (arpc gateway add {service} …)"
            );
            return Ok(());
        }
        let running = self.ensure().await.map_err(|error| {
            SessionError::AgentFailed(format!(
                "the gateway that the agent is to go through did not start: {error}"
            ))
        })?;
        self.runs.notify_one();
        let folders = folders.map_err(|error| SessionError::Internal(error.to_string()))?;
        through(
            service,
            session,
            reachable(running.address(service)),
            &folders,
            launch,
        );
        Ok(())
    }

    /// Follows what the gateway says, until `stop`; waits for one to run where none does.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let following = async {
            loop {
                if let Ok(Some(running)) = self.running().await
                    && let Err(error) = self.read_events(reachable(running.ui)).await
                {
                    tracing::debug!(%error, "the gateway's events ended");
                }
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = self.runs.notified() => {}
                }
            }
        };
        stop.run_until_cancelled(following).await;
    }

    async fn read_events(&self, address: SocketAddr) -> io::Result<()> {
        let mut response = ask(address, Request::get("/api/gateway/events"), Bytes::new()).await?;
        let mut splitter = Splitter::default();
        while let Some(frame) = response.frame().await {
            let Ok(data) = frame.map_err(io::Error::other)?.into_data() else {
                continue;
            };
            splitter.push(&data);
            while let Some(event) = splitter.next_event() {
                let name = event
                    .split(|b| *b == b'\n')
                    .find_map(|line| line.strip_prefix(b"event: "));
                let data = sse::data(&event).and_then(|data| serde_json::from_slice(&data).ok());
                if let (Some(name), Some(data)) = (name, data) {
                    let data: Value = data;
                    if !self.begin(address, &data).await {
                        self.heard(name, data);
                    }
                }
            }
            if splitter.held() > MAX_EVENT {
                return Err(io::Error::other("an event is too long"));
            }
        }
        Ok(())
    }

    /// A session that is new to us: what the gateway has counted of it before. Was this event among that?
    async fn begin(&self, address: SocketAddr, data: &Value) -> bool {
        let Some(session) = data["session"].as_str().filter(|id| self.session(id).is_none()) else {
            return false;
        };
        let path = format!(
            "/api/gateway/sessions/{}",
            percent_encoding::utf8_percent_encode(session, percent_encoding::NON_ALPHANUMERIC)
        );
        let asked = async {
            let body = ask(address, Request::get(path), Bytes::new()).await?.into_body();
            let body = http_body_util::Limited::new(body, MAX_EVENT).collect().await;
            let body = body.map_err(io::Error::other)?.to_bytes();
            serde_json::from_slice::<Value>(&body).map_err(io::Error::other)
        };
        let Ok(known) = asked.await else { return false };
        if known["usage"]["requests"].as_u64().unwrap_or(0) == 0 {
            return false;
        }
        let counted = known["requests"][0]["at"] == data["at"] && !data["status"].is_null();
        let mut state = json!({});
        for field in [
            "upstream",
            "model",
            "choice",
            "usage",
            "failovers",
            "redacted",
            "waits_until",
        ] {
            state[field] = known[field].clone();
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(session.to_owned(), state);
        counted
    }

    /// The gateway said something.
    fn heard(&self, name: &[u8], data: Value) {
        let Some(session) = data["session"].as_str().map(str::to_owned) else {
            return;
        };
        let mut told = Vec::new();
        {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            if sessions.len() >= MAX_SESSIONS && !sessions.contains_key(&session) {
                sessions.clear();
            }
            let state = sessions.entry(session.clone()).or_insert_with(|| {
                json!({
                    "upstream": null, "model": null, "choice": {"upstream": null, "model": null},
                    "usage": {
                        "key": session, "requests": 0, "failures": 0, "input": 0, "cache_write": 0, "cache_read": 0,
                        "output": 0, "reasoning": 0, "cost": 0.0, "unpriced": 0,
                    },
                    "failovers": 0, "redacted": 0, "waits_until": null,
                })
            });
            match name {
                b"live" if data["upstream"].is_string() => {
                    let failed = data["failed"].as_u64().unwrap_or(0) > 0;
                    told.extend(moved(&session, state, &data["upstream"], failed));
                }
                b"session" => {
                    for field in ["model", "choice", "waits_until"] {
                        state[field] = data[field].clone();
                    }
                    if data["upstream"].is_string() {
                        told.extend(moved(&session, state, &data["upstream"], false));
                    }
                }
                b"request" => {
                    count(state, &data);
                    told.push(News {
                        session: session.clone(),
                        name: "usage",
                        data: json!({
                            "type": "usage_update", "session_id": session, "request": data, "gateway": state,
                        }),
                    });
                }
                _ => {}
            }
        }
        for news in told {
            let _ = self.news.send(Arc::new(news));
        }
    }
}

/// The session is with another upstream than before, if it is.
fn moved(session: &str, state: &mut Value, upstream: &Value, failed: bool) -> Option<News> {
    let from = std::mem::replace(&mut state["upstream"], upstream.clone());
    if from == *upstream {
        return None;
    }
    let to = upstream.as_str().unwrap_or_default();
    let (reason, message) = match (&from, failed) {
        (Value::Null, false) => ("first", format!("it uses {to}")),
        (_, true) => (
            "failover",
            format!("it goes on with {to}, as the one before failed"),
        ),
        _ => ("switched", format!("it uses {to} now")),
    };
    Some(News {
        session: session.to_owned(),
        name: "upstream",
        data: json!({
            "type": "upstream", "session_id": session, "upstream": upstream, "from": from, "reason": reason,
            "message": message,
        }),
    })
}

/// A request of the session is over.
fn count(state: &mut Value, request: &Value) {
    let n = |value: &Value| value.as_u64().unwrap_or(0);
    let usage = &mut state["usage"];
    for field in ["input", "cache_write", "cache_read", "output", "reasoning"] {
        usage[field] = json!(n(&usage[field]) + n(&request[field]));
    }
    usage["requests"] = json!(n(&usage["requests"]) + 1);
    let failed = !request["error"].is_null() || n(&request["status"]) >= 400;
    usage["failures"] = json!(n(&usage["failures"]) + u64::from(failed));
    usage["cost"] = json!(usage["cost"].as_f64().unwrap_or(0.0) + request["cost"].as_f64().unwrap_or(0.0));
    usage["unpriced"] = json!(n(&usage["unpriced"]) + u64::from(request["cost"].is_null()));
    let elsewhere = request["failed"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|failed| failed[0] != request["upstream"]);
    state["failovers"] = json!(n(&state["failovers"]) + u64::from(elsewhere));
    state["redacted"] = json!(n(&state["redacted"]) + n(&request["redacted"]));
    state["model"] = request["model"].clone();
}

/// On this machine, an address that listens on all is this one.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// Asks the gateway.
pub(crate) async fn ask(
    address: SocketAddr,
    request: http::request::Builder,
    body: Bytes,
) -> io::Result<http::Response<Incoming>> {
    let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(address));
    let stream = connecting
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Ends with the answer, or when nobody reads that any more.
    tokio::spawn(connection);
    let mut request = request.header(header::HOST, address.to_string());
    // The gateway's key, where it listens for others, too.
    if let Ok(key) = std::env::var("CLP_PROXY_KEY")
        && !key.is_empty()
    {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    let request = request.body(Full::new(body)).map_err(io::Error::other)?;
    sender.send_request(request).await.map_err(io::Error::other)
}

/// Changes a launch so that its agent goes through the gateway at `address`.
fn through(service: Service, session: &str, address: SocketAddr, folders: &Folders, launch: &mut Launch) {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    const PATH: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'.')
        .remove(b'-')
        .remove(b'_');
    let project = launch.cwd.to_string_lossy();
    let project = utf8_percent_encode(&project, PATH);
    let url = format!("http://{address}/s/{session}");
    let key = std::env::var("CLP_PROXY_KEY").ok().filter(|key| !key.is_empty());
    let key = key.as_deref().unwrap_or("-");
    let mut set = |name: &str, value: String| {
        launch.env.retain(|(known, _)| known != name);
        launch.env_remove.retain(|known| known != name);
        launch.env.push((name.into(), value.into()));
    };
    match service {
        Service::Claude => {
            set("ANTHROPIC_BASE_URL", url);
            set("ANTHROPIC_AUTH_TOKEN", key.to_owned());
            // The settings of the user and of the project do not count for where requests go.
            set("CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST", "1".to_owned());
            set("CLAUDE_CODE_GATEWAY_HINT_HEADERS", "1".to_owned());
            // It waits for the time that an account which is used up names, and goes on by itself.
            set("CLAUDE_CODE_RETRY_WATCHDOG", "1".to_owned());
            set("ANTHROPIC_CUSTOM_HEADERS", format!("X-Arp-Project: {project}"));
        }
        Service::Codex => {
            let arguments = setup::codex_arguments(folders, &format!("{url}/v1"));
            launch.args.extend(arguments.map(OsString::from));
        }
        Service::Gemini => {
            set("GOOGLE_GEMINI_BASE_URL", format!("http://{address}"));
            set("GEMINI_API_KEY", key.to_owned());
            let headers = format!("X-Arp-Session: {session}, X-Arp-Project: {project}");
            set("GEMINI_CLI_CUSTOM_HEADERS", headers);
        }
    }
    // All three send even requests to this machine through a proxy of the environment.
    for name in ["NO_PROXY", "no_proxy"] {
        let known = std::env::var(name).ok().filter(|value| !value.is_empty());
        let value = known.map_or_else(
            || "127.0.0.1,localhost".to_owned(),
            |known| format!("{known},127.0.0.1,localhost"),
        );
        set(name, value);
    }
    if service == Service::Claude {
        // The user's own key is none of the gateway's business.
        launch.env_remove.push("ANTHROPIC_API_KEY".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched(service: Service) -> Launch {
        let mut launch = Launch {
            program: "agent".into(),
            args: vec!["app-server".into()],
            env: vec![("GEMINI_API_KEY".into(), "old".into())],
            env_remove: Vec::new(),
            cwd: "/home/a b".into(),
        };
        let folders = Folders {
            claude: "/none".into(),
            codex: "/none".into(),
            gemini: "/none".into(),
        };
        through(
            service,
            "s1",
            "127.0.0.1:9".parse().unwrap(),
            &folders,
            &mut launch,
        );
        launch
    }

    fn env(launch: &Launch, name: &str) -> Option<String> {
        let mut found = launch.env.iter().filter(|(known, _)| known == name);
        let value = found
            .next()
            .map(|(_, value)| value.to_string_lossy().into_owned());
        assert!(found.next().is_none(), "{name} twice");
        value
    }

    #[test]
    fn each_agent_is_sent_through_in_its_own_way() {
        let claude = launched(Service::Claude);
        assert_eq!(
            env(&claude, "ANTHROPIC_BASE_URL").as_deref(),
            Some("http://127.0.0.1:9/s/s1")
        );
        assert_eq!(
            env(&claude, "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST").as_deref(),
            Some("1")
        );
        assert_eq!(
            env(&claude, "ANTHROPIC_CUSTOM_HEADERS").as_deref(),
            Some("X-Arp-Project: /home/a%20b")
        );
        let codex = launched(Service::Codex);
        assert_eq!(
            codex.args,
            [
                "app-server",
                "-c",
                "openai_base_url=\"http://127.0.0.1:9/s/s1/v1\""
            ]
        );
        let gemini = launched(Service::Gemini);
        assert_eq!(env(&gemini, "GEMINI_API_KEY").as_deref(), Some("-"));
        assert!(
            env(&gemini, "GEMINI_CLI_CUSTOM_HEADERS")
                .unwrap()
                .starts_with("X-Arp-Session: s1, ")
        );
        assert!(env(&gemini, "NO_PROXY").unwrap().ends_with("127.0.0.1,localhost"));
    }

    #[test]
    fn what_the_gateway_says_becomes_news_of_the_session() {
        let gateway = Gateway {
            home: Home::at("/none"),
            sessions: Mutex::default(),
            news: broadcast::Sender::new(WAITING),
            runs: Notify::new(),
        };
        let mut news = gateway.watch();
        gateway.heard(b"live", json!({"session": "s", "upstream": "a", "failed": 0}));
        gateway.heard(b"live", json!({"session": "s", "upstream": "a", "failed": 0}));
        gateway.heard(b"live", json!({"session": "s", "upstream": "b", "failed": 1}));
        let request = json!({
            "session": "s", "upstream": "b", "model": "m", "input": 5, "output": 2, "cost": 0.5, "status": 200,
            "failed": [["a", "503"]], "redacted": 1, "error": null,
        });
        gateway.heard(b"request", request);
        gateway.heard(b"upstreams", json!({}));
        let mut all = Vec::new();
        while let Ok(news) = news.try_recv() {
            all.push((
                news.name,
                news.data["reason"].as_str().unwrap_or_default().to_owned(),
            ));
        }
        let wanted = [("upstream", "first"), ("upstream", "failover"), ("usage", "")];
        assert_eq!(all, wanted.map(|(name, reason)| (name, reason.to_owned())));
        let state = gateway.session("s").unwrap();
        assert_eq!(
            (
                &state["failovers"],
                &state["usage"]["output"],
                &state["usage"]["cost"]
            ),
            (&json!(1), &json!(2), &json!(0.5))
        );
    }
}
