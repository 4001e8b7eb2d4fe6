//! `arpc status`: how the running daemon does.

use crate::standing::Told;
use crate::tokens::local::{self, AskError};
use arp_common::ids::ClientId;
use std::fmt::Write as _;
use std::path::Path;

/// Exit code where no arpc runs; init scripts use it so.
const NOT_RUNNING: u8 = 3;

/// Prints it, and gives the exit code.
pub(super) async fn run(json: bool, data_dir: &Path, id: &ClientId) -> u8 {
    let told = match local::status(data_dir, id).await {
        Ok(told) => told,
        Err(AskError::NotRunning) => {
            if json {
                println!("{{\"running\":false}}");
            }
            eprintln!("arpc: {}", AskError::NotRunning);
            return NOT_RUNNING;
        }
        Err(e) => {
            eprintln!("arpc: {e}");
            return 1;
        }
    };
    if json {
        match serde_json::to_string(&told) {
            Ok(text) => println!("{text}"),
            Err(e) => {
                eprintln!("arpc: {e}");
                return 1;
            }
        }
    } else {
        print!("{}", in_words(&told));
    }
    // Without a relay there is nothing to be registered with.
    u8::from(told.registered == Some(false))
}

fn in_words(told: &Told) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<11} {value}");
    };
    let fixed = &told.fixed;
    line(
        "arpc",
        &format!(
            "{}, up {}, process {}",
            fixed.version,
            time(told.uptime),
            fixed.pid
        ),
    );
    line("serves", &fixed.serves);
    let Some(relay) = &fixed.relay else {
        line("relay", "none");
        return text;
    };
    line("relay", relay);
    match (told.since, &told.error) {
        (Some(since), _) => line("registered", &format!("for {}", time(since))),
        (None, Some(error)) => line("registered", &format!("NO: {error}")),
        (None, None) => line("registered", "not yet"),
    }
    if let Some(url) = &told.public_url {
        line("public URL", url);
    }
    line("tunnels", &format!("{} open", told.tunnels));
    text
}

fn time(s: u64) -> String {
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_it_is_not_registered_is_said() {
        let mut told = Told::default();
        assert!(in_words(&told).contains("relay       none"));
        told.fixed.relay = Some("relay.example:17001".into());
        told.error = Some("no such host".into());
        assert!(in_words(&told).contains("registered  NO: no such host"));
        told.since = Some(3700);
        assert!(in_words(&told).contains("registered  for 1 h 1 min"));
    }
}
