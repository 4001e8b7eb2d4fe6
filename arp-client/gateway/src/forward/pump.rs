//! The way back: what an upstream says goes to the agent as it comes, an event at a time.

use super::KEEP_ALIVE;
use super::attempt::{Answer, Begun, Rest};
use super::flow::{Head, Outbox};
use super::record::Log;
use super::request::Work;
use crate::dialect::{Ending, Reader};
use crate::redact::placeholder::Hidden;
use crate::redact::restore;
use crate::service::Service;
use crate::sse::{self, Splitter};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Longest event that is held until it is whole. Of a longer one, the pieces are passed on as they come.
const MAX_EVENT: usize = 16 << 20;
/// Longest answer that is kept to read its usage.
const MAX_WHOLE: usize = 8 << 20;
/// Longest answer into which secrets are put back; what is not a stream comes whole.
const MAX_RESTORED: usize = 64 << 20;

/// Where the answer of a request goes.
#[derive(Debug)]
pub(crate) struct Output {
    service: Service,
    out: Outbox,
    has_head: bool,
    patience: Instant,
    /// What was hidden of the request, and is to be in the answer as it was.
    hidden: Option<Hidden>,
}

impl Output {
    /// To there.
    pub(crate) fn new(service: Service, out: Outbox) -> Self {
        Self {
            service,
            out,
            has_head: false,
            patience: Instant::now() + service.patience(),
            hidden: None,
        }
    }

    /// These secrets are put back into the answer.
    pub(crate) fn restore(&mut self, hidden: Hidden) {
        self.hidden = Some(hidden).filter(|hidden| !hidden.is_empty());
    }

    /// Are secrets put back into the answer?
    pub(crate) const fn restores(&self) -> bool {
        self.hidden.is_some()
    }

    /// Has the agent been given a head?
    pub(crate) const fn has_head(&self) -> bool {
        self.has_head
    }

    /// Gives the head, if none was given.
    pub(crate) fn head(&mut self, status: StatusCode, headers: HeaderMap) {
        if !std::mem::replace(&mut self.has_head, true) {
            self.out.head(Head { status, headers });
        }
    }

    /// Gives bytes of the body; waits for an agent that reads slowly.
    pub(crate) async fn data(&self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out.piece(Ok(bytes)).await;
        }
    }

    /// Ends the body.
    pub(crate) async fn end(&self, ending: Ending) {
        match ending.into() {
            Ok(bytes) => self.data(bytes).await,
            Err(cut) => self.out.piece(Err(cut)).await,
        }
    }

    /// Gives an answer that is known whole.
    pub(crate) async fn whole(&mut self, status: StatusCode, headers: HeaderMap, body: Bytes) {
        // Its words may be about what was hidden.
        let body = match self.hidden.take() {
            Some(hidden) => restore::whole(&hidden, &body),
            None => body,
        };
        self.head(status, headers);
        self.data(body).await;
    }

    /// Waits for an upstream's answer. An agent that would soon give up is told that one is coming.
    pub(crate) async fn while_waiting<T>(&mut self, mut asking: Pin<&mut impl Future<Output = T>>) -> T {
        loop {
            let due = self.patience;
            tokio::select! {
                biased;
                done = &mut asking => return done,
                () = sleep_until(due) => {
                    self.patience = Instant::now() + KEEP_ALIVE;
                    let mut headers = HeaderMap::new();
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
                    self.head(StatusCode::OK, headers);
                    self.data(Bytes::from_static(self.service.keep_alive())).await;
                }
            }
        }
    }
}

/// Passes an answer on. See [`super::Gateway::pass_on`] for what is returned.
pub(crate) async fn pump(
    service: Service,
    work: &Work,
    answer: Answer,
    headers: HeaderMap,
    idle: Duration,
    output: &mut Output,
    log: &mut Log,
) -> bool {
    match answer.begun {
        Begun::Events(splitter) => {
            let hidden = output.hidden.take();
            let mut stream = Stream {
                service,
                secrets: hidden.map(|hidden| restore::Stream::new(service, hidden)),
                generates: work.identity.generates,
                reader: service.reader(&work.path),
                splitter,
                rest: answer.rest,
                torn: false,
            };
            output.head(answer.status, without_length(headers));
            stream.run(idle, output, log).await
        }
        Begun::Bytes(begun, all) => {
            if output.has_head() {
                // It was told that events come.
                log.error("the upstream answered with no stream after all");
                output
                    .end(service.late_error("the upstream answered with no stream"))
                    .await;
                return false;
            }
            let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
            let length = length.and_then(|text| text.parse().ok());
            output.head(answer.status, headers);
            let body = Whole {
                service,
                begun,
                all,
                length,
                rest: answer.rest,
            };
            body.run(idle, output, log).await
        }
    }
}

fn without_length(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(CONTENT_LENGTH);
    headers
}

struct Stream {
    service: Service,
    generates: bool,
    secrets: Option<restore::Stream>,
    reader: Box<dyn Reader>,
    splitter: Splitter,
    rest: Rest,
    /// Was a part of an event passed on whose end has not come?
    torn: bool,
}

/// What comes next in a stream.
enum Next {
    Bytes(Bytes),
    End,
    Broken(String),
}

