//! The frame codec against bytes of any kind. More cases: `PROPTEST_CASES=1000000 cargo test --release hostile`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_common::defaults::MAX_FRAME;
use arp_common::protocol::{Command, FrameError, FrameReader, Register, RegisterResult, Secret};
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
        Just(Command::Ping {}),
    ]
}

proptest! {
    /// Any bytes: no panic, nothing taken that was not a whole frame, nothing kept beyond the limit.
    #[test]
    fn any_bytes_are_refused_or_wait(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut buf = BytesMut::from(&bytes[..]);
        match Command::decode(&mut buf) {
            Ok(None) => prop_assert_eq!(&buf[..], &bytes[..]),
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
