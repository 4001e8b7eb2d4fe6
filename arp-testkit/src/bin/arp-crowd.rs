//! Many idle edge agents in one process, to see what each costs the relay: `arp-crowd HOST CONTROL PROXY N`.
//!
//! Each registers as `crowd-1`, `crowd-2`, … with version 2 of the protocol over plain TCP, answers heartbeats, and
//! opens and holds the tunnels that the relay asks for. Prints `ready` when all are registered, and runs until it
//! is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_common::protocol::{Command, FrameReader, Mode, Register, VERSION, write_frame};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Registrations at a time.
const AT_ONCE: usize = 50;

struct Place {
    host: String,
    control: u16,
    proxy: u16,
}

#[tokio::main]
async fn main() {
    let usage = "usage: arp-crowd HOST CONTROL_PORT PROXY_PORT N";
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [host, control, proxy, n] = &args[..] else {
        panic!("{usage}")
    };
    let number = |text: &str| text.parse::<u16>().expect(usage);
    let place = Arc::new(Place {
        host: host.clone(),
        control: number(control),
        proxy: number(proxy),
    });
    let n = usize::from(number(n));
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let (up, mut registered) = mpsc::channel(n);
    let mut edges = JoinSet::new();
    for i in 1..=n {
        edges.spawn(edge(
            place.clone(),
            format!("crowd-{i}"),
            turns.clone(),
            up.clone(),
        ));
    }
    for _ in 0..n {
        tokio::select! {
            _ = registered.recv() => {}
            ended = edges.join_next() => panic!("an edge ended: {ended:?}"),
        }
    }
    println!("ready");
    let ended = edges.join_next().await;
    panic!("an edge ended: {ended:?}");
}

async fn edge(place: Arc<Place>, id: String, turns: Arc<Semaphore>, up: mpsc::Sender<()>) {
    let turn = turns.acquire().await.expect("open");
    let stream = TcpStream::connect((place.host.as_str(), place.control)).await;
    let (rd, mut wr) = stream.expect("the relay listens").into_split();
    let mut frames = FrameReader::new(rd);
    let register = Register {
        client_id: id.parse().expect("an id"),
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
        .expect("sent");
    match frames.next().await {
        Ok(Some(Command::RegisterResult(result))) if result.success => {}
        other => panic!("{id} was not registered: {other:?}"),
    }
    drop(turn);
    up.send(()).await.expect("somebody counts");
    let mut tunnels = Vec::new();
    loop {
        match frames.next().await {
            Ok(Some(Command::Ping {})) => write_frame(&mut wr, &Command::Pong {}).await.expect("sent"),
            Ok(Some(Command::RequestNewProxyConn { proxy_conn_id })) => {
                let tunnel = TcpStream::connect((place.host.as_str(), place.proxy)).await;
                let mut tunnel = tunnel.expect("the relay listens");
                let hello = Command::NewProxyConn {
                    proxy_conn_id,
                    client_id: id.parse().expect("an id"),
                };
                write_frame(&mut tunnel, &hello).await.expect("sent");
                tunnels.push(tunnel);
            }
            Ok(Some(_)) => {}
            other => panic!("{id} lost the relay: {other:?}"),
        }
    }
}
