//! What `arpc` prints for a person: who it is, what it serves, where it is reached.

use crate::config::{Config, Mode, Public};
use crate::tokens::Names;
use arp_common::ids::Token;
use qrcode::render::unicode::Dense1x2;
use std::io::{IsTerminal, Write};

/// Prints identity and mode, before the relay is reached.
pub fn hello(config: &Config) {
    let mode = match &config.mode {
        Mode::Tcp { host, port } => format!("TCP, local service {host}:{port}"),
        Mode::Command(_) => "command, the AI agents of this machine".to_owned(),
    };
    say(&format!("arpc {}", env!("CARGO_PKG_VERSION")));
    say(&format!("Client id:  {}", config.client_id.as_str()));
    say(&format!("Mode:       {mode}"));
    if config.relay {
        say(&format!("Relay:      {} (connecting)", config.server.host));
    }
    if let Some(tunnel) = &config.tunnel {
        say(&format!("Tunnel:     {} (connecting)", tunnel.backend));
    }
}

/// Prints where visitors go, with a QR code if that is wanted and a person is looking.
pub fn registered(config: &Config, names: &Names, public: &Public, qr: bool) {
    say(&format!("Registered with the relay at {}.", config.server.host));
    let (tokens, id_token) = names.current();
    let id = id_token.then(|| config.client_id.as_str());
    let mut urls = id
        .into_iter()
        .chain(tokens.iter().map(Token::as_str))
        .map(|t| config.public_url(public, t));
    let Some(url) = urls.next() else {
        say("No visitor can come in: there is no token (--no-id-token). `arpc tokens add` makes one.");
        return;
    };
    say(&format!("Public URL: {url}"));
    for url in urls {
        say(&format!("            {url}"));
    }
    if qr {
        self::qr(&url);
    }
}

/// Prints that the tunnel is up, or that its address changed.
pub fn tunnel(url: &str, before: Option<&str>, qr: bool) {
    if let Some(before) = before {
        say(&format!("Your address changed; it was {before}"));
    }
    say(&format!("Public URL: {url}"));
    if qr {
        self::qr(url);
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

/// A closed standard output (`arpc | head`) is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
