//! One registration: from the connection to the control port until it is lost.

use super::Link;
use super::outage::in_words;
use super::tunnel;
use crate::config::{Config, Mode, Public, is_host};
use crate::defaults as d;
use crate::tokens::Change;
use arp_common::defaults::{HANDSHAKE, HEARTBEAT, HEARTBEATS_MISSED};
use arp_common::protocol::{
    self, Command, FrameError, FrameReader, GoAwayReason, Register, RegisterResult, Service, VERSION,
    write_frame,
};
use arp_common::tls::Fingerprint;
use arp_common::transport::{ReadHalf, WriteHalf};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Why a link ended. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection.
    #[error(
        "cannot reach the relay at {0} port {1}: {2}; check --server-addr, --control-port, and that arps runs there"
    )]
    Unreachable(String, u16, String),
    /// No TLS.
    #[error(
        "no secure connection to the relay at {0} port {1}: {2}; check the port. A relay that speaks only plain \
         needs --plaintext"
    )]
    NoTls(String, u16, String),
    /// Another key than at first contact.
    #[error(
        "THE RELAY AT {host} SHOWS ANOTHER KEY THAN BEFORE, so nothing is sent to it.\n  known: {known}\n  shown: {shown}\n\
         Either the relay was set up anew, or somebody stands between you and it. Ask its operator for the key \
         (`arps fingerprint` prints it there). If the shown one is right, accept it on purpose:\n  arpc forget-server {address}"
    )]
    KeyChanged {
        /// The relay.
        host: String,
        /// The relay, with its port.
        address: String,
        /// The pinned key.
        known: Fingerprint,
        /// The key it shows now.
        shown: Fingerprint,
    },
    /// Another key than the one that was asked for.
    #[error("the relay at {0} is not the one that --server-fingerprint names: its key is {1}")]
    NotTheKey(String, Fingerprint),
    /// No good certificate.
    #[error(
        "the certificate of the relay at {0} is not accepted: {1}; does it have one of an authority (arps \
         --tls-cert)? Without --server-ca its key is pinned at first contact"
    )]
    Untrusted(String, String),
    /// The pins cannot be read or written.
    #[error("cannot use the file of known relays {path}: {error}", path = .0.display(), error = .1)]
    Pins(PathBuf, io::Error),
    /// It closed before it answered.
    #[error("the relay at {0} closed the connection: {1}; is that port the control port of arps?")]
    NoAnswer(String, String),
    /// It does not want us.
    #[error("the relay refused to register this edge agent: {0}")]
    Refused(String, bool),
    /// It was lost.
    #[error("lost the relay: {0}")]
    Lost(String),
    /// A relay of version 1 wants to be told anew that we are here.
    #[error("the registration is to be renewed")]
    Renew,
    /// It stops.
    #[error("the relay is shutting down")]
    Shutdown,
    /// Its operator ended this connection.
    #[error("the relay's operator disconnected this edge agent")]
    Kicked,
    /// Somebody took our place.
    #[error(
        "another arpc registered with the same client id, so this one stops; give one of them another --client-id"
    )]
    Replaced,
}

impl LinkError {
    /// Would trying again change nothing?
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Replaced | Self::Refused(_, true))
    }

    /// Is it merely not there, or was just lost? That comes and goes in many forms.
    pub(super) fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(..) | Self::NoTls(..) | Self::NoAnswer(..) | Self::Lost(_) | Self::Shutdown
        )
    }

    /// At the first contact a person is there to see it; later it may pass, and the edge must not be
    /// put out of service by a network that lies for a minute.
    pub fn is_final_at_first(&self) -> bool {
        matches!(
            self,
            Self::Refused(..)
                | Self::KeyChanged { .. }
                | Self::NotTheKey(..)
                | Self::Untrusted(..)
                | Self::Pins(..)
        )
    }
}

