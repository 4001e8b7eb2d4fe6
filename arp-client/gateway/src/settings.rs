//! `gateway.toml`: what CLP has no file for.

use crate::files::routes::fits;
use crate::files::{self, FileError};
use crate::redact::{self, Redaction};
use crate::service::Service;
use crate::usage::bodies::Recording;
use crate::usage::budgets::Budget;
use crate::usage::prices::{Own, Price};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

/// The file. Unknown names are faults, so that a typing error is not silently ignored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Texts in an error's body that send a request to the next upstream, whatever the status.
    pub failover_texts: Vec<String>,
    /// What is particular to one upstream: `[upstream.claude.NAME]`.
    pub upstream: PerService,
    /// What upstreams are not to see.
    pub redaction: redact::Settings,
    /// A person's own prices, by model or pattern: `[price."glm-*"]`.
    pub price: BTreeMap<String, Price>,
    /// Which model is asked for in place of which, beyond what CLP's file can say: `[[route]]`.
    pub route: Vec<Route>,
    /// Limits on what is spent: `[[budget]]`.
    pub budget: Vec<Budget>,
    /// Whether bodies of requests are kept to be looked at.
    pub recording: Recording,
    /// What is particular to Codex.
    pub codex: Codex,
    /// `redaction`, ready to be used.
    #[serde(skip)]
    pub redact: Redaction,
    /// `price`, exact names first.
    #[serde(skip)]
    pub prices: Own,
}

/// `[codex]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Codex {
    /// Is Codex's WebSocket served? Off: it is told to use HTTP.
    pub websocket: bool,
}

/// One `[[route]]`: the first that fits counts, before CLP's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Only this service.
    pub service: Option<String>,
    /// Only models that fit this pattern.
    pub model: Option<String>,
    /// Only requests of a sub-agent (`sub`), or only those of none (`main`); or of this class, as Claude Code names it.
    pub agent: Option<String>,
    /// The upstream that is asked first.
    pub upstream: Option<String>,
    /// Models that are asked for instead: the next one when all upstreams have failed with the one before.
    pub to: Vec<String>,
}

impl Route {
    /// Is it for a request of this kind?
    #[must_use]
    pub fn fits(&self, service: Service, model: &str, sub_agent: bool, class: Option<&str>) -> bool {
        let agent = match self.agent.as_deref() {
            None => true,
            Some("sub") => sub_agent,
            Some("main") => !sub_agent,
            other => other == class,
        };
        agent
            && self.service.as_deref().is_none_or(|name| name == service.name())
            && self.model.as_deref().is_none_or(|pattern| fits(pattern, model))
    }
}

/// One table a service, by the upstream's name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerService {
    claude: HashMap<String, Network>,
    codex: HashMap<String, Network>,
    gemini: HashMap<String, Network>,
}

/// How an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// `http://`, `https://`, `socks5://` or `socks5h://` proxy, or `none` to ignore the system's.
    pub proxy: Option<String>,
    /// PEM file with authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Seconds to connect.
    pub connect_timeout_secs: u64,
    /// Seconds until the head of the answer.
    pub first_byte_timeout_secs: u64,
    /// Seconds of silence after which a stream counts as broken.
    pub idle_timeout_secs: u64,
    /// Does it speak WebSocket, so that turns that come over one go on over one? Of Codex only.
    pub websocket: bool,
    /// Header fields to add or replace.
    pub headers: std::collections::BTreeMap<String, String>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            proxy: None,
            ca_file: None,
            websocket: false,
            // A relay site on another continent answers a SYN in under a second; what takes longer is down.
            connect_timeout_secs: 10,
            // Long prompts with deep reasoning were seen to take minutes before the first byte.
            first_byte_timeout_secs: 300,
            // Above the agents' own 300 s they have given up themselves.
            idle_timeout_secs: 280,
            headers: std::collections::BTreeMap::new(),
        }
    }
}

impl Network {
    /// Time to connect.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_secs.max(1))
    }

    /// Time until the head of the answer.
    #[must_use]
    pub fn first_byte_timeout(&self) -> Duration {
        Duration::from_secs(self.first_byte_timeout_secs.max(1))
    }

    /// Silence after which a stream counts as broken.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_secs.max(1))
    }
}

impl Settings {
    /// How an upstream is reached.
    #[must_use]
    pub fn network(&self, service: Service, upstream: &str) -> &Network {
        static USUAL: LazyLock<Network> = LazyLock::new(Network::default);
        let table = match service {
            Service::Claude => &self.upstream.claude,
            Service::Codex => &self.upstream.codex,
            Service::Gemini => &self.upstream.gemini,
        };
        table.get(upstream).unwrap_or(&USUAL)
    }

