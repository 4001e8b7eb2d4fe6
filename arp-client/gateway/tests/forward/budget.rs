//! What a request on a kept connection costs the gateway, in allocations: the same on every machine, however slow.
//! Whatever takes more than the bound has to say why.
#![allow(clippy::unwrap_used)]

use super::support::*;
use super::{ASK, PATH};
use arp_gateway::service::Service;
use arp_testkit::counting::{Counting, allocated, count_here};
use std::io::{Read, Write};
use std::time::Duration;

/// Allocations for one request and its answer of six events, with all that is noted of it.
const ALLOCATIONS: f64 = 58.0;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn runtime(counted: bool) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(move || {
            if counted {
                count_here();
            }
        })
        .build()
        .unwrap()
}

#[test]
fn a_request_costs_few_allocations() {
    let (others, own) = (runtime(false), runtime(true));
    let upstream = others.block_on(Upstream::start(|_| Say::Events(message("hello"))));
    let gateway = own.block_on(Running::start(
        Service::Claude,
        &file(&[("a", &upstream.url(), 0)]),
    ));
    let mut agent = std::net::TcpStream::connect(gateway.url.trim_start_matches("http://")).unwrap();
    agent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ASK}",
        ASK.len()
    );
    let mut ask = |times: u32| {
        for _ in 0..times {
            agent.write_all(request.as_bytes()).unwrap();
            let (mut answer, mut buf) = (Vec::new(), [0; 4096]);
            while !answer.ends_with(b"0\r\n\r\n") {
                let n = agent.read(&mut buf).unwrap();
                assert!(n > 0);
                answer.extend_from_slice(&buf[..n]);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
    };
    ask(50);
    let before = allocated();
    let times = 200;
    ask(times);
    #[allow(clippy::cast_precision_loss)]
    let each = (allocated() - before) as f64 / f64::from(times);
    println!("{each} allocations");
    assert!(each <= ALLOCATIONS, "{each} allocations for a request");
}
