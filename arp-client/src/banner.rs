//! What `arpc` prints for a person: who it is, what it serves, where it is reached. For programs (`--log-format json`)
//! the log tells it, in a line like all others and without a token.

use crate::config::{Config, Mode, Public, Service};
use crate::tokens::Names;
use arp_common::ids::Token;
use arp_common::logging::LogFormat;
use arp_common::tls::Fingerprint;
use qrcode::render::unicode::Dense1x2;
use std::io::{IsTerminal, Write};

/// Prints identity and mode, before the relay is reached.
pub fn hello(config: &Config) {
    let mode = match &config.mode {
        Mode::Tcp { host, port } => format!("TCP, local service {host}:{port}"),
        Mode::Command(_) => "command, the AI agents of this machine".to_owned(),
        Mode::Services => "TCP, local services".to_owned(),
    };
    if config.log_format == LogFormat::Json {
        let relay = config.relay.then_some(config.server.host.as_str());
        let tunnel = config.tunnel.as_ref().map(|t| t.backend.to_string());
        let services = config.services.len();
        tracing::info!(version = crate::VERSION, mode, services, relay, tunnel, "started");
        return;
    }
    say(&format!("arpc {}", crate::VERSION));
    say(&format!("Client id:  {}", told(config.client_id.as_str())));
    say(&format!("Mode:       {mode}"));
    for service in &config.services {
        let Service {
            token, host, port, ..
        } = service;
        say(&format!("Service:    {} -> {host}:{port}", told(token.as_str())));
    }
    if config.relay {
        say(&format!("Relay:      {} (connecting)", config.server.host));
    }
    if let Some(tunnel) = &config.tunnel {
        say(&format!("Tunnel:     {} (connecting)", tunnel.backend));
    }
}

/// Prints which agents were found, in which versions, and what to do about the others.
pub fn agents(found: &[Result<String, String>], format: LogFormat) {
    if format == LogFormat::Json {
        let there: Vec<_> = found.iter().flatten().map(String::as_str).collect();
        tracing::info!(found = there.join(", "), "agents of this machine");
        return;
    }
    let mut text = String::from("Agents found on this machine:");
    for agent in found.iter().flatten() {
        text.push_str(&format!("\n  {agent}"));
    }
    if !found.iter().any(Result::is_ok) {
        text.push_str(" none. Sessions can be started when there is one.");
    }
    for missing in found.iter().filter_map(|agent| agent.as_ref().err()) {
        text.push_str(&format!("\n  {missing}"));
    }
    say(&text);
}

/// Prints where visitors go, with a QR code if that is wanted and a person is looking.
pub fn registered(config: &Config, names: &Names, public: &Public, key: Option<Fingerprint>) {
    let (tokens, id_token) = names.current();
    if config.log_format == LogFormat::Json {
        let tokens = tokens.len() + usize::from(id_token);
        let key = key.map(tracing::field::display);
        tracing::info!(
            relay = config.server.host,
            tokens,
            key,
            "registered with the relay"
        );
        return;
    }
    say(&format!("Registered with the relay at {}.", config.server.host));
    let id = id_token.then(|| config.client_id.as_str());
    let mut urls = id
        .into_iter()
        .chain(tokens.iter().map(Token::as_str))
        .map(|t| config.public_url(public, t, &told(t)));
    let Some(url) = urls.next() else {
        say("No visitor can come in: there is no token (--no-id-token). This makes one:\n  arpc tokens add");
        return;
    };
    say(&format!("Public URL: {url}"));
    for url in urls {
        say(&format!("            {url}"));
    }
    // For raw connections that no relay can read: arpc connect --e2e.
    let key = key.filter(|_| !matches!(config.mode, Mode::Command(_)) || !config.services.is_empty());
    if let Some(key) = key {
        say(&format!("Own key:    {key}"));
    }
    for remote in &public.remote_ports {
        if let Some(port) = remote.port {
            let service = remote
                .service
                .as_ref()
                .map(|s| format!(" ({})", told(s.as_str())));
            say(&format!(
                "Port:       {}:{port}{}",
                config.server.host,
                service.unwrap_or_default()
            ));
        }
    }
    if masks() {
        say("Tokens are cut short in the journal; in full they are told by: arpc tokens list");
    }
    if config.qr {
        qr(&with_key(&url, key));
    }
}

/// A URL that also tells our key: behind `#`, which browsers send to nobody, and there as a directive, which they do
/// not even show to the page (<https://wicg.github.io/scroll-to-text-fragment/#the-fragment-directive>).
fn with_key(url: &str, key: Option<Fingerprint>) -> String {
    match key {
        Some(key) => format!("{url}#:~:e2e={key}"),
        None => url.to_owned(),
    }
}

/// Prints that the tunnel is up, or that its address changed. `token` is what visitors show there.
pub fn tunnel(url: &str, token: Option<&str>, before: Option<&str>, qr: bool) {
    if let Some(before) = before {
        say(&format!("Your address changed; it was {before}"));
    }
    let with = |shown: &str| match token {
        Some(_) => format!("{}/?token={shown}", url.trim_end_matches('/')),
        None => url.to_owned(),
    };
    say(&format!(
        "Public URL: {}",
        with(&token.map(told).unwrap_or_default())
    ));
    if qr {
        self::qr(&with(token.unwrap_or_default()));
    }
}

/// Draws a QR code, if a person is looking.
pub(crate) fn qr(text: &str) {
    if std::io::stdout().is_terminal()
        && let Ok(code) = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L)
    {
        say(&code
            .render::<Dense1x2>()
            // Terminals are dark, and many cameras read only dark on light.
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .quiet_zone(true)
            .build());
    }
}

/// A name as it may be told here: whoever reads the journal must not come in by it.
fn told(name: &str) -> String {
    match name.parse::<Token>() {
        Ok(token) if masks() => token.to_string(),
        _ => name.to_owned(),
    }
}

/// Does what we print go to the system's journal, which others read, with nobody at a terminal?
fn masks() -> bool {
    !std::io::stdout().is_terminal() && std::env::var("JOURNAL_STREAM").is_ok_and(|of| is_stdout(&of))
}

/// systemd says which file the journal reads from: `DEVICE:INODE`.
#[cfg(unix)]
fn is_stdout(journal: &str) -> bool {
    use std::os::fd::AsFd;
    let stdout = std::io::stdout();
    rustix::fs::fstat(stdout.as_fd()).is_ok_and(|stat| format!("{}:{}", stat.st_dev, stat.st_ino) == journal)
}

#[cfg(not(unix))]
fn is_stdout(_: &str) -> bool {
    false
}

/// A closed standard output (`arpc | head`) is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
