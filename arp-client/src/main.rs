//! arpc: parses, wires and runs.

use anyhow::Context;
use arp_common::logging;
use arp_common::settings::{ConfigError, EXIT_USAGE};
use arpc::banner;
use arpc::config::{Cli, Config, Mode, Settings};
use arpc::forward::Forward;
use arpc::link::{Handler, Link};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("arpc: {e:#}");
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
    let config = Arc::new(Config::new(cli.settings.or(file))?);
    if cli.check_config {
        println!("arpc: the configuration is good");
        return Ok(());
    }
    let _guard = start_logging()?;
    arp_common::net::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = arp_common::shutdown::on_signal()?;
        banner::hello(&config);
        let handler = match &config.mode {
            Mode::Tcp { host, port } => Handler::Tcp(Forward::new(host, *port)),
            Mode::Command => anyhow::bail!("command mode is not part of this build"),
        };
        let mut first = true;
        let link = Link::new(config.clone(), Arc::new(handler));
        link.run(stop, |public| {
            if std::mem::take(&mut first) {
                banner::registered(&config, public, !cli.no_qr);
            } else {
                tracing::info!("registered again with the relay");
            }
        })
        .await?;
        Ok(())
    })
}

/// Logs to the terminal and to a daily file; where no file can be had, says so and goes on.
fn start_logging() -> anyhow::Result<Option<impl Drop>> {
    let dirs = directories::BaseDirs::new().map(|d| d.data_local_dir().join("arpc").join("logs"));
    let fallback = PathBuf::from("arpc/logs");
    for dir in dirs.iter().chain([&fallback]) {
        if let Ok(guard) = logging::init(Some((dir, "arpc.log"))) {
            return Ok(guard);
        }
    }
    let guard = logging::init(None).context("cannot start logging")?;
    let tried: Vec<&Path> = dirs
        .iter()
        .map(PathBuf::as_path)
        .chain([fallback.as_path()])
        .collect();
    tracing::warn!("cannot write log files in {tried:?}; logging to the terminal alone");
    Ok(guard)
}
