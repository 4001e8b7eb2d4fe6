//! Connections to upstreams: one pool for each way of reaching them.

use crate::settings::Network;
use reqwest::{Certificate, Client, Proxy, redirect};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Proxies that can be used; with `socks5h` the proxy looks the name up.
const SCHEMES: [&str; 4] = ["http://", "https://", "socks5://", "socks5h://"];
/// More ways than this are not kept; a person has a handful.
const MAX_CLIENTS: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<Network, [Option<Client>; 2]>>);

/// An upstream's network settings cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct NetworkError(String);

impl Clients {
    /// The connections for these settings.
    ///
    /// # Errors
    /// What is wrong with the settings, in words.
    pub fn get(&self, network: &Network) -> Result<Client, NetworkError> {
        self.kept(network, false)
    }

    /// The same for HTTP/1.1 alone.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn get_http1(&self, network: &Network) -> Result<Client, NetworkError> {
        self.kept(network, true)
    }

    fn kept(&self, network: &Network, http1: bool) -> Result<Client, NetworkError> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some([any, only_http1]) = clients.get(network)
            && let Some(client) = if http1 { only_http1 } else { any }
        {
            return Ok(client.clone());
        }
        let client = build(network, http1)?;
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(network) {
            clients.clear();
        }
        let kept = clients.entry(network.clone()).or_default();
        kept[usize::from(http1)] = Some(client.clone());
        Ok(client)
    }
}

fn build(network: &Network, http1: bool) -> Result<Client, NetworkError> {
    arp_common::tls::install_provider();
    #[allow(clippy::disallowed_methods)] // What it needs was put in place above.
    let mut builder = Client::builder()
        .connect_timeout(network.connect_timeout())
        // An answer that leads elsewhere is the agent's to follow; keys go to the host that was configured only.
        .redirect(redirect::Policy::none())
        .tcp_nodelay(true)
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(64);
    if http1 {
        builder = builder.http1_only();
    }
    match network.proxy.as_deref() {
        None => {}
        Some("none") => builder = builder.no_proxy(),
        Some(url) => {
            // What the library does not know it would pass over, and go straight to the upstream.
            if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
                return Err(NetworkError(
                    "the proxy cannot be used: it begins with http://, https://, socks5:// or socks5h://, or is \"none\""
                        .to_owned(),
                ));
            }
            let proxy =
                Proxy::all(url).map_err(|e| NetworkError(format!("the proxy cannot be used: {e}")))?;
            builder = builder.proxy(proxy);
        }
    }
    if let Some(path) = &network.ca_file {
        let unusable = |e: &dyn std::fmt::Display| NetworkError(format!("ca_file {}: {e}", path.display()));
        let pem = std::fs::read(path).map_err(|e| unusable(&e))?;
        let all = Certificate::from_pem_bundle(&pem).map_err(|e| unusable(&e))?;
        if all.is_empty() {
            return Err(unusable(&"it holds no certificate"));
        }
        for certificate in all {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|e| NetworkError(explain(&e)))
}

/// What went wrong on the way to an upstream, in words that a person can act on. Never the URL: its path may hold
/// what is nobody's business.
#[must_use]
pub fn explain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    let all = causes.join(": ");
    let has = |word: &str| all.to_lowercase().contains(word);
    let root = causes.last().cloned().unwrap_or_default();
    if has("dns error") || has("failed to lookup") {
        "its name cannot be resolved: is the base_url right, and is this machine online?".to_owned()
    } else if has("certificate") {
        format!(
            "its certificate is not trusted ({root}): for a company's own authority set ca_file in gateway.toml"
        )
    } else if has("connection refused") {
        "nothing listens there (connection refused)".to_owned()
    } else if error.is_connect() && (error.is_timeout() || has("timed out")) {
        "no connection to it came about in time: is the address right, and does a firewall or a proxy stand in the \
         way? (connect_timeout_secs in gateway.toml says how long is waited)"
            .to_owned()
    } else if error.is_timeout() || has("timed out") {
        "it did not answer in time".to_owned()
    } else if has("handshake") || has("tls") || has("corrupt message") {
        format!("it does not speak TLS as expected ({root}): is it https, and is the port right?")
    } else if root.is_empty() {
        "the connection failed".to_owned()
    } else {
        format!("the connection failed ({root})")
    }
}
