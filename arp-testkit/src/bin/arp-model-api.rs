//! The loopback model API as a program, for tests that are not written in Rust.
//!
//! `arp-model-api [PORT]` prints `listening 127.0.0.1:PORT` and serves until it is ended.

use arp_testkit::model_api::ModelApi;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args()
        .nth(1)
        .and_then(|port| port.parse().ok())
        .unwrap_or(0);
    let api = ModelApi::bind(port).await?;
    println!("listening {}", api.address());
    std::future::pending::<()>().await;
    drop(api);
    Ok(())
}