/// Registers and serves the control channel until it is lost or `stop` is cancelled.
pub(super) async fn serve(
    link: &Link,
    stop: &CancellationToken,
    registered: impl FnOnce(&Public),
) -> Result<(), LinkError> {
    let opened = tokio::select! {
        biased;
        opened = register(link) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    registered(&opened.public);
    tokio::select! {
        ended = stay(link, opened, stop) => ended,
        () = link.names.settle() => Ok(()),
    }
}

/// Serves the channel, and those that renew it, until one is lost.
async fn stay(link: &Link, opened: Opened, stop: &CancellationToken) -> Result<(), LinkError> {
    let mut channel = Channel::new(link, opened);
    loop {
        match channel.run(stop).await {
            // The old channel is closed when the new one stands, so that there is no moment without one.
            Err(LinkError::Renew) => channel = Channel::new(link, register(link).await?),
            ended => return ended,
        }
    }
}

/// A control channel on which the relay has welcomed us.
struct Opened {
    frames: FrameReader<ReadHalf>,
    wr: WriteHalf,
    version: u32,
    heartbeat: Duration,
    public: Public,
}

/// Connects and registers.
async fn register(link: &Link) -> Result<Opened, LinkError> {
    let config = &link.config;
    let stream = link.dialer.dial(config.server.control_port).await?;
    let no_answer = |e: String| LinkError::NoAnswer(config.server.host.clone(), e);
    let (rd, mut wr) = stream.into_split();
    let mut frames = FrameReader::new(rd);
    let handshake = async {
        write_frame(&mut wr, &registration(link)).await?;
        frames.next().await
    };
    let answer = timeout(HANDSHAKE, handshake)
        .await
        .map_err(|_| no_answer(format!("no answer in {} s", HANDSHAKE.as_secs())))?
        .map_err(|e| no_answer(frame_in_words(&e)))?;
    let result = match answer {
        Some(Command::RegisterResult(result)) => result,
        Some(_) => return Err(no_answer("it does not speak the protocol".into())),
        None => return Err(no_answer("without an answer".into())),
    };
    if !result.success {
        let RegisterResult { error, fatal, .. } = result;
        return Err(LinkError::Refused(
            error.unwrap_or_else(|| "no reason given".into()),
            fatal.unwrap_or(false),
        ));
    }
    let version = result.version.unwrap_or(1);
    // What the relay wishes, but never so seldom that a lost relay is noticed late.
    let heartbeat = result
        .heartbeat_secs
        .map_or(HEARTBEAT, |s| Duration::from_secs(s.into()));
    let heartbeat = heartbeat.clamp(Duration::from_secs(1), HEARTBEAT);
    if version < 3 && !config.services.is_empty() {
        let text = "this relay is too old for --service: it would take visitors of all names to one service";
        return Err(LinkError::Refused(text.into(), true));
    }
    if version < 2 && !link.names.current().0.is_empty() {
        tracing::warn!("this relay is too old for --token: only the client id will work");
    }
    let public = Public {
        url: result.public_url,
        port: result.public_port,
        tls: result.public_tls.unwrap_or(false),
        remote_ports: result.remote_ports,
        domain: result.domain.filter(|domain| is_host(domain)),
    };
    if public.domain.is_none() && config.passes_tls() {
        tracing::warn!(
            "this relay passes no TLS through (it has no --domain, or is too old for it): by HTTP and HTTPS nobody \
             reaches the names for which TLS ends on this side (--tls-cert, --tls-passthrough)"
        );
    }
    for refused in &public.remote_ports {
        if let Some(why) = &refused.error {
            let why: String = why.chars().filter(|c| !c.is_control()).collect();
            tracing::warn!("no port of its own on the relay: {why}");
        }
    }
    Ok(Opened {
        frames,
        wr,
        version,
        heartbeat,
        public,
    })
}

/// What we register with.
fn registration(link: &Link) -> Command {
    let config = &link.config;
    let (tokens, id_token) = link.names.current();
    Command::Register(Register {
        client_id: config.client_id.clone(),
        version: Some(VERSION),
        agent: Some(concat!("arpc/", env!("CARGO_PKG_VERSION")).into()),
        mode: Some(match config.mode {
            Mode::Tcp { .. } | Mode::Services => protocol::Mode::Tcp,
            Mode::Command(_) => protocol::Mode::Command,
        }),
        tokens,
        id_token: (!id_token).then_some(false),
        join_key: config.join_key.clone(),
        services: services(config),
    })
}

/// What the relay is to know of our services. Those of command mode speak HTTP.
fn services(config: &Config) -> Vec<Service> {
    let passes = config.ends_tls.passes();
    let main = (matches!(config.mode, Mode::Tcp { .. }) || passes).then(|| Service {
        token: None,
        passthrough: passes,
        protocol: config.protocol,
        default_user: config.default_user.clone(),
        remote_port: config.remote_port,
    });
    let named = config.services.iter().map(|s| Service {
        token: Some(s.token.clone()),
        passthrough: s.ends_tls.passes(),
        protocol: s.protocol,
        default_user: s.default_user.clone(),
        remote_port: s.remote_port,
    });
    main.into_iter().chain(named).collect()
}

fn frame_in_words(e: &FrameError) -> String {
    match e {
        FrameError::Io(e) => in_words(e),
        other => other.to_string(),
    }
}

struct Channel<'a> {
    link: &'a Link,
    frames: FrameReader<ReadHalf>,
    wr: WriteHalf,
    version: u32,
    heartbeat: Duration,
    /// Changes of our names that the relay has not answered yet.
    changes: VecDeque<Change>,
}

