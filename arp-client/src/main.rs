//! arpc: parses, wires and runs.

use anyhow::Context;
use arp_common::logging;
use arp_common::settings::{ConfigError, EXIT_USAGE};
use arp_sessions::Leaving;
use arpc::banner;
use arpc::command::CommandMode;
use arpc::config::{Cli, Config, Mode, Settings, default_data_dir};
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
        Ok(code) => code,
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

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = match &cli.config {
        Some(path) => Settings::from_file(path)?,
        None => Settings::default(),
    };
    let settings = cli.settings.or(file);
    if let Some(command) = cli.command {
        let data_dir = settings.data_dir.clone().unwrap_or_else(default_data_dir);
        return Ok(command.run(&data_dir));
    }
    let config = Arc::new(Config::new(settings)?);
    if cli.check_config {
        println!("arpc: the configuration is good");
        return Ok(ExitCode::SUCCESS);
    }
    let _guard = start_logging()?;
    arp_common::net::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = arp_common::shutdown::on_signal()?;
        banner::hello(&config);
        let mut command = None;
        let handler = match &config.mode {
            Mode::Tcp { host, port } => Handler::Tcp(Forward::new(host, *port)),
            Mode::Command(settings) => {
                let mode = CommandMode::start((**settings).clone()).await?;
                command = Some(mode.clone());
                Handler::Command(mode)
            }
        };
        let mut first = true;
        let link = Link::new(config.clone(), Arc::new(handler));
        let ended = link
            .run(stop, |public| {
                if std::mem::take(&mut first) {
                    banner::registered(&config, public, !cli.no_qr);
                } else {
                    tracing::info!("registered again with the relay");
                }
            })
            .await;
        if let Some(mode) = command {
            mode.shutdown(Leaving::Park).await;
        }
        ended?;
        Ok(ExitCode::SUCCESS)
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
