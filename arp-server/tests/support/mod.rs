//! An edge agent that says exactly what a test wants, over TLS with a key of its own.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub(crate) mod http2;

use arp_common::ids::ClientId;
use arp_common::protocol::{Command, FrameReader, Register, RegisterResult, Secret, write_frame};
use arp_common::tls::{self, Identity, Trust};
use arp_common::transport::{ReadHalf, Stream, WriteHalf};
use arp_testkit::daemon::Relay;
use arp_testkit::http::within;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// A connection to a port of the relay.
pub(crate) struct Peer {
    /// What comes from the relay.
    pub(crate) frames: FrameReader<ReadHalf>,
    /// What goes to it.
    pub(crate) wr: WriteHalf,
}

/// Opens a connection with the key of `identity`.
pub(crate) async fn secure(to: SocketAddr, identity: &Identity) -> Stream {
    let config = tls::client_config(identity, &Trust::FirstUse).unwrap();
    let tcp = TcpStream::connect(to).await.unwrap();
    tls::connect(tcp, "127.0.0.1", config).await.unwrap().0
}

pub(crate) fn register(id: &str) -> Register {
    Register {
        client_id: id.parse().unwrap(),
        version: Some(2),
        agent: None,
        mode: None,
        tokens: vec![],
        id_token: None,
        join_key: None,
        services: vec![],
    }
}

pub(crate) fn with_join_key(id: &str, key: &str) -> Register {
    Register {
        join_key: Some(Secret::new(key)),
        ..register(id)
    }
}

impl Peer {
    pub(crate) async fn secure(to: SocketAddr, identity: &Identity) -> Self {
        Self::over(secure(to, identity).await)
    }

    pub(crate) async fn plain(to: SocketAddr) -> Self {
        Self::over(Stream::Plain(TcpStream::connect(to).await.unwrap()))
    }

    fn over(stream: Stream) -> Self {
        let (rd, wr) = stream.into_split();
        let frames = FrameReader::new(rd);
        Self { frames, wr }
    }

    pub(crate) async fn say(&mut self, command: &Command) {
        write_frame(&mut self.wr, command).await.unwrap();
    }

    /// The next command; `None` when the relay has closed.
    pub(crate) async fn hear(&mut self) -> Option<Command> {
        within("the relay", self.frames.next()).await.ok().flatten()
    }

    /// Registers and gives the answer.
    pub(crate) async fn register(&mut self, register: Register) -> RegisterResult {
        self.say(&Command::Register(register)).await;
        match self.hear().await {
            Some(Command::RegisterResult(result)) => result,
            other => panic!("not an answer: {other:?}"),
        }
    }

    /// Waits until the relay asks for a tunnel.
    pub(crate) async fn asked(&mut self) -> String {
        loop {
            match self.hear().await.expect("the link stays") {
                Command::RequestNewProxyConn { proxy_conn_id } => return proxy_conn_id,
                _ => continue,
            }
        }
    }

    /// Presents itself as a tunnel.
    pub(crate) async fn present(&mut self, id: &str, client: &str) {
        let client_id: ClientId = client.parse().unwrap();
        self.say(&Command::NewProxyConn {
            proxy_conn_id: id.to_owned(),
            client_id,
        })
        .await;
    }
}

/// Registers with a key of its own and gives the answer.
pub(crate) async fn try_register(
    relay: &Relay,
    identity: &Identity,
    register: Register,
) -> (Peer, RegisterResult) {
    let mut peer = Peer::secure(relay.control, identity).await;
    let result = peer.register(register).await;
    (peer, result)
}
