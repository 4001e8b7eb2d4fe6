//! The settings of a tunnel: from `[tunnel]` in a file and from flags to a [`TunnelConfig`].

use crate::settings::Settings;
use arp_tunnels::TunnelConfig;
use arp_tunnels::config::Overrides;
use std::path::Path;
use toml::Table;

/// Where the settings of a tunnel come from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The table `tunnel` of arpc's own file.
    table: Option<Table>,
    /// `--tunnel-config`.
    file: Option<std::path::PathBuf>,
}

impl Source {
    /// As these settings say.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            table: settings.tunnel.clone().map(|table| table.into_iter().collect()),
            file: settings.tunnel_config.clone(),
        }
    }

    /// Is there anything about tunnels?
    fn is_given(&self) -> bool {
        self.table.is_some() || self.file.is_some()
    }

    /// Reads them.
    ///
    /// # Errors
    /// All faults.
    pub fn read(&self, overrides: &Overrides) -> Result<TunnelConfig, Vec<String>> {
        let table = match (&self.file, &self.table) {
            (Some(file), _) => of_file(file).map_err(|fault| vec![fault])?,
            (None, Some(table)) => table.clone(),
            (None, None) => Table::new(),
        };
        TunnelConfig::read(table, overrides, &|name| std::env::var(name).ok())
    }
}

/// The table `tunnel` of a file; what else is in it is somebody else's.
fn of_file(path: &Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut file: Table = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    match file.remove("tunnel") {
        Some(toml::Value::Table(table)) => Ok(table),
        Some(_) => Err(format!("{}: tunnel must be a table", path.display())),
        None => Err(format!("{}: there is no table [tunnel]", path.display())),
    }
}

/// The tunnel that the daemon itself is to open, if it is to open one.
pub(crate) fn of_daemon(
    s: &Settings,
    local: Option<(&str, u16)>,
    faults: &mut Vec<String>,
) -> Option<TunnelConfig> {
    use arp_tunnels::Backend;
    let source = Source::new(s);
    let command_mode = local.is_none();
    // A local service has a tunnel only if the command line asks for one; the table alone is for `arpc tunnel`.
    if s.tunnel_backend.is_none() && !(command_mode && source.is_given()) {
        return None;
    }
    let overrides = Overrides {
        backend: s.tunnel_backend.clone(),
        local_host: local.map(|(host, _)| host.to_owned()),
        local_port: local.map(|(_, port)| port),
    };
    let named = s.tunnel_backend.as_deref().and_then(|name| name.parse().ok());
    if named == Some(Backend::Arp) {
        faults.push("--tunnel arp: a relay is what --server-addr is for; give that instead".into());
        return None;
    }
    let config = match source.read(&overrides) {
        Ok(config) => config,
        Err(told) => {
            faults.extend(told);
            return None;
        }
    };
    if config.backend == Backend::None || (s.tunnel_backend.is_none() && !config.auto_start) {
        return None;
    }
    if config.backend == Backend::Arp {
        faults.push(
            "[tunnel] backend = \"arp\": a relay is what --server-addr is for; give that instead".into(),
        );
    }
    if command_mode && config.basic_auth.is_some() {
        faults.push("[tunnel] basic_auth is for a local service; with --command-mode use --edge-key".into());
    }
    if s.require_auth.is_some() || s.require_key.is_some() {
        let hint = "use basic_auth in [tunnel]";
        faults.push(format!(
            "--require-auth and --require-key are for visitors through a relay; {hint}"
        ));
    }
    Some(config)
}
