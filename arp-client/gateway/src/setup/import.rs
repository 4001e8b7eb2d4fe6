//! What the agents are set to now, as upstreams.

use super::{Folders, claude, gemini, is_ours};
use crate::files;
use crate::secret::Secret;
use crate::service::Service;
use toml_edit::{DocumentMut, Item};

/// An upstream that an agent uses.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Whose.
    pub service: Service,
    /// A name for it: the provider's, else the host's.
    pub name: String,
    /// Where it is.
    pub base_url: String,
    /// Sent as bearer.
    pub auth_token: Option<Secret>,
    /// Sent as key.
    pub api_key: Option<Secret>,
    /// Is it the one in use?
    pub active: bool,
}

fn host(url: &str) -> String {
    let host = url
        .parse::<reqwest::Url>()
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_else(|| "imported".to_owned())
}

fn secret(text: Option<String>) -> Option<Secret> {
    text.filter(|text| !text.is_empty() && text != "-")
        .map(Secret::new)
}

/// Everything that is found in the agents' settings, except what leads to this machine.
#[must_use]
pub fn candidates(folders: &Folders) -> Vec<Candidate> {
    let mut all = Vec::new();
    let read = |path: std::path::PathBuf| files::read(&path).ok().flatten().unwrap_or_default();
    // Settings that lead to the gateway by now have what was there before beside them.
    let both = |path: std::path::PathBuf| [read(path.clone()), read(super::backup_of(&path))];

    for text in both(folders.claude.join("settings.json")) {
        let env = |name: &str| claude::value(&text, &["env", name]);
        let (token, key) = (
            secret(env("ANTHROPIC_AUTH_TOKEN")),
            secret(env("ANTHROPIC_API_KEY")),
        );
        let url = env("ANTHROPIC_BASE_URL").unwrap_or_else(|| "https://api.anthropic.com".to_owned());
        if (token.is_some() || key.is_some()) && !is_ours(&url) {
            all.push(Candidate {
                service: Service::Claude,
                name: host(&url),
                base_url: url,
                auth_token: token,
                api_key: key,
                active: true,
            });
        }
    }

    let auth: serde_json::Value =
        serde_json::from_str(&read(folders.codex.join("auth.json"))).unwrap_or_default();
    let own_key = auth["OPENAI_API_KEY"].as_str().map(str::to_owned);
    for text in both(folders.codex.join("config.toml")) {
        let file: DocumentMut = text.parse().unwrap_or_default();
        let chosen = file
            .get("model_provider")
            .and_then(Item::as_str)
            .unwrap_or("openai");
        let providers = file.get("model_providers").and_then(Item::as_table_like);
        for (name, provider) in providers.into_iter().flat_map(|all| all.iter()) {
            let text = |field: &str| provider.get(field).and_then(Item::as_str).map(str::to_owned);
            let Some(url) = text("base_url").filter(|url| !is_ours(url)) else {
                continue;
            };
            let key = text("env_key").and_then(|name| std::env::var(name).ok());
            let key = secret(
                key.or_else(|| text("experimental_bearer_token"))
                    .or_else(|| own_key.clone()),
            );
            if key.is_some() {
                all.push(Candidate {
                    service: Service::Codex,
                    name: name.to_owned(),
                    base_url: url,
                    auth_token: key,
                    api_key: None,
                    active: name == chosen,
                });
            }
        }
        let url = file
            .get("openai_base_url")
            .and_then(Item::as_str)
            .unwrap_or("https://api.openai.com/v1");
        if let Some(key) = secret(own_key.clone())
            && !is_ours(url)
            && !text.is_empty()
        {
            all.push(Candidate {
                service: Service::Codex,
                name: host(url),
                base_url: url.to_owned(),
                auth_token: Some(key),
                api_key: None,
                active: chosen == "openai",
            });
        }
    }

    for text in both(folders.gemini.join(".env")) {
        let url = gemini::value(&text, "GOOGLE_GEMINI_BASE_URL")
            .unwrap_or_else(|| "https://generativelanguage.googleapis.com".to_owned());
        if let Some(key) = secret(gemini::value(&text, "GEMINI_API_KEY"))
            && !is_ours(&url)
        {
            all.push(Candidate {
                service: Service::Gemini,
                name: host(&url),
                base_url: url,
                auth_token: None,
                api_key: Some(key),
                active: true,
            });
        }
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|candidate| seen.insert((candidate.service, candidate.name.clone())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_agents_use_is_found_and_the_gateway_itself_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders {
            claude: dir.path().join("claude"),
            codex: dir.path().join("codex"),
            gemini: dir.path().join("gemini"),
        };
        for dir in [&folders.claude, &folders.codex, &folders.gemini] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(
            folders.claude.join("settings.json"),
            r#"{"env":{"ANTHROPIC_BASE_URL":"https://relay.example/a","ANTHROPIC_AUTH_TOKEN":"sk-1"}}"#,
        )
        .unwrap();
        std::fs::write(folders.codex.join("auth.json"), r#"{"OPENAI_API_KEY":"sk-2"}"#).unwrap();
        std::fs::write(
            folders.codex.join("config.toml"),
            "model_provider = \"r\"\n[model_providers.r]\nbase_url = \"https://r.example/v1\"\n[model_providers.local]\nbase_url = \"http://127.0.0.1:3211\"\n",
        )
        .unwrap();
        std::fs::write(
            folders.gemini.join(".env"),
            "GEMINI_API_KEY=-\nGOOGLE_GEMINI_BASE_URL=http://127.0.0.1:3212\n",
        )
        .unwrap();
        let found = candidates(&folders);
        let found: Vec<_> = found
            .iter()
            .map(|c| (c.service.name(), c.name.as_str(), c.active))
            .collect();
        assert_eq!(
            found,
            [
                ("claude", "relay.example", true),
                ("codex", "r", true),
                ("codex", "api.openai.com", false)
            ]
        );
    }
}
