//! arps: parses, wires and runs.

use anyhow::Context;
use arp_common::settings::{ConfigError, EXIT_USAGE, with_causes};
use arps::config::{Cli, Config, Settings};
use arps::server::Relay;
use arps::{cli, config};
use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("arps: {}", with_causes(e.as_ref()));
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
    let settings = cli.settings.or(file);
    if let Some(action) = &cli.action {
        let dir = config::data_dir(settings.data_dir);
        print!("{}", cli::run(action, &dir)?);
        return Ok(());
    }
    let config = Config::new(settings)?;
    if cli.check_config {
        config.try_files()?;
        println!("arps: the configuration is good");
        return Ok(());
    }
    arp_common::logging::init(None).context("cannot start logging")?;
    arp_common::net::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let relay = Relay::bind(config.clone())?;
        notices(&config);
        let at = relay.addresses()?;
        let stop = arp_common::shutdown::on_signal()?;
        println!("Fingerprint of this relay's key: {}", relay.fingerprint());
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

/// What an operator should know of the choices made.
fn notices(config: &Config) {
    if config.join_key.is_none() {
        tracing::warn!(
            "any edge agent may register here, and carry its traffic through this relay. To take only your own, \
             start it with --join-key-file FILE, and give arpc the same key"
        );
    }
    if config.allow_plaintext {
        tracing::warn!(
            "--allow-plaintext: edge agents may come without TLS; what they carry can be read on the way, and \
             their names are bound to no key"
        );
    }
}
