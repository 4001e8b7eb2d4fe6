//! Which backend it is to be.

use super::{AnyTunnel, Local, arp, bore, cloudflare, custom, ngrok, tailscale};
use crate::{Backend, TunnelConfig, TunnelError};
use serde::Serialize;
use std::sync::Arc;

/// Can a backend be used here?
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Availability {
    /// Which.
    pub backend: Backend,
    /// Installed, logged in, configured?
    pub available: bool,
    /// Why, or why not and what to do.
    pub detail: String,
    /// Would `auto` look at it?
    pub auto: bool,
}

/// What `auto` looks at, in this order.
fn candidates(config: &TunnelConfig) -> Vec<Backend> {
    let mut all = vec![Backend::Cloudflare, Backend::Tailscale, Backend::Ngrok];
    // These lead to whoever the configuration names; without it they are nobody's wish.
    if config.arp.is_some() {
        all.insert(0, Backend::Arp);
    }
    if config.bore.server_given {
        all.push(Backend::Bore);
    }
    if config.custom.is_some() {
        all.push(Backend::Custom);
    }
    all
}

async fn available(backend: Backend, config: &TunnelConfig) -> Result<String, TunnelError> {
    match backend {
        Backend::Cloudflare => cloudflare::available(&config.cloudflare),
        Backend::Tailscale => tailscale::available(&config.tailscale).await,
        Backend::Ngrok => ngrok::available(&config.ngrok),
        Backend::Bore => bore::available(&config.bore),
        Backend::Custom => custom::available(config.custom.as_ref()),
        Backend::Arp => arp::available(config.arp.as_ref()),
        Backend::Auto | Backend::None => Err(TunnelError::fatal("not a tunnel", "choose a backend")),
    }
}

/// All backends, and whether they can be used.
pub async fn availability(config: &TunnelConfig) -> Vec<Availability> {
    let auto = candidates(config);
    let mut all = Vec::new();
    let rest = Backend::ALL
        .into_iter()
        .filter(|backend| !matches!(backend, Backend::Auto | Backend::None));
    for backend in rest {
        let told = available(backend, config).await;
        all.push(Availability {
            backend,
            available: told.is_ok(),
            detail: told.unwrap_or_else(|error| error.to_string()),
            auto: auto.contains(&backend),
        });
    }
    all
}

/// The backend of the configuration; for `auto` the first that can be used.
///
/// # Errors
/// For `none`, and when `auto` finds nothing: with what is missing of each.
pub async fn choose(config: &TunnelConfig, local: Local) -> Result<AnyTunnel, TunnelError> {
    let backend = match config.backend {
        Backend::Auto => first(config).await?,
        backend => backend,
    };
    make(backend, config, Arc::new(local))
}

async fn first(config: &TunnelConfig) -> Result<Backend, TunnelError> {
    let mut missing = Vec::new();
    for backend in candidates(config) {
        match available(backend, config).await {
            Ok(why) => {
                for line in &missing {
                    tracing::info!(target: "tunnel", "not {line}");
                }
                tracing::info!(target: "tunnel", "taking {backend}: {why}");
                return Ok(backend);
            }
            Err(error) => missing.push(format!("{backend}: {}", error.to_string().replace("\n ", ""))),
        }
    }
    Err(TunnelError::fatal(
        format!("no tunnel backend can be used here\n  {}", missing.join("\n  ")),
        "install one of these, or name another with --backend (bore needs no account)",
    ))
}

fn make(backend: Backend, config: &TunnelConfig, local: Arc<Local>) -> Result<AnyTunnel, TunnelError> {
    let nothing =
        |what: &str| TunnelError::fatal(format!("there is nothing in [tunnel.{backend}]"), what.to_owned());
    Ok(match backend {
        Backend::Cloudflare => {
            AnyTunnel::Cloudflare(cloudflare::Cloudflare::new(config.cloudflare.clone(), local))
        }
        Backend::Tailscale => {
            AnyTunnel::Tailscale(tailscale::Tailscale::new(config.tailscale.clone(), local))
        }
        Backend::Ngrok => AnyTunnel::Ngrok(ngrok::Ngrok::new(config.ngrok.clone(), local)),
        Backend::Bore => AnyTunnel::Bore(bore::Bore::new(config.bore.clone(), local)),
        Backend::Custom => {
            let own = config
                .custom
                .clone()
                .ok_or_else(|| nothing("say which command makes the tunnel"))?;
            AnyTunnel::Custom(custom::Custom::new(own, local))
        }
        Backend::Arp => {
            let own = config
                .arp
                .clone()
                .ok_or_else(|| nothing("say where the relay is: server_addr"))?;
            AnyTunnel::Arp(arp::Arp::new(own, local))
        }
        Backend::Auto | Backend::None => {
            return Err(TunnelError::fatal(
                "the tunnel's backend is \"none\": there is nothing to start",
                "name one with --backend, or in [tunnel] backend",
            ));
        }
    })
}
