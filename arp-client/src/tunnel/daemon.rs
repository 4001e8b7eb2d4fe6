//! The tunnel of the daemon itself (`arpc --command-mode --tunnel …`), beside its link to a relay or in place of it.

use super::{DEFAULT, Instance, Open, OpenError};
use crate::banner;
use crate::config::{Config, Mode};
use crate::serving::CommandMode;
use crate::tokens::Names;
use arp_common::ids::Token;
use arp_tunnels::{Target, TunnelStatus};
use tokio_util::sync::CancellationToken;

/// Opens it, if the settings want one, and keeps it until `stop`. One that has to be given up ends the daemon, by
/// `stop`, only where there is no relay: nobody could come in any more.
///
/// # Errors
/// Why it was given up, where that ends the daemon.
pub async fn run(
    config: &Config,
    names: &Names,
    command: Option<&CommandMode>,
    stop: CancellationToken,
) -> Result<(), OpenError> {
    let Some(settings) = &config.tunnel else {
        return Ok(());
    };
    let target = match (&config.mode, command) {
        (Mode::Command(_), Some(mode)) => Target::Service(mode.visitors()),
        // One that is not there is refused with the settings.
        (Mode::Command(_), None) | (Mode::Services, _) => return Ok(()),
        (Mode::Tcp { host, port }, _) => Target::Port {
            host: host.clone(),
            port: *port,
        },
    };
    let token = command.and_then(|_| token(config, names));
    let open = Open {
        config: settings.clone(),
        target,
        guarded: command.is_some(),
        query: token.as_ref().map(|token| format!("token={token}")),
        name: DEFAULT.into(),
        data_dir: std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone()),
        client_id: config.client_id.as_str().to_owned(),
    };
    let result = keep(open, command, token.as_deref(), config.qr, stop.clone()).await;
    match result {
        Err(error) if config.relay => {
            tracing::error!("the tunnel is given up; the relay goes on: {error}");
            Ok(())
        }
        Err(error) => {
            stop.cancel();
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

async fn keep(
    open: Open,
    command: Option<&CommandMode>,
    token: Option<&str>,
    qr: bool,
    stop: CancellationToken,
) -> Result<(), OpenError> {
    // Looking for a backend takes a while, and may be interrupted.
    let opened = tokio::select! {
        opened = Instance::open(open, stop.clone()) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    let mut instance = opened;
    if let Some(mode) = command {
        mode.show_tunnel(instance.handle());
    }
    let mut view = instance.handle().watch();
    let mut shown: Option<String> = None;
    loop {
        let url = match &view.borrow_and_update().status {
            TunnelStatus::Connected(info) => Some(info.public_url.clone()),
            _ => None,
        };
        if let Some(url) = url.filter(|url| shown.as_ref() != Some(url)) {
            banner::tunnel(&url, token, shown.as_deref(), qr);
            shown = Some(url);
        }
        tokio::select! {
            ended = instance.ended() => return ended.map_err(OpenError::Tunnel),
            changed = view.changed() => if changed.is_err() {
                return instance.ended().await.map_err(OpenError::Tunnel);
            },
        }
    }
}

/// A token for the URL that is shown.
fn token(config: &Config, names: &Names) -> Option<String> {
    let (tokens, id) = names.of_console();
    id.then(|| config.client_id.as_str().to_owned())
        .or_else(|| tokens.first().map(Token::as_str).map(str::to_owned))
}
