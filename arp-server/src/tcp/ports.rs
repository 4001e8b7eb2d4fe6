//! Ports of their own: raw TCP from the first byte, for clients that need no token in it.
//!
//! A port is reserved for one service of one client, also while the edge agent is away, and over restarts of the
//! relay; after some time it is free again. Once it has a listener it keeps it for as long, so that an edge agent that comes
//! back finds its port.

use super::carry::carry;
use super::line::Line;
use super::reach::{Reached, Shown};
use crate::exchange::deadline::Deadline;
use crate::live::Live;
use crate::metrics;
use crate::registry::Client;
use crate::shared::{Public, Visitor};
use arp_common::ids::{ClientId, Token};
use arp_common::net::{accept_loop, let_pause, listen};
use arp_common::private;
use arp_common::protocol::{RemotePort, Service};
use arp_common::stop::Stop;
use arp_common::transport::Stream;
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Largest file of reservations that is read, in bytes: one for each port there is.
const MAX_FILE: usize = 32 * 1024 * 1024;

/// What the operator set for ports.
#[derive(Debug, Clone)]
pub struct PortLimits {
    /// Those that may be given out; none if not set.
    pub range: Option<RangeInclusive<u16>>,
    /// How many one client may have.
    pub per_client: usize,
    /// How long a port stays reserved for an edge agent that is away.
    pub keep: Duration,
    /// Address to listen on; all if not set.
    pub bind: Option<IpAddr>,
}

/// Whose a port is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reservation {
    client: ClientId,
    /// Its service; absent for the one of all names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<Token>,
    /// When the edge agent was here last, in seconds since 1970.
    seen: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Ports {
    limits: PortLimits,
    path: PathBuf,
    public: Arc<Live<Public>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    kill: Stop,
    state: Mutex<State>,
    /// One writes at a time, and always what is newest.
    saving: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    reserved: BTreeMap<u16, Reservation>,
    open: HashMap<u16, Open>,
}

/// A port with a listener.
#[derive(Debug)]
struct Open {
    /// Control channels that have it: for a moment there are two, when one replaces the other.
    users: usize,
    stop: CancellationToken,
}