    /// Parses the file's text.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let mut settings: Self = toml::from_str(text).map_err(|e: toml::de::Error| {
            let at = e.span().map_or(0, |span| span.start);
            let before = text.get(..at).unwrap_or_default();
            FileError::Syntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.len() - before.rfind('\n').map_or(0, |n| n + 1) + 1,
                message: e.message().to_owned(),
            }
        })?;
        let wrong = |message| FileError::Access {
            path: path.to_owned(),
            message,
        };
        settings.redact = Redaction::new(&settings.redaction).map_err(wrong)?;
        let fault = settings.budget.iter().find_map(Budget::fault);
        if let Some(fault) = fault.or_else(|| settings.recording.fault()) {
            return Err(wrong(fault));
        }
        if let Some(route) = settings
            .route
            .iter()
            .find(|r| r.to.is_empty() && r.upstream.is_none())
        {
            return Err(wrong(format!(
                "a [[route]] leads nowhere (to, upstream): {route:?}"
            )));
        }
        if let Some((model, fault)) = settings
            .price
            .iter()
            .find_map(|(model, price)| Some((model, price.fault()?)))
        {
            return Err(wrong(format!("price {model:?}: {fault}")));
        }
        settings.prices = settings
            .price
            .iter()
            .map(|(name, price)| (name.clone(), *price))
            .collect();
        // An exact name goes before a pattern that it fits.
        settings.prices.sort_by_key(|(name, _)| name.contains(['*', '?']));
        Ok(settings)
    }
}

/// Changes the file: what is not touched stays as it was written, comments too.
///
/// # Errors
/// When it cannot be used as it is (it is left alone then), or what comes out would not be understood.
pub fn change(
    path: &Path,
    edit: impl FnOnce(&mut toml_edit::DocumentMut) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let text = files::read(path)?.unwrap_or_default();
    Settings::parse(path, &text)?;
    let wrong = |message: String| FileError::Access {
        path: path.to_owned(),
        message,
    };
    let mut file: toml_edit::DocumentMut = text
        .parse()
        .map_err(|e: toml_edit::TomlError| wrong(e.to_string()))?;
    edit(&mut file)?;
    let text = file.to_string();
    Settings::parse(path, &text)?;
    files::write(path, &text)
}

/// Changes whether bodies are kept, and how many.
///
/// # Errors
/// As [`change`].
pub fn set_recording(path: &Path, recording: Recording) -> Result<(), FileError> {
    change(path, |file| {
        file.insert("recording", toml_edit::Item::Table(table(&recording)?));
        Ok(())
    })
}

/// A value as a table of the file.
///
/// # Errors
/// When it cannot be one.
pub fn table(value: &impl serde::Serialize) -> Result<toml_edit::Table, FileError> {
    let wrong = |message: String| FileError::Access {
        path: PathBuf::from("gateway.toml"),
        message,
    };
    let text = toml::to_string(value).map_err(|e| wrong(e.to_string()))?;
    let document: toml_edit::DocumentMut = text
        .parse()
        .map_err(|e: toml_edit::TomlError| wrong(e.to_string()))?;
    Ok(document.into_table())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_go_by_model_and_agent() {
        let path = Path::new("gateway.toml");
        let text = "[[route]]\nservice = \"claude\"\nagent = \"sub\"\nto = [\"small\", \"smaller\"]\n";
        let settings = Settings::parse(path, text).unwrap();
        let fits = |service, sub| settings.route[0].fits(service, "m", sub, None);
        assert!(fits(Service::Claude, true) && !fits(Service::Claude, false) && !fits(Service::Codex, true));
        assert!(Settings::parse(path, "[[route]]\nmodel = \"x\"\n").is_err());
        let class = Route {
            agent: Some("compaction".into()),
            model: Some("a*".into()),
            ..Route::default()
        };
        assert!(
            class.fits(Service::Claude, "ab", false, Some("compaction"))
                && !class.fits(Service::Claude, "b", false, Some("compaction"))
        );
    }

    #[test]
    fn a_change_leaves_all_else_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.toml");
        std::fs::write(
            &path,
            "# mine\nfailover_texts = [ \"x\" ]\n\n[redaction]\nwords = [\"old.example\"]\n",
        )
        .unwrap();
        let redaction = redact::Settings {
            presets: vec!["mails".into()],
            ..redact::Settings::default()
        };
        change(&path, |file| {
            file.insert("redaction", toml_edit::Item::Table(table(&redaction)?));
            Ok(())
        })
        .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# mine\nfailover_texts = [ \"x\" ]\n"), "{text}");
        assert_eq!(Settings::parse(&path, &text).unwrap().redaction, redaction);
        std::fs::write(&path, "broken").unwrap();
        assert!(change(&path, |_| Ok(())).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "broken");
    }

    #[test]
    fn what_is_not_given_has_a_default_and_typing_errors_are_told() {
        let path = Path::new("gateway.toml");
        let settings = Settings::parse(
            path,
            "[upstream.claude.\"my relay\"]\nproxy = \"socks5://127.0.0.1:1080\"\nheaders = { X-Team = \"a\" }\n",
        )
        .unwrap();
        let network = settings.network(Service::Claude, "my relay");
        assert_eq!(network.proxy.as_deref(), Some("socks5://127.0.0.1:1080"));
        assert_eq!(network.connect_timeout_secs, 10);
        assert_eq!(*settings.network(Service::Codex, "my relay"), Network::default());
        let error = Settings::parse(path, "\n[upstream.claude.x]\nproxi = \"a\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("gateway.toml:3:1: unknown field `proxi`"),
            "{error}"
        );
    }
}
