//! arps: parses, wires and runs.

use anyhow::Context;
use arp_common::logging::LogFormat;
use arp_common::settings::{ConfigError, EXIT_USAGE, with_causes};
use arps::admin::ask::AskError;
use arps::cli::ActionError;
use arps::config::{Cli, Config, Settings};
use arps::reload::Load;
use arps::server::{Addresses, Relay};
use arps::{VERSION, cli, config};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("arps: {}", with_causes(e.as_ref()));
            code_of(&e)
        }
    }
}

fn code_of(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigError>() {
        ExitCode::from(EXIT_USAGE)
    } else if matches!(
        error.downcast_ref(),
        Some(ActionError::Ask(AskError::NotRunning(_)))
    ) {
        ExitCode::from(cli::EXIT_NOT_RUNNING)
    } else {
        ExitCode::FAILURE
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
    let served: anyhow::Result<()> = runtime.block_on(async {
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
        announce(&config, &relay.fingerprint().to_string(), &at);
        relay.run(stop).await.context("the relay failed")
    });
    match served {
        Err(e) if config.log_format == LogFormat::Json => {
            tracing::error!("{}", with_causes(e.as_ref()));
            Ok(code_of(&e))
        }
        served => served.map(|()| ExitCode::SUCCESS),
    }
}

/// Says what serves where: to people on standard output, to programs as a line of the log like all others.
fn announce(config: &Config, fingerprint: &str, at: &Addresses) {
    if config.log_format == LogFormat::Json {
        tracing::info!(
            version = VERSION,
            fingerprint,
            control = %at.control,
            proxy = %at.proxy,
            public = %at.public,
            admin = at.admin.map(tracing::field::display),
            "serving"
        );
        return;
    }
    let mut text = format!(
        "Fingerprint of this relay's key: {fingerprint}\narps {VERSION} is up: control {}, proxy {}, public {}\n",
        at.control, at.proxy, at.public
    );
    if let Some(admin) = at.admin {
        text.push_str(&format!("Admin page: http://{admin}/"));
        if config.admin.as_ref().is_none_or(|a| a.key.is_none()) {
            let key = config.data_dir.join("admin-key");
            text.push_str(&format!(" (key: {})", key.display()));
        }
        text.push('\n');
    }
    // A closed standard output (`arps | head`) is no reason to stop.
    let _ = std::io::stdout().write_all(text.as_bytes());
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