/// The ports of one control channel. When the last one that has them has ended, the time begins after which they
/// are free.
#[derive(Debug)]
pub(crate) struct Held {
    ports: Arc<Ports>,
    open: Vec<u16>,
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

impl Ports {
    /// With the reservations of a data directory.
    ///
    /// # Errors
    /// If the file is there and cannot be understood.
    pub(crate) fn load(
        limits: PortLimits,
        path: PathBuf,
        public: Arc<Live<Public>>,
        tasks: TaskTracker,
        stop: CancellationToken,
        kill: Stop,
    ) -> io::Result<Arc<Self>> {
        let reserved = match private::read(&path, MAX_FILE) {
            Ok(json) => serde_json::from_slice(&json).map_err(|_| {
                let text = format!(
                    "{} is damaged; put it right, or take it away (reservations are lost then)",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(e),
        };
        Ok(Arc::new(Self {
            limits,
            path,
            public,
            tasks,
            stop,
            kill,
            state: Mutex::new(State {
                reserved,
                open: HashMap::new(),
            }),
            saving: tokio::sync::Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens what a registration asks for, and says what became of it.
    pub(crate) async fn open(
        self: &Arc<Self>,
        client: &Arc<Client>,
        services: &[Service],
    ) -> (Held, Vec<RemotePort>) {
        let mut held = Held {
            ports: self.clone(),
            open: Vec::new(),
        };
        let mut told = Vec::new();
        for service in services {
            let Some(wanted) = service.remote_port else {
                continue;
            };
            let token = service.token.clone();
            let got = self.take(client, token.clone(), wanted, held.open.len());
            held.open.extend(got.as_ref().ok());
            told.push(match got {
                Ok(port) => RemotePort {
                    service: token,
                    port: Some(port),
                    error: None,
                },
                Err(why) => RemotePort {
                    service: token,
                    port: None,
                    error: Some(why),
                },
            });
        }
        if !held.open.is_empty() {
            self.save().await;
        }
        (held, told)
    }

    /// Takes one port: `wanted`, or with 0 the one that the service had, or any.
    fn take(
        self: &Arc<Self>,
        client: &Arc<Client>,
        service: Option<Token>,
        wanted: u16,
        has: usize,
    ) -> Result<u16, String> {
        let Some(range) = self.limits.range.clone() else {
            return Err("this relay gives out no ports; ask its operator for --remote-ports".into());
        };
        if has >= self.limits.per_client {
            let limit = self.limits.per_client;
            return Err(format!(
                "this relay gives an edge agent {limit} ports (--remote-ports-per-client)"
            ));
        }
        if wanted != 0 && !range.contains(&wanted) {
            return Err(format!(
                "this relay gives out the ports {} to {}",
                range.start(),
                range.end()
            ));
        }
        let mut state = self.lock();
        let oldest = now().saturating_sub(self.limits.keep.as_secs());
        let State { reserved, open } = &mut *state;
        let in_use = |open: &HashMap<u16, Open>, port: &u16| open.get(port).is_some_and(|o| o.users > 0);
        reserved.retain(|port, r| r.seen >= oldest || in_use(open, port));
        let is_own = |r: &Reservation| r.client == client.id && r.service == service;
        let own = reserved.iter().find(|(_, r)| is_own(r)).map(|(port, _)| *port);
        let candidates: Vec<u16> = match wanted {
            0 => own.into_iter().chain(range).collect(),
            port => vec![port],
        };
        let mut last = None;
        for port in candidates {
            if reserved.get(&port).is_some_and(|r| !is_own(r)) {
                last.get_or_insert_with(|| {
                    format!("port {port} is reserved for another service; choose another, or auto")
                });
                continue;
            }
            if let Some(there) = open.get_mut(&port) {
                there.users += 1;
            } else {
                let listener = match listen(self.limits.bind, port, "--remote-ports") {
                    Ok(listener) => listener,
                    Err(e) => {
                        last = Some(format!("port {port} is not free on the relay: {}", e.kind()));
                        continue;
                    }
                };
                let stop = self.stop.child_token();
                self.serve(listener, client.id.clone(), service.clone(), stop.clone());
                open.insert(port, Open { users: 1, stop });
            }
            // One service has one port: an earlier one is free again.
            reserved.retain(|other, r| *other == port || !is_own(r) || in_use(open, other));
            let reservation = Reservation {
                client: client.id.clone(),
                service: service.clone(),
                seen: now(),
            };
            reserved.insert(port, reservation);
            open.retain(|port, open| {
                let keep = open.users > 0 || reserved.contains_key(port);
                if !keep {
                    open.stop.cancel();
                }
                keep
            });
            return Ok(port);
        }
        Err(last.unwrap_or_else(|| "this relay has no port left to give out".into()))
    }

    fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        client: ClientId,
        service: Option<Token>,
        stop: CancellationToken,
    ) {
        let ports = self.clone();
        self.tasks.spawn(async move {
            accept_loop(listener, "remote", stop, |stream, peer| {
                let (public, kill) = (ports.public.get(), ports.kill.clone());
                let (client, service) = (client.clone(), service.clone());
                ports.tasks.spawn(async move {
                    tokio::select! {
                        () = visit(public, stream, peer, client, service) => {}
                        () = kill.given() => {}
                    }
                });
            })
            .await;
        });
    }

    /// Writes the reservations down. A relay whose disk is full goes on with what it has in memory.
    async fn save(&self) {
        let _turn = self.saving.lock().await;
        let json = serde_json::to_vec(&self.lock().reserved);
        let path = self.path.clone();
        let write = move || {
            json.map_err(io::Error::other)
                .and_then(|json| private::replace(&path, &json))
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!("reserved ports will be forgotten at a restart: {e}"),
            Err(_) => {}
        }
    }
}

/// Carries one connection of a port. Who comes this way needs no name; the places and limits are those of all.
async fn visit(
    public: Arc<Public>,
    stream: TcpStream,
    peer: SocketAddr,
    client: ClientId,
    service: Option<Token>,
) {
    let Some(_permit) = public.admit(peer.ip()) else {
        return;
    };
    let Some(client) = public.registry.client_of(&client) else {
        return;
    };
    let_pause(&stream, true);
    let visitor = Visitor {
        ip: peer.ip(),
        trusted: false,
        tls: false,
    };
    let (rd, wr) = Stream::Plain(stream).into_split();
    let mut line = Line {
        public,
        visitor,
        peer,
        rd,
        wr,
        buf: BytesMut::new(),
        deadline: Deadline::default(),
    };
    let reached = Reached::by_port(client, service, peer);
    match reached.open(&Shown::default()).await {
        Ok(opened) => carry(line, reached, opened, "port", BytesMut::new(), BytesMut::new()).await,
        // There is no language for a refusal here: it is a failed connection.
        Err(refusal) => {
            metrics::refused("raw", refusal.code);
            tracing::debug!(client = %reached.client.id, code = refusal.code, "no connection for a port");
            line.wr.begin();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.ports.lock();
        for port in &self.open {
            if let Some(reserved) = state.reserved.get_mut(port) {
                reserved.seen = now();
            }
            if let Some(open) = state.open.get_mut(port) {
                open.users = open.users.saturating_sub(1);
            }
        }
    }
}

/// Reads a range of ports: `20000-20999`, or one port.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.trim().parse::<u16>(), to.trim().parse::<u16>()) {
        (Ok(from), Ok(to)) if from > 0 && from <= to => Ok(from..=to),
        _ => Err(format!("{text}: not a range of ports such as 20000-20999")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports() {
        assert_eq!(range("20000-20999"), Ok(20000..=20999));
        assert_eq!(range("22"), Ok(22..=22));
        for bad in ["", "0-5", "9-5", "1-70000", "a-b", "1-2-3"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