impl<'a> Channel<'a> {
    fn new(link: &'a Link, opened: Opened) -> Self {
        Self {
            link,
            frames: opened.frames,
            wr: opened.wr,
            version: opened.version,
            heartbeat: opened.heartbeat,
            changes: VecDeque::new(),
        }
    }

    async fn run(&mut self, stop: &CancellationToken) -> Result<(), LinkError> {
        let v2 = self.version >= 2;
        // There is no heartbeat in version 1, and some of its relays forget who is silent for 90 s.
        let mut renew = interval_at(Instant::now() + d::RENEW, d::RENEW);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed: Option<Instant> = None;
        let mut heartbeat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let lost = |e: FrameError| LinkError::Lost(frame_in_words(&e));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    if v2 {
                        self.say(&Command::Deregister {}).await?;
                    }
                    self.leave().await;
                    return Ok(());
                }
                frame = self.frames.next() => {
                    heard = Instant::now();
                    if renewed.is_some_and(|at| at.elapsed() < d::RENEW_REFUSED)
                        && !matches!(frame, Ok(Some(_)))
                        && !self.link.renew_by_reconnecting.swap(true, Relaxed)
                    {
                        // It did not take the renewal well: from now on it gets a connection for each.
                        return Err(LinkError::Renew);
                    }
                    match frame.map_err(lost)? {
                        // What a relay of version 1 may say to a renewal.
                        Some(Command::RegisterResult(result)) if !v2 && result.success => {}
                        Some(Command::RegisterResult(result)) if !v2 => {
                            let why = result.error.unwrap_or_else(|| "no reason given".into());
                            return Err(LinkError::Refused(why, false));
                        }
                        Some(Command::RequestNewProxyConn { proxy_conn_id }) => {
                            tunnel::open(self.link, proxy_conn_id, self.version);
                        }
                        Some(Command::Ping {}) => self.say(&Command::Pong {}).await?,
                        Some(Command::Pong {}) => {}
                        Some(Command::TokensSet { error }) => {
                            if let Some(change) = self.changes.pop_front() {
                                change.answered(error);
                            }
                        }
                        Some(Command::GoAway { reason: GoAwayReason::Replaced }) => return Err(LinkError::Replaced),
                        Some(Command::GoAway { reason: GoAwayReason::Kicked }) => return Err(LinkError::Kicked),
                        Some(Command::GoAway { .. }) => return Err(LinkError::Shutdown),
                        Some(_) => return Err(LinkError::Lost("it sent a command out of place".into())),
                        None => return Err(LinkError::Lost("it closed the connection".into())),
                    }
                }
                change = self.link.names.next_change(), if v2 => {
                    let (tokens, id_token) = self.link.names.wanted();
                    self.say(&Command::SetTokens { tokens, id_token }).await?;
                    self.changes.push_back(change);
                }
                _ = renew.tick(), if !v2 => {
                    if self.link.renew_by_reconnecting.load(Relaxed) {
                        return Err(LinkError::Renew);
                    }
                    self.say(&registration(self.link)).await?;
                    renewed = Some(Instant::now());
                }
                _ = heartbeat.tick(), if v2 => self.say(&Command::Ping {}).await?,
                () = sleep_until(heard + self.heartbeat * HEARTBEATS_MISSED), if v2 => {
                    return Err(LinkError::Lost(format!("no sign of life for {} s", heard.elapsed().as_secs())));
                }
            }
        }
    }

    /// Closes our side and reads until the relay has closed its own: commands left unread would turn our
    /// close into a reset that can overtake the goodbye.
    async fn leave(&mut self) {
        let _ = timeout(d::LINGER, async {
            self.wr.shutdown().await?;
            while let Some(_late) = self.frames.next().await? {}
            Ok::<(), FrameError>(())
        })
        .await;
    }

    async fn say(&mut self, command: &Command) -> Result<(), LinkError> {
        match timeout(HANDSHAKE, write_frame(&mut self.wr, command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(LinkError::Lost(frame_in_words(&e))),
            Err(_) => Err(LinkError::Lost("it takes nothing any more".into())),
        }
    }
}
