//! A reader of server-sent events.

use super::{Edge, PATIENCE};
use reqwest::Method;
use serde_json::Value;

/// One server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sse {
    pub(crate) name: Option<String>,
    pub(crate) id: Option<u64>,
    pub(crate) data: String,
}

impl Sse {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {}", self.data))
    }
}

/// A reader of server-sent events.
pub(crate) struct SseReader {
    response: reqwest::Response,
    buffer: Vec<u8>,
    /// Bytes read so far.
    pub(crate) read: usize,
}

impl SseReader {
    pub(crate) async fn open(edge: &Edge, path: &str, last: Option<u64>) -> Self {
        let mut request = edge
            .request(Method::GET, path)
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        Self::of(request.send().await.unwrap())
    }

    pub(crate) fn of(response: reqwest::Response) -> Self {
        assert!(response.status().is_success(), "{}", response.status());
        Self {
            response,
            buffer: Vec::new(),
            read: 0,
        }
    }

    /// The next event; `None` at the end, or when the connection broke.
    pub(crate) async fn next(&mut self) -> Option<Sse> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let event = parse(&String::from_utf8(block).unwrap());
                if event.is_some() {
                    return event;
                }
                continue;
            }
            match tokio::time::timeout(PATIENCE, self.response.chunk())
                .await
                .expect("an event in time")
            {
                Ok(Some(chunk)) => {
                    self.read += chunk.len();
                    self.buffer.extend_from_slice(&chunk);
                }
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Events without a name, to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<Sse> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            if event.name.is_none() {
                all.push(event);
            }
        }
        all
    }
}

fn parse(block: &str) -> Option<Sse> {
    let mut event = Sse {
        name: None,
        id: None,
        data: String::new(),
    };
    let mut data = Vec::new();
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("event", name)) => event.name = Some(name.to_owned()),
            Some(("id", id)) => event.id = Some(id.parse().unwrap()),
            Some(("data", text)) => data.push(text),
            _ => {}
        }
    }
    event.data = data.join("\n");
    (!data.is_empty()).then_some(event)
}
