//! `prx`: the tunnel commands that its users know, carried out by `arpc`.

use arp_shims::become_arpc;
use std::ffi::OsString;
use std::process::ExitCode;

const USAGE: &str = "prx: the tunnels of arpc under the name that you know

  prx tunnel start [--backend cloudflare|tailscale|ngrok|bore|custom|auto]
  prx tunnel status | stop | health | list
  prx start                                  the same as prx tunnel start

Everything else is in arpc: see arpc --help. Settings are read with --config FILE or --tunnel-config FILE
([tunnel] and its tables), or ARPC_TUNNEL_CONFIG=FILE.";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let first = args.next().unwrap_or_default();
    let rest = args.collect::<Vec<OsString>>();
    let prefix: &[&str] = match first.to_str() {
        Some("tunnel") => &["tunnel"],
        Some("start" | "stop" | "status" | "health") => &["tunnel", first.to_str().unwrap_or_default()],
        Some("--version" | "-V") => &["--version"],
        Some("" | "help" | "--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        // Settings that come before the command.
        Some(flag) if flag.starts_with("--config") || flag.starts_with("--tunnel-config") => &[],
        _ => {
            eprintln!("prx: there is no {} here\n\n{USAGE}", first.to_string_lossy());
            return ExitCode::from(2);
        }
    };
    let mut all: Vec<OsString> = prefix.iter().map(OsString::from).collect();
    if prefix.is_empty() {
        all.push(first);
    }
    all.extend(rest);
    become_arpc("prx", all)
}
