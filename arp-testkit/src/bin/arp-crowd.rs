//! Many idle edge agents in one process, to see what they cost the relay: `arp-crowd HOST CONTROL PROXY N [--returning]`.
//!
//! Each registers as `crowd-1`, `crowd-2`, … with version 2 of the protocol, answers heartbeats, and opens and holds the
//! tunnels that the relay asks for. Prints `ready` when all are registered, and runs until it is killed.
//!
//! Over plain TCP, and the loss of the relay is the end; with `--returning` over TLS, each with a key of its own, and they
//! come back as arpc does: after a random pause up to half a second, which doubles up to five. Each time that all are
//! back, a line says how long it took since the first was lost, and how many came in the busiest 100 ms.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_common::protocol::{Command, FrameReader, Mode, Register, VERSION, write_frame};
use arp_common::tls::{self, Identity, Trust};
use arp_common::transport::Stream;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Registrations at a time, at the first time.
const AT_ONCE: usize = 50;

#[derive(Clone)]
struct Place {
    host: String,
    control: u16,
    proxy: u16,
}

enum Event {
    Registered,
    Lost,
}

#[tokio::main]
async fn main() {
    let usage = "usage: arp-crowd HOST CONTROL_PORT PROXY_PORT N [--returning]";
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let returning = args.last().is_some_and(|a| a == "--returning");
    if returning {
        args.pop();
    }
    let [host, control, proxy, n] = &args[..] else {
        panic!("{usage}")
    };
    let number = |text: &str| text.parse::<u16>().expect(usage);
    let place = Place {
        host: host.clone(),
        control: number(control),
        proxy: number(proxy),
    };
    let n = usize::from(number(n));
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let (tell, told) = mpsc::unbounded_channel();
    let mut edges = JoinSet::new();
    for i in 1..=n {
        let identity = returning.then(|| Identity::generate().expect("a key"));
        let edge = Edge {
            place: place.clone(),
            id: format!("crowd-{i}"),
            identity,
            tell: tell.clone(),
        };
        edges.spawn(edge.live(turns.clone()));
    }
    tokio::select! {
        () = watch(told, n) => {}
        ended = edges.join_next() => panic!("an edge ended: {ended:?}"),
    }
}

/// Says when all are there, and when all are there again.
async fn watch(mut told: mpsc::UnboundedReceiver<Event>, n: usize) {
    let (mut here, mut ready) = (0, false);
    let mut lost: Option<Instant> = None;
    let mut slices: BTreeMap<u128, usize> = BTreeMap::new();
    while let Some(event) = told.recv().await {
        match event {
            Event::Lost => {
                here -= 1;
                lost.get_or_insert_with(Instant::now);
            }
            Event::Registered => {
                here += 1;
                if let Some(lost) = lost {
                    *slices.entry(lost.elapsed().as_millis() / 100).or_default() += 1;
                }
            }
        }
        if here < n {
            continue;
        }
        match lost.take() {
            None if !ready => println!("ready"),
            None => {}
            Some(lost) => {
                let most = slices.values().max().copied().unwrap_or(0);
                let first = slices.keys().next().map_or(0, |s| s * 100);
                println!(
                    "all {n} are back {} ms after the first was lost (the first one after {first} ms, at most {most} in 100 ms)",
                    lost.elapsed().as_millis()
                );
                slices.clear();
            }
        }
        ready = true;
    }
}

struct Edge {
    place: Place,
    id: String,
    /// With one it speaks TLS and returns.
    identity: Option<Identity>,
    tell: mpsc::UnboundedSender<Event>,
}

impl Edge {
    async fn live(self, turns: Arc<Semaphore>) {
        let mut turn = Some(turns.acquire().await.expect("open"));
        let (first, most) = (Duration::from_millis(500), Duration::from_secs(5));
        let mut bound = first;
        loop {
            let mut up = false;
            let lost = self.register(|| {
                up = true;
                turn = None;
                let _ = self.tell.send(Event::Registered);
            });
            let why = lost.await;
            if self.identity.is_none() {
                panic!("{} lost the relay: {why}", self.id);
            }
            if up {
                bound = first;
                let _ = self.tell.send(Event::Lost);
            }
            let pause = bound
                .mul_f64(rand::random::<f64>())
                .max(Duration::from_millis(50));
            tokio::time::sleep(pause).await;
            bound = (bound * 2).min(most);
        }
    }

    async fn dial(&self, port: u16) -> Result<Stream, String> {
        let tcp = TcpStream::connect((self.place.host.as_str(), port)).await;
        let tcp = tcp.map_err(|e| e.to_string())?;
        let Some(identity) = &self.identity else {
            return Ok(Stream::Plain(tcp));
        };
        let config = tls::client_config(identity, &Trust::FirstUse).map_err(|e| e.to_string())?;
        let dialed = tls::connect(tcp, &self.place.host, config).await;
        dialed.map(|(stream, _)| stream).map_err(|e| e.to_string())
    }

    /// Registers and serves until the relay is lost; says why.
    async fn register(&self, registered: impl FnOnce()) -> String {
        match self.serve(registered).await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn serve(&self, registered: impl FnOnce()) -> Result<std::convert::Infallible, String> {
        let text = |e: arp_common::protocol::FrameError| e.to_string();
        let (rd, mut wr) = self.dial(self.place.control).await?.into_split();
        let mut frames = FrameReader::new(rd);
        let register = Register {
            client_id: self.id.parse().expect("an id"),
            version: Some(VERSION),
            agent: Some("arp-crowd".into()),
            mode: Some(Mode::Tcp),
            tokens: Vec::new(),
            id_token: None,
            join_key: None,
            services: Vec::new(),
        };
        write_frame(&mut wr, &Command::Register(register))
            .await
            .map_err(text)?;
        match frames.next().await.map_err(text)? {
            Some(Command::RegisterResult(result)) if result.success => registered(),
            other => return Err(format!("not registered: {other:?}")),
        }
        let mut tunnels = Vec::new();
        loop {
            match frames.next().await.map_err(text)? {
                Some(Command::Ping {}) => write_frame(&mut wr, &Command::Pong {}).await.map_err(text)?,
                Some(Command::RequestNewProxyConn { proxy_conn_id }) => {
                    let mut tunnel = self.dial(self.place.proxy).await?;
                    let hello = Command::NewProxyConn {
                        proxy_conn_id,
                        client_id: self.id.parse().expect("an id"),
                    };
                    write_frame(&mut tunnel, &hello).await.map_err(text)?;
                    tunnels.push(tunnel);
                }
                Some(Command::GoAway { reason }) => return Err(format!("sent away: {reason:?}")),
                Some(_) => {}
                None => return Err("closed".into()),
            }
        }
    }
}
