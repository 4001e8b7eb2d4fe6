//! The frame codec, in both directions and on tunnels, against bytes of any kind. Each property is tried for some
//! thousands of cases, a second or two in all; more: `PROPTEST_CASES=1000000 cargo test --release hostile`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_common::defaults::MAX_FRAME;
use arp_common::protocol::{
    Command, FrameError, FrameReader, GoAwayReason, OpenError, Protocol, Register, RegisterResult, Secret,
    Service, TunnelKind,
};
use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_~-]{1,20}"
}

fn command() -> impl Strategy<Value = Command> {
    let register = (
        name(),
        proptest::option::of(0u32..9),
        proptest::collection::vec(name(), 0..4),
        proptest::option::of(any::<bool>()),
        proptest::option::of(".{0,30}"),
    );
    prop_oneof![
        register.prop_map(
            |(id, version, tokens, id_token, key)| Command::Register(Register {
                client_id: id.parse().unwrap(),
                version,
                agent: key.clone(),
                mode: None,
                tokens: tokens.iter().map(|t| t.parse().unwrap()).collect(),
                id_token,
                join_key: key.map(Secret::new),
                services: tokens
                    .first()
                    .map(|t| Service {
                        token: t.parse().ok(),
                        protocol: Some(Protocol::Postgres),
                        default_user: Some(t.clone()),
                        remote_port: Some(0),
                        passthrough: true,
                    })
                    .into_iter()
                    .collect(),
            })
        ),
        (any::<bool>(), proptest::option::of(".{0,30}")).prop_map(|(success, error)| {
            Command::RegisterResult(RegisterResult {
                success,
                error,
                ..RegisterResult::default()
            })
        }),
        ("\\PC{0,40}", name()).prop_map(|(id, client)| Command::NewProxyConn {
            proxy_conn_id: id,
            client_id: client.parse().unwrap(),
        }),
        (proptest::collection::vec(name(), 0..4), any::<bool>()).prop_map(|(tokens, id_token)| {
            Command::SetTokens {
                tokens: tokens.iter().map(|t| t.parse().unwrap()).collect(),
                id_token,
            }
        }),
        (
            any::<bool>(),
            proptest::option::of(any::<u16>()),
            proptest::option::of(any::<u32>())
        )
            .prop_map(|(yes, port, secs)| Command::RegisterResult(RegisterResult {
                success: yes,
                fatal: Some(!yes),
                public_url: port.map(|p| format!("https://r:{p}")),
                public_port: port,
                public_tls: port.map(|_| yes),
                heartbeat_secs: secs,
                version: secs,
                error: None,
                remote_ports: vec![],
                domain: None,
            })),
        proptest::option::of(".{0,30}").prop_map(|error| Command::TokensSet { error }),
        "\\PC{0,40}".prop_map(|proxy_conn_id| Command::RequestNewProxyConn { proxy_conn_id }),
        prop_oneof![Just(GoAwayReason::Shutdown), Just(GoAwayReason::Replaced)]
            .prop_map(|reason| Command::GoAway { reason }),
        open(),
        opened(),
        Just(Command::Ping {}),
        Just(Command::Pong {}),
        Just(Command::Deregister {}),
    ]
}

/// What a relay says at the first use of a tunnel.
fn open() -> impl Strategy<Value = Command> {
    let addr = (any::<std::net::IpAddr>(), any::<u16>()).prop_map(std::net::SocketAddr::from);
    let kind = prop_oneof![Just(TunnelKind::Http), Just(TunnelKind::Tcp)];
    let service = proptest::option::of(name());
    let key = proptest::option::of(".{0,20}");
    (kind, proptest::option::of(addr), service, key).prop_map(|(kind, peer_addr, service, key)| {
        Command::Open {
            kind,
            peer_addr,
            service: service.map(|s| s.parse().unwrap()),
            e2e: key.is_some(),
            tls: None,
            key: key.map(Secret::new),
        }
    })
}

/// What an edge answers to that.
fn opened() -> impl Strategy<Value = Command> {
    proptest::option::of((".{0,20}", ".{0,60}")).prop_map(|error| Command::Opened {
        error: error.map(|(code, message)| OpenError { code, message }),
    })
}

/// Cases of each property, unless the environment says otherwise.
fn cases(n: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(n),
    }
}

