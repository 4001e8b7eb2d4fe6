//! Drivers of databases, as programs have them: `tests/web/databases.js`.

use super::{run, text};
use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::ports;
use arp_testkit::services::{Server, has};
use arp_testkit::web;
use std::path::Path;

/// Runs a scenario with these variables.
pub(super) async fn scenario(name: &str, relay: &Relay, vars: &[(&str, &str)]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/web/databases.js");
    let at = relay.public.to_string();
    let vars = [vars, &[("ARP_TEST_RELAY", &at)]].concat();
    let done = run("node", &[script.to_str().unwrap(), name], &vars).await;
    assert!(
        done.status.success(),
        "{name}: {}\n{}",
        text(&done),
        relay.daemon.output()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_queries_that_do_not_wait_for_each_other() {
    if !(web::ready() && has("initdb")) {
        return;
    }
    let (relay, server) = (Relay::start().await, Server::postgres().await);
    let _edge = Edge::tcp(&relay, "db", server.addr).await;
    scenario("pipelined", &relay, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_of_mysql_8_by_its_driver() {
    if !web::ready() {
        return;
    }
    let (relay, port) = (Relay::start().await, ports::free());
    let _edge = Edge::tcp_builder(&relay, "eight", ([127, 0, 0, 1], port).into())
        .args(["--protocol", "mysql"])
        .start()
        .await;
    scenario("mysql8", &relay, &[("ARP_TEST_MYSQL_PORT", &port.to_string())]).await;
}
