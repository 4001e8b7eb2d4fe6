//! arpc-session-host: the session host as a program of its own, because there is one for each session. It links what it
//! needs of `arpc` and no more, and keeps the system's allocator, which takes less for one thread.

// Not arpc's library: it would take part in the link, with all that it needs.
use arp_sessions::host::{OTHER_PROTOCOL, PROTOCOL, host_main};
use std::process::ExitCode;

/// As arpc says its own.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ARP_COMMIT"), ")");

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.as_slice() {
        [asked] if *asked == *PROTOCOL.to_string() => host_main(),
        [asked] if asked == "--version" => {
            println!("arpc-session-host {VERSION}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("arpc-session-host: arpc starts it for each session, for protocol {PROTOCOL}");
            ExitCode::from(OTHER_PROTOCOL)
        }
    }
}