impl Stream {
    async fn run(&mut self, idle: Duration, output: &Output, log: &mut Log) -> bool {
        loop {
            if let Some(end) = self.pass(output, log).await {
                return end;
            }
            if self.splitter.held() > MAX_EVENT {
                self.torn = true;
                log.hears_no_more();
                output.data(self.splitter.rest()).await;
            }
            let next = self.next(idle, output).await;
            match next {
                Next::Bytes(bytes) => self.splitter.push(&bytes),
                Next::End => {
                    return self
                        .ended("it ended in the middle of its answer", output, log)
                        .await;
                }
                Next::Broken(why) => return self.ended(&why, output, log).await,
            }
        }
    }

    /// The next bytes. In silence the agent hears from us, at the border of an event.
    async fn next(&mut self, idle: Duration, output: &Output) -> Next {
        let silent = Instant::now() + idle;
        loop {
            let mut due = silent;
            if self.generates && !self.torn {
                due = due.min(Instant::now() + KEEP_ALIVE);
            }
            match timeout_at(due, self.rest.chunk()).await {
                Ok(Ok(Some(bytes))) => return Next::Bytes(bytes),
                Ok(Ok(None)) => return Next::End,
                Ok(Err(why)) => return Next::Broken(format!("it broke off: {why}")),
                Err(_) if due == silent => return Next::Broken("it fell silent".to_owned()),
                Err(_) => {
                    output.data(Bytes::from_static(self.service.keep_alive())).await;
                }
            }
        }
    }

    /// Passes on all events that are there, those that came together in one piece; but not an error that the agent
    /// would not survive. `Some` says how it all ended.
    async fn pass(&mut self, output: &Output, log: &mut Log) -> Option<bool> {
        while let Some(event) = self.splitter.look() {
            if self.generates {
                log.hears(event);
                if !self.reader.passes_over(event)
                    && let Some(data) = sse::data(event)
                {
                    self.reader.event(&data);
                    log.tokens(self.reader.tokens());
                }
                if let Some(message) = self.reader.error() {
                    let message = message.to_owned();
                    log.error(&message);
                    // A fault of the request is the agent's to know. Anything else is an upstream that broke off.
                    if self.service.is_of_request(&message) {
                        let event = self.splitter.take();
                        output.data(self.restored(event)).await;
                        return Some(true);
                    }
                    output.data(self.splitter.take_before()).await;
                    output.end(self.reader.ending()).await;
                    return Some(false);
                }
            }
            // Each with its own secrets.
            if self.secrets.is_some() {
                let event = self.splitter.take();
                output.data(self.restored(event)).await;
            }
        }
        output.data(self.splitter.take()).await;
        None
    }

    /// With the secrets in it that the upstream was not shown.
    fn restored(&mut self, event: Bytes) -> Bytes {
        match &mut self.secrets {
            Some(secrets) => secrets.event(event),
            None => event,
        }
    }

    /// No more comes.
    async fn ended(&mut self, why: &str, output: &Output, log: &mut Log) -> bool {
        let rest = self.splitter.rest();
        if !self.generates {
            output.data(rest).await;
            return true;
        }
        // Some end their last event without the blank line.
        if !rest.is_empty()
            && let Some(data) = sse::data(&rest)
            && serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_ok()
        {
            self.reader.event(&data);
            log.tokens(self.reader.tokens());
            let mut whole = BytesMut::from(&rest[..]);
            whole.extend_from_slice(b"\n\n");
            log.hears(&whole);
            let whole = self.restored(whole.freeze());
            output.data(whole).await;
        }
        if let Some(secrets) = &mut self.secrets
            && !self.torn
        {
            output.data(secrets.end()).await;
        }
        if self.reader.complete() {
            return true;
        }
        log.error(why);
        output
            .end(if self.torn {
                Ending::Cut
            } else {
                self.reader.ending()
            })
            .await;
        false
    }
}

/// A body that is no stream of events.
struct Whole {
    service: Service,
    begun: Bytes,
    /// Is that all?
    all: bool,
    /// So long it is, where it says.
    length: Option<u64>,
    rest: Rest,
}

impl Whole {
    async fn run(mut self, idle: Duration, output: &mut Output, log: &mut Log) -> bool {
        // Secrets go back into a whole text: it is kept until it is there.
        let hidden = output.hidden.take();
        let mut kept = BytesMut::from(&self.begun[..]);
        let mut passed = self.begun.len() as u64;
        if hidden.is_none() {
            output.data(self.begun).await;
        }
        // Once the agent has all that was announced, nobody asks for more.
        while !self.all && self.length.is_none_or(|length| passed < length) {
            match timeout(idle, self.rest.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    passed += bytes.len() as u64;
                    if kept.len() <= MAX_WHOLE || hidden.is_some() {
                        kept.extend_from_slice(&bytes);
                    }
                    if hidden.is_some() && kept.len() > MAX_RESTORED {
                        log.error("the answer is too long for secrets to be put back into it");
                        output.end(Ending::Cut).await;
                        return false;
                    }
                    if hidden.is_none() {
                        output.data(bytes).await;
                    }
                }
                Ok(Ok(None)) => self.all = true,
                Ok(Err(_)) | Err(_) => {
                    log.error("the upstream broke off in the middle of its answer");
                    output.end(Ending::Cut).await;
                    return false;
                }
            }
        }
        log.hears_whole(&kept);
        let (tokens, _) = self.service.whole(&kept);
        log.tokens(tokens);
        if let Some(hidden) = &hidden {
            output.data(restore::whole(hidden, &kept)).await;
        }
        true
    }
}
