//! arps: parses, wires and runs.

use anyhow::Context;
use arp_common::settings::{ConfigError, EXIT_USAGE, with_causes};
use arps::admin::ask::AskError;
use arps::cli::ActionError;
use arps::config::{Cli, Config, Settings};
use arps::reload::Load;
use arps::server::Relay;
use arps::{VERSION, cli, config};
use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("arps: {}", with_causes(e.as_ref()));
            if e.is::<ConfigError>() {
                ExitCode::from(EXIT_USAGE)
            } else if matches!(e.downcast_ref(), Some(ActionError::Ask(AskError::NotRunning(_)))) {
                ExitCode::from(cli::EXIT_NOT_RUNNING)
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
    let (given, path) = (cli.settings.clone(), cli.config.clone());
    let settings = cli.settings.or(file);
    if let Some(action) = &cli.action {
        let dir = config::data_dir_of_command(settings.data_dir);
        print!("{}", cli::run(action, &dir)?);
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::new(settings)?;
    if cli.check_config {
        config.try_files()?;
        println!("arps: the configuration is good");
        return Ok(ExitCode::SUCCESS);
    }
    arp_common::logging::init(config.log_format, None).context("cannot start logging")?;
    arp_common::net::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let load = move || {
            let file = path
                .as_deref()
                .map_or(Ok(Settings::default()), Settings::from_file)?;
            let config = Config::new(given.clone().or(file))?;
            config.try_tls()?;
            Ok(config)
        };
        let relay = Relay::bind(config.clone())?.reloading_with(Load::new(load));
        notices(&config);
        let at = relay.addresses()?;
        let stop = arp_common::shutdown::on_signal()?;
        println!("Fingerprint of this relay's key: {}", relay.fingerprint());
        println!(
            "arps {} is up: control {}, proxy {}, public {}",
            VERSION, at.control, at.proxy, at.public
        );
        if let Some(admin) = at.admin {
            let own = config.admin.as_ref().is_none_or(|a| a.key.is_none());
            let key = if own {
                format!(" (key: {})", config.data_dir.join("admin-key").display())
            } else {
                String::new()
            };
            println!("Admin page: http://{admin}/{key}");
        }
        relay.run(stop).await.context("the relay failed")?;
        Ok(ExitCode::SUCCESS)
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
    if config.admin.as_ref().is_some_and(|a| !a.bind.is_loopback()) {
        tracing::warn!(
            "--admin-bind: the admin port is open to other machines and speaks plain HTTP; put a proxy that does TLS, or \
             a firewall, in front"
        );
    }
    if config.allow_plaintext {
        tracing::warn!(
            "--allow-plaintext: edge agents may come without TLS; what they carry can be read on the way, and \
             their names are bound to no key"
        );
    }
}
