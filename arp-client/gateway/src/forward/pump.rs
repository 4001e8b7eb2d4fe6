//! The way back: what an upstream says goes to the agent as it comes, an event at a time.

use super::KEEP_ALIVE;
use super::attempt::{Answer, Begun, Rest};
use super::body::Cut;
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
use std::pin::pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

/// Longest event that is held until it is whole. Of a longer one, the pieces are passed on as they come.
const MAX_EVENT: usize = 16 << 20;
/// Longest answer that is kept to read its usage.
const MAX_WHOLE: usize = 8 << 20;
/// Longest answer into which secrets are put back; what is not a stream comes whole.
const MAX_RESTORED: usize = 64 << 20;

/// The begin of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its fields.
    pub(crate) headers: HeaderMap,
}

/// Where the answer of a request goes.
#[derive(Debug)]
pub(crate) struct Output {
    service: Service,
    head: Option<oneshot::Sender<Head>>,
    body: mpsc::Sender<Result<Bytes, Cut>>,
    patience: Instant,
    /// What was hidden of the request, and is to be in the answer as it was.
    hidden: Option<Hidden>,
}

/// The agent has left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left;

impl Output {
    /// To these.
    pub(crate) fn new(
        service: Service,
        head: oneshot::Sender<Head>,
        body: mpsc::Sender<Result<Bytes, Cut>>,
    ) -> Self {
        Self {
            service,
            head: Some(head),
            body,
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
        self.head.is_none()
    }

    /// Gives the head, if none was given.
    pub(crate) fn head(&mut self, status: StatusCode, headers: HeaderMap) -> Result<(), Left> {
        match self.head.take() {
            Some(head) => head.send(Head { status, headers }).map_err(|_| Left),
            None => Ok(()),
        }
    }

    /// Gives bytes of the body; waits for an agent that reads slowly.
    pub(crate) async fn data(&self, bytes: Bytes) -> Result<(), Left> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.body.send(Ok(bytes)).await.map_err(|_| Left)
    }

    /// Ends the body.
    pub(crate) async fn end(&self, ending: Ending) {
        match ending.into() {
            Ok(bytes) => drop(self.data(bytes).await),
            Err(cut) => drop(self.body.send(Err(cut)).await),
        }
    }

    /// Gives an answer that is known whole.
    pub(crate) async fn whole(&mut self, status: StatusCode, headers: HeaderMap, body: Bytes) {
        // Its words may be about what was hidden.
        let body = match self.hidden.take() {
            Some(hidden) => restore::whole(&hidden, &body),
            None => body,
        };
        if self.head(status, headers).is_ok() {
            let _ = self.data(body).await;
        }
    }

