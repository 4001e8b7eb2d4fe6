//! The HTTP client of the tests: `reqwest`, which needs a provider of cryptography to be in place before the first
//! client is made (it is built without one, so that nothing but ring is ever linked).

#![allow(clippy::disallowed_methods)] // The one place where such a client may be made.

use reqwest::{Client, ClientBuilder, Response};

/// A client with its own pool of connections.
///
/// # Panics
/// When it cannot be made.
pub fn client() -> Client {
    builder().build().unwrap()
}

/// The same, to be set up further.
pub fn builder() -> ClientBuilder {
    arp_common::tls::install_provider();
    Client::builder()
}

/// What `url` answers.
///
/// # Errors
/// As `reqwest` says.
pub async fn get(url: impl reqwest::IntoUrl) -> reqwest::Result<Response> {
    client().get(url).send().await
}
