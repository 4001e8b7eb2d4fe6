//! A client of the running daemon's API over its local socket.

use super::Failure;
use arp_sessions::ipc;
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Largest answer that is read whole.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// The daemon's API.
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            socket: data_dir.join("local"),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(Method::POST, path, Some(body)).await
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let answer = self.send(method, path, body, "application/json").await?;
        read(answer).await
    }

    /// Follows a stream of server-sent events.
    pub(crate) async fn follow(&self, path: &str) -> Result<Events, Failure> {
        let answer = self.send(Method::GET, path, None, "text/event-stream").await?;
        let is_stream = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if !is_stream {
            read(answer).await?;
            return Err(Failure("arpc does not stream this".into()));
        }
        Ok(Events {
            body: answer.into_body(),
            buffer: Vec::new(),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        accept: &str,
    ) -> Result<http::Response<Incoming>, Failure> {
        let stream = ipc::connect(&self.socket).await.map_err(|error| {
            Failure(format!(
                "no arpc runs in command mode with this data directory ({error}); start it with `arpc --command-mode`"
            ))
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection; what goes wrong shows in the answer.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, accept)
            .header("x-arp-origin", "cli");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        Ok(sender
            .send_request(request.body(Full::new(Bytes::from(body)))?)
            .await?)
    }
}

async fn read(answer: http::Response<Incoming>) -> Result<Value, Failure> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| Failure(format!("arpc broke off: {error}")))?;
    let value: Value = serde_json::from_slice(&body.to_bytes())?;
    if status.is_success() {
        return Ok(value);
    }
    Err(Failure(
        value["message"]
            .as_str()
            .unwrap_or("arpc refused, and did not say why")
            .to_owned(),
    ))
}

/// A stream of events.
pub(crate) struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event's data; `None` at the end. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let text = String::from_utf8_lossy(&block);
                let data: Vec<&str> = text
                    .lines()
                    .filter_map(|line| line.strip_prefix("data: "))
                    .collect();
                if data.is_empty() {
                    continue;
                }
                return Ok(Some(serde_json::from_str(&data.join("\n"))?));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                    if self.buffer.len() > MAX_ANSWER {
                        return Err(Failure("arpc sent an event without end".into()));
                    }
                }
            }
        }
    }
}
