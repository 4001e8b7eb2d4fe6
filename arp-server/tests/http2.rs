//! HTTP/2 connections end when they should, and cost what they may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::within;
use arp_testkit::origin::Origin;
use std::time::Duration;
use support::http2;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame, and the acknowledgement of one.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const SETTINGS_ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];
const PING: u8 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_that_acknowledges_nothing_is_parted_with() {
    let relay = Relay::builder().args(["--keep-alive", "1"]).start().await;
    let mut visitor = TcpStream::connect(relay.public).await.unwrap();
    visitor.write_all(PREFACE).await.unwrap();
    visitor.write_all(&SETTINGS).await.unwrap();
    visitor.write_all(&SETTINGS_ACK).await.unwrap();
    let mut pinged = false;
    let read = async {
        let mut head = [0; 9];
        while visitor.read_exact(&mut head).await.is_ok() {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            visitor.read_exact(&mut vec![0; len as usize]).await.unwrap();
            pinged |= head[3] == PING;
        }
    };
    within("the end of the connection", read).await;
    assert!(pinged, "it is asked whether it has understood");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preface_byte_by_byte_has_no_more_time_than_a_whole_one() {
    let relay = Relay::builder().args(["--head-timeout", "2"]).start().await;
    let mut visitor = TcpStream::connect(relay.public).await.unwrap();
    let mut sent = 0;
    for byte in &PREFACE[..PREFACE.len() - 1] {
        if visitor.write_all(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
        let ended = tokio::time::timeout(Duration::from_millis(500), visitor.read(&mut [0; 64])).await;
        if ended.is_ok() {
            break;
        }
    }
    // All of them would take eleven seconds.
    assert!(sent < PREFACE.len() - 1, "it is hung up on before the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_cost_little_memory() {
    const STREAMS: usize = 384;
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let before = relay.daemon.rss_kib();
    let mut held = Vec::new();
    for _ in 0..STREAMS / 128 {
        // A visitor with room for everything, as it says, who stops reading.
        let mut visitor = TcpStream::connect(relay.public).await.unwrap();
        visitor.write_all(PREFACE).await.unwrap();
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff];
        let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0x00, 0x00, 0x00];
        visitor.write_all(&settings).await.unwrap();
        visitor.write_all(&window).await.unwrap();
        for n in 0..128u32 {
            let mut block = vec![0x82, 0x86];
            for (index, value) in [(0x44, "/bytes/250000?token=demo"), (0x41, "relay.test")] {
                block.extend([index, value.len() as u8]);
                block.extend(value.as_bytes());
            }
            let mut frame = vec![0, 0, block.len() as u8, 1, 5];
            frame.extend((2 * n + 1).to_be_bytes());
            frame.extend(block);
            visitor.write_all(&frame).await.unwrap();
        }
        held.push(visitor);
    }
    within("all requests", origin.arrived(STREAMS)).await;
    // The first answers fill the sockets; the others come to rest in memory.
    let mut last = 0;
    within("the memory to come to rest", async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = relay.daemon.rss_kib();
            if now <= last {
                break;
            }
            last = now;
        }
    })
    .await;
    let grown = relay.daemon.rss_kib().saturating_sub(before);
    // 384 streams: 32 KiB each, and the buffers of their tunnels.
    assert!(grown < 45_000, "{grown} KiB");
    drop(held);
    // Who asks next is served.
    let client = http2::connect_from([127, 0, 0, 2], relay.public, 1 << 20).await;
    let answer = http2::post(&client, "/?token=demo", &[b"x"], http2::End::EmptyData).await;
    assert_eq!(answer.unwrap().0, 200);
}
