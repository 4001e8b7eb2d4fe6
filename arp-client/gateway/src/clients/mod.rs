//! Connections to upstreams: one pool for each host and way of reaching it.

mod answer;
mod direct;
mod line;
mod origin;
mod sent;

pub use answer::Reply;
pub use origin::{Origin, OriginError};
pub use sent::Sent;

use crate::settings::Network;
use direct::Pool;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method};
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Certificate, Proxy, redirect};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// Proxies that can be used; with `socks5h` the proxy looks the name up.
const SCHEMES: [&str; 4] = ["http://", "https://", "socks5://", "socks5h://"];
/// More ways than this are not kept; a person has a handful.
const MAX_CLIENTS: usize = 64;
/// Nor more hosts of one way.
const MAX_HOSTS: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Clients {
    /// What the system's variables say of proxies.
    system: Matcher,
    /// A handful: comparing them costs less than a hash of all that a way is.
    ways: Mutex<Vec<(Network, Way)>>,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            system: Matcher::from_system(),
            ways: Mutex::default(),
        }
    }
}

/// The connections of one way of reaching upstreams.
#[derive(Debug, Default)]
struct Way {
    hosts: Vec<(Origin, Client)>,
    /// What does all that this module does not: any HTTP, and HTTP/1.1 alone.
    library: [Option<reqwest::Client>; 2],
}

/// Connections to one host.
#[derive(Debug, Clone)]
pub enum Client {
    /// Straight to it.
    Direct(Arc<Pool>),
    /// Through a proxy.
    Proxied(reqwest::Client),
}

/// An upstream's network settings cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct NetworkError(String);

/// A request could not be sent, or its answer broke off; in words that a person can act on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct AskError(String);

impl Clients {
    /// The connections to this host with these settings.
    ///
    /// # Errors
    /// What is wrong with the settings, in words.
    pub fn get(&self, network: &Network, origin: &Origin) -> Result<Client, NetworkError> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let way_before = ways.iter().find(|(of, _)| of == network);
        let host = way_before.and_then(|(_, way)| way.hosts.iter().find(|(of, _)| of == origin));
        if let Some((_, client)) = host {
            return Ok(client.clone());
        }
        let proxied = match network.proxy.as_deref() {
            None => self.system.intercept(origin.uri()).is_some(),
            Some(proxy) => proxy != "none",
        };
        let client = if proxied {
            Client::Proxied(library(&mut ways, network, false)?)
        } else {
            Client::Direct(Pool::new(origin, network)?)
        };
        let hosts = &mut way(&mut ways, network).hosts;
        if hosts.len() >= MAX_HOSTS {
            hosts.clear();
        }
        hosts.push((origin.clone(), client.clone()));
        Ok(client)
    }

    /// Connections over which a WebSocket can be had: of HTTP/1.1 alone.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn get_http1(&self, network: &Network) -> Result<reqwest::Client, NetworkError> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        library(&mut ways, network, true)
    }
}

fn way<'w>(ways: &'w mut Vec<(Network, Way)>, network: &Network) -> &'w mut Way {
    let at = ways.iter().position(|(of, _)| of == network).unwrap_or_else(|| {
        if ways.len() >= MAX_CLIENTS {
            ways.clear();
        }
        ways.push((network.clone(), Way::default()));
        ways.len() - 1
    });
    &mut ways[at].1
}

fn library(
    ways: &mut Vec<(Network, Way)>,
    network: &Network,
    http1: bool,
) -> Result<reqwest::Client, NetworkError> {
    let kept = &mut way(ways, network).library[usize::from(http1)];
    if let Some(client) = kept {
        return Ok(client.clone());
    }
    Ok(kept.insert(build(network, http1)?).clone())
}

impl Client {
    /// Sends a request to `path` at `origin`, the host that this client is for, and waits for the head of its answer.
    ///
    /// # Errors
    /// In words.
    pub async fn send(
        &self,
        origin: &Origin,
        method: Method,
        path: PathAndQuery,
        headers: HeaderMap,
        body: Sent,
    ) -> Result<Reply, AskError> {
        match self {
            Self::Direct(pool) => pool.send(method, path, headers, body).await,
            Self::Proxied(client) => {
                // Large, and few need it.
                Box::pin(async {
                    let mut request = client.request(method, origin.url_of(&path)).headers(headers);
                    if !matches!(body, Sent::Empty) {
                        request = request.body(body);
                    }
                    Ok(Reply::from(request.send().await?))
                })
                .await
            }
        }
    }
}

fn build(network: &Network, http1: bool) -> Result<reqwest::Client, NetworkError> {
    arp_common::tls::install_provider();
    #[allow(clippy::disallowed_methods)] // What it needs was put in place above.
    let mut builder = reqwest::Client::builder()
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

impl AskError {
    /// From an error after the connection stood.
    fn of(error: &(dyn Error + 'static)) -> Self {
        Self(told(&causes(Some(error)), false, false))
    }

    /// From an error while it was made.
    fn connecting(error: &(dyn Error + 'static)) -> Self {
        Self(told(&causes(Some(error)), true, false))
    }
}

impl From<reqwest::Error> for AskError {
    fn from(e: reqwest::Error) -> Self {
        Self(explain(&e))
    }
}

fn causes(mut error: Option<&(dyn Error + 'static)>) -> Vec<String> {
    let mut causes = Vec::new();
    while let Some(cause) = error {
        causes.push(cause.to_string());
        error = cause.source();
    }
    causes
}

/// What went wrong on the way to an upstream, in words that a person can act on. Never the URL: its path may hold
/// what is nobody's business.
#[must_use]
pub fn explain(error: &reqwest::Error) -> String {
    // The library's own text holds the URL.
    told(&causes(error.source()), error.is_connect(), error.is_timeout())
}

/// The same from all that was said, the reason of the reasons last; while connecting, or because time was over.
fn told(causes: &[String], connecting: bool, late: bool) -> String {
    let all = causes.join(": ").to_lowercase();
    let has = |word: &str| all.contains(word);
    let late = late || has("timed out") || has("deadline has elapsed");
    let root = causes.last().map(String::as_str).unwrap_or_default();
    if has("dns error") || has("failed to lookup") {
        "its name cannot be resolved: is the base_url right, and is this machine online?".to_owned()
    } else if has("certificate") {
        format!(
            "its certificate is not trusted ({root}): for a company's own authority set ca_file in gateway.toml"
        )
    } else if has("connection refused") {
        "nothing listens there (connection refused)".to_owned()
    } else if connecting && late {
        "no connection to it came about in time: is the address right, and does a firewall or a proxy stand in the \
         way? (connect_timeout_secs in gateway.toml says how long is waited)"
            .to_owned()
    } else if late {
        "it did not answer in time".to_owned()
    } else if has("handshake") || has("tls") || has("corrupt message") {
        format!("it does not speak TLS as expected ({root}): is it https, and is the port right?")
    } else if root.is_empty() {
        "the connection failed".to_owned()
    } else {
        format!("the connection failed ({root})")
    }
}