    /// Waits for an upstream's answer. An agent that would soon give up is told that one is coming; `None` when it
    /// leaves all the same.
    pub(crate) async fn while_waiting<T>(&mut self, asking: impl Future<Output = T>) -> Option<T> {
        let mut asking = pin!(asking);
        loop {
            let due = self.patience;
            tokio::select! {
                biased;
                done = &mut asking => return Some(done),
                () = self.body.closed() => return None,
                () = sleep_until(due) => {
                    self.patience = Instant::now() + KEEP_ALIVE;
                    let mut headers = HeaderMap::new();
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
                    self.head(StatusCode::OK, headers).ok()?;
                    self.data(Bytes::from_static(self.service.keep_alive())).await.ok()?;
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
) -> Option<bool> {
    match answer.begun {
        Begun::Events(splitter, begun) => {
            let hidden = output.hidden.take();
            let stream = Stream {
                service,
                secrets: hidden.map(|hidden| restore::Stream::new(service, hidden)),
                generates: work.identity.generates,
                reader: service.reader(&work.path),
                splitter,
                rest: answer.rest,
                torn: false,
            };
            stream.run(answer.status, headers, begun, idle, output, log).await
        }
        Begun::Bytes(begun, all) => {
            if output.has_head() {
                // It was told that events come.
                log.error("the upstream answered with no stream after all");
                output
                    .end(service.late_error("the upstream answered with no stream"))
                    .await;
                return Some(false);
            }
            bytes(
                service,
                answer.status,
                headers,
                begun,
                all,
                answer.rest,
                idle,
                output,
                log,
            )
            .await
        }
    }
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
    async fn run(
        mut self,
        status: StatusCode,
        mut headers: HeaderMap,
        begun: Vec<Bytes>,
        idle: Duration,
        output: &mut Output,
        log: &mut Log,
    ) -> Option<bool> {
        headers.remove(CONTENT_LENGTH);
        output.head(status, headers).ok()?;
        for event in begun {
            if let Err(end) = self.pass(event, output, log).await {
                return end;
            }
        }
        loop {
            while let Some(event) = self.splitter.next_event() {
                if let Err(end) = self.pass(event, output, log).await {
                    return end;
                }
            }
            if self.splitter.held() > MAX_EVENT {
                self.torn = true;
                log.hears_no_more();
                output.data(self.splitter.rest()).await.ok()?;
            }
            match self.next(idle, output).await? {
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
    async fn next(&mut self, idle: Duration, output: &Output) -> Option<Next> {
        let silent = Instant::now() + idle;
        loop {
            let quiet = tokio::time::sleep(KEEP_ALIVE);
            tokio::select! {
                biased;
                read = self.rest.chunk() => return Some(match read {
                    Ok(Some(bytes)) => Next::Bytes(bytes),
                    Ok(None) => Next::End,
                    Err(why) => Next::Broken(format!("it broke off: {why}")),
                }),
                () = output.body.closed() => return None,
                () = sleep_until(silent) => return Some(Next::Broken("it fell silent".to_owned())),
                () = quiet, if self.generates && !self.torn => {
                    output.data(Bytes::from_static(self.service.keep_alive())).await.ok()?;
                }
            }
        }
    }

    /// Passes one event on, unless it is an error that the agent would not survive. `Err` says how it all ended.
    async fn pass(&mut self, event: Bytes, output: &Output, log: &mut Log) -> Result<(), Option<bool>> {
        if !self.generates {
            return output.data(self.restored(event)).await.map_err(|Left| None);
        }
        log.hears(&event);
        if let Some(data) = sse::data(&event) {
            self.reader.event(&data);
            log.tokens(self.reader.tokens());
        }
        if let Some(message) = self.reader.error() {
            let message = message.to_owned();
            log.error(&message);
            // A fault of the request is the agent's to know. Anything else is an upstream that broke off.
            if self.service.is_of_request(&message) {
                output.data(event).await.map_err(|Left| None)?;
                return Err(Some(true));
            }
            output.end(self.reader.ending()).await;
            return Err(Some(false));
        }
        output.data(self.restored(event)).await.map_err(|Left| None)
    }

    /// With the secrets in it that the upstream was not shown.
    fn restored(&mut self, event: Bytes) -> Bytes {
        match &mut self.secrets {
            Some(secrets) => secrets.event(event),
            None => event,
        }
    }

    /// No more comes.
    async fn ended(&mut self, why: &str, output: &Output, log: &mut Log) -> Option<bool> {
        let rest = self.splitter.rest();
        if !self.generates {
            output.data(rest).await.ok()?;
            return Some(true);
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
            output.data(whole).await.ok()?;
        }
        if let Some(secrets) = &mut self.secrets
            && !self.torn
        {
            output.data(secrets.end()).await.ok()?;
        }
        if self.reader.complete() {
            return Some(true);
        }
        log.error(why);
        output
            .end(if self.torn {
                Ending::Cut
            } else {
                self.reader.ending()
            })
            .await;
        Some(false)
    }
}

/// Passes a body on that is no stream of events.
#[allow(clippy::too_many_arguments)]
async fn bytes(
    service: Service,
    status: StatusCode,
    headers: HeaderMap,
    begun: Bytes,
    all: bool,
    mut rest: Rest,
    idle: Duration,
    output: &mut Output,
    log: &mut Log,
) -> Option<bool> {
    // Secrets go back into a whole text: it is kept until it is there.
    let hidden = output.hidden.take();
    output.head(status, headers).ok()?;
    let mut kept = BytesMut::from(&begun[..]);
    if hidden.is_none() {
        output.data(begun).await.ok()?;
    }
    let mut ended = all;
    while !ended {
        match timeout(idle, rest.chunk()).await {
            Ok(Ok(Some(bytes))) => {
                if kept.len() <= MAX_WHOLE || hidden.is_some() {
                    kept.extend_from_slice(&bytes);
                }
                if hidden.is_some() && kept.len() > MAX_RESTORED {
                    log.error("the answer is too long for secrets to be put back into it");
                    output.end(Ending::Cut).await;
                    return Some(false);
                }
                if hidden.is_none() {
                    output.data(bytes).await.ok()?;
                }
            }
            Ok(Ok(None)) => ended = true,
            Ok(Err(_)) | Err(_) => {
                log.error("the upstream broke off in the middle of its answer");
                output.end(Ending::Cut).await;
                return Some(false);
            }
        }
    }
    log.hears_whole(&kept);
    let (tokens, _) = service.whole(&kept);
    log.tokens(tokens);
    if let Some(hidden) = &hidden {
        output.data(restore::whole(hidden, &kept)).await.ok()?;
    }
    Some(true)
}
