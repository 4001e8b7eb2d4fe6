//! arps: parses, wires and runs.

use anyhow::Context;
use arp_common::settings::{ConfigError, EXIT_USAGE};
use arps::config::{Cli, Config, Settings};
use arps::server::Relay;
use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("arps: {e:#}");
            if e.is::<ConfigError>() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    let file = match &cli.config {
        Some(path) => Settings::from_file(path)?,
        None => Settings::default(),
    };
    let config = Config::new(cli.settings.or(file))?;
    if cli.check_config {
        println!("arps: the configuration is good");
        return Ok(());
    }
    arp_common::logging::init(None).context("cannot start logging")?;
    arp_common::net::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let relay = Relay::bind(config)?;
        let at = relay.addresses()?;
        let stop = arp_common::shutdown::on_signal()?;
        println!(
            "arps {} is up: control {}, proxy {}, public {}",
            env!("CARGO_PKG_VERSION"),
            at.control,
            at.proxy,
            at.public
        );
        relay.run(stop).await.context("the relay failed")
    })
}
