//! Real web applications in a real browser: Vite's development server, reached through the relay in Chromium.

use arp_testkit::daemon::Relay;
use arp_testkit::web::{self, Scenario};

async fn in_browser(scenario: &'static str, clients: &[&str], flags: &[&str]) {
    let (true, Some(chromium)) = (web::ready(), web::chromium()) else {
        return;
    };
    let relay = Relay::builder().args(flags.iter().copied()).start().await;
    let scenario = Scenario::new("browser.js", scenario).var("ARP_TEST_CHROMIUM", chromium);
    scenario.run(&relay, clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_vite_loads_whole_and_is_reloaded_hot() {
    in_browser("page", &["demo"], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_with_two_tokens_load_from_their_own_clients() {
    in_browser("tabs", &["alice", "bob"], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_domain_two_tabs_never_mix_and_both_are_reloaded_hot() {
    in_browser("origins", &["alice", "bob"], &["--domain", "localhost"]).await;
}
