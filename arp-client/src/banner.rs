//! What `arpc` prints for a person: who it is, what it serves, where it is reached.

use crate::config::{Config, Mode, Public};
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
    say(&format!("Relay:      {} (connecting)", config.server.host));
}

/// Prints where visitors go, with a QR code if that is wanted and a person is looking.
pub fn registered(config: &Config, public: &Public, qr: bool) {
    let url = config.public_url(public, config.client_id.as_str());
    say(&format!("Registered with the relay at {}.", config.server.host));
    say(&format!("Public URL: {url}"));
    for token in &config.tokens {
        say(&format!(
            "            {}",
            config.public_url(public, token.as_str())
        ));
    }
    if qr
        && std::io::stdout().is_terminal()
        && let Ok(code) = qrcode::QrCode::with_error_correction_level(&url, qrcode::EcLevel::L)
    {
        say(&code.render::<Dense1x2>().quiet_zone(true).build());
    }
}

/// A closed standard output (`arpc | head`) is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