/// A right frame in which some bytes were changed, left out, doubled or put in.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0u8..4, any::<u8>());
    (command(), proptest::collection::vec(change, 0..4)).prop_map(|(command, changes)| {
        let mut bytes = command.encode().unwrap().to_vec();
        for (at, kind, byte) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => bytes.insert(at, bytes[at]),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(cases(8192))]

    /// A frame with some bytes wrong is understood, refused or waited for, by a reader that gets it in pieces; and
    /// what is understood can be sent again and is understood in the same way.
    #[test]
    fn a_nearly_right_frame_is_understood_or_refused(bytes in nearly_right(), cut in 1usize..40) {
        let mut whole = BytesMut::from(&bytes[..]);
        let at_once = Command::decode(&mut whole);
        if let Ok(Some(command)) = &at_once {
            let again = command.encode().unwrap();
            let understood = Command::decode(&mut BytesMut::from(&again[..])).unwrap();
            prop_assert_eq!(understood.as_ref(), Some(command));
        }
        let mut pieces = BytesMut::new();
        let mut in_pieces = Ok(None);
        for piece in bytes.chunks(cut) {
            pieces.extend_from_slice(piece);
            in_pieces = Command::decode(&mut pieces);
            if !matches!(in_pieces, Ok(None)) {
                break;
            }
        }
        prop_assert_eq!(format!("{at_once:?}"), format!("{in_pieces:?}"));
    }

    /// Any bytes: no panic, nothing taken that was not a whole frame, nothing kept beyond the limit.
    #[test]
    fn any_bytes_are_refused_or_wait(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut buf = BytesMut::from(&bytes[..]);
        match Command::decode(&mut buf) {
            Ok(None) => {
                prop_assert_eq!(&buf[..], &bytes[..]);
                // Nothing longer than a frame may be is waited for.
                let announced = bytes.first_chunk::<4>().map_or(0, |n| u32::from_be_bytes(*n) as usize);
                prop_assert!(announced <= MAX_FRAME, "waits for {} bytes", announced);
            }
            Ok(Some(_)) => prop_assert!(buf.len() + 4 < bytes.len()),
            Err(FrameError::TooLong(n)) => prop_assert!(n > MAX_FRAME && buf.len() == bytes.len()),
            Err(e) => prop_assert!(matches!(e, FrameError::Malformed(_))),
        }
    }

    /// JSON-like bytes behind a right length reach the parser; it says no, and never what it read.
    #[test]
    fn any_json_is_refused_without_quoting_it(text in "\\{\"(Register|Open|SetTokens|x)\":[\\[{]\"?(hunter2)?.{0,40}") {
        let mut buf = BytesMut::new();
        buf.put_u32(text.len() as u32);
        buf.put_slice(text.as_bytes());
        if let Err(e) = Command::decode(&mut buf) {
            prop_assert!(!e.to_string().contains("hunter2"));
        }
    }

    /// What goes in comes out, however the bytes are cut.
    #[test]
    fn commands_arrive_as_they_were_sent(
        commands in proptest::collection::vec(command(), 1..5),
        cut in 1usize..40,
    ) {
        let mut bytes = Vec::new();
        for c in &commands {
            bytes.extend_from_slice(&c.encode().unwrap());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut tx, rx) = tokio::io::duplex(cut);
            let write = async move {
                tokio::io::AsyncWriteExt::write_all(&mut tx, &bytes).await.unwrap();
            };
            let read = async {
                let mut reader = FrameReader::new(rx);
                for c in &commands {
                    assert_eq!(reader.next().await.unwrap().as_ref(), Some(c));
                }
                assert!(reader.next().await.unwrap().is_none());
            };
            tokio::join!(write, read);
        });
    }
}

proptest! {
    #![proptest_config(cases(2048))]

    /// On a tunnel the visitor's bytes follow the relay's frame at once: the edge gets every one of them, wherever
    /// the pieces end.
    #[test]
    fn what_follows_the_opening_of_a_tunnel_is_left_untouched(
        open in open(),
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 1usize..60,
    ) {
        let bytes = [&open.encode().unwrap()[..], &tail].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut tx, rx) = tokio::io::duplex(cut);
            let write = async move {
                tokio::io::AsyncWriteExt::write_all(&mut tx, &bytes).await.unwrap();
            };
            let read = async {
                let mut reader = FrameReader::new(rx);
                assert_eq!(reader.next().await.unwrap(), Some(open));
                let (mut rest, head) = reader.into_parts();
                let mut got = head.to_vec();
                tokio::io::AsyncReadExt::read_to_end(&mut rest, &mut got).await.unwrap();
                assert_eq!(got, tail);
            };
            tokio::join!(write, read);
        });
    }
}
