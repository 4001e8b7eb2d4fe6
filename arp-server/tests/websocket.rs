//! WebSockets through the relay, between the `ws` package's client and server, which are not ours.

use arp_testkit::daemon::Relay;
use arp_testkit::web::{self, Scenario};

async fn between_real_ends(scenario: &'static str) {
    if web::ready() {
        let relay = Relay::start().await;
        Scenario::new("websocket.js", scenario)
            .run(&relay, &["demo"])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_binary_messages_arrive_as_they_were_sent() {
    between_real_ends("messages").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_by_the_other_end() {
    between_real_ends("pings").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_end_learns_how_the_other_closed() {
    between_real_ends("closing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subprotocol_and_refusal_are_the_servers() {
    between_real_ends("negotiation").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_is_between_the_two_ends() {
    between_real_ends("compression").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_hear_only_themselves() {
    between_real_ends("many").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_taken_off_and_the_apps_own_stays() {
    between_real_ends("tokens").await;
}
