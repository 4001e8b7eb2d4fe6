//! ngrok, by its agent of version 3.

use super::{Local, Running, free_port, write_private};
use crate::config::Ngrok as Config;
use crate::defaults as d;
use crate::program::{Program, Seen, Start};
use crate::{Backend, Change, Check, Tunnel, TunnelError, TunnelHealth, TunnelInfo, TunnelStatus, find, get};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// A tunnel through ngrok.
pub struct Ngrok {
    config: Config,
    local: Arc<Local>,
    running: Running,
    web: u16,
}

impl Ngrok {
    pub(super) fn new(config: Config, local: Arc<Local>) -> Self {
        Self {
            config,
            local,
            running: Running::default(),
            web: 0,
        }
    }

    async fn bring_up(&mut self) -> Result<TunnelInfo, TunnelError> {
        available(&self.config)?;
        let program = find::program(Backend::Ngrok, "ngrok", self.config.bin.as_deref())?;
        self.web = match self.config.inspect_port {
            Some(port) => port,
            None => free_port()?,
        };
        let mut args: Vec<String> = vec!["http".into(), self.local.front.to_string()];
        // The agent reads all files that are named; ours only says where its API is.
        let own = own_config();
        let version = own.as_ref().map_or(2, |(_, text)| version(text));
        let ours = match version {
            3 => format!("version: \"3\"\nagent:\n  web_addr: 127.0.0.1:{}\n", self.web),
            _ => format!("version: \"2\"\nweb_addr: 127.0.0.1:{}\n", self.web),
        };
        let ours = write_private(&self.local, "ngrok.yml", &ours)?;
        for file in own.iter().map(|(path, _)| path).chain([&ours]) {
            args.extend(["--config".into(), file.to_string_lossy().into_owned()]);
        }
        if let Some(domain) = &self.config.domain {
            args.extend(["--url".into(), format!("https://{domain}")]);
        }
        if !self.config.inspect {
            args.push("--inspect=false".into());
        }
        args.extend(["--log", "stdout", "--log-format", "json"].map(str::to_owned));
        let mut start = Start::new(Backend::Ngrok, program, args, &self.local.run_dir, Box::new(read));
        if let Some(token) = &self.config.authtoken {
            start.env.push(("NGROK_AUTHTOKEN", token.expose().into()));
        }
        let program = Program::start(&self.local.launcher, start, &self.local.log).await?;
        let program = self.running.program.insert(program);
        let url = program
            .until(d::START, "open its tunnel", |seen| seen.url.clone())
            .await?;
        Ok(TunnelInfo::new(Backend::Ngrok, url, self.local.local_port))
    }
}

impl Tunnel for Ngrok {
    fn backend(&self) -> Backend {
        Backend::Ngrok
    }

    async fn start(&mut self) -> Result<TunnelInfo, TunnelError> {
        self.running.begin().await?;
        let started = self.bring_up().await;
        self.running.came_up(started).await
    }

    async fn stop(&mut self) -> Result<(), TunnelError> {
        self.running.end().await
    }

    async fn health_check(&self) -> Result<TunnelHealth, TunnelError> {
        self.running.running()?;
        let TunnelStatus::Connected(info) = &self.running.status else {
            return Ok(TunnelHealth::of(
                self.running.process(),
                Check::Unknown("not up yet".into()),
            ));
        };
        let ask = format!("http://127.0.0.1:{}/api/tunnels", self.web);
        let backend = match get::get(&ask, &[], d::READINESS).await {
            Ok(answer) => {
                let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                if urls(&told).any(|url| url == info.public_url) {
                    Check::Good("the ngrok agent has the tunnel open".into())
                } else {
                    Check::Bad("the ngrok agent has the tunnel no more".into())
                }
            }
            Err(why) => Check::Bad(format!("the ngrok agent does not answer: {why}")),
        };
        Ok(TunnelHealth::of(self.running.process(), backend))
    }

    fn status(&self) -> TunnelStatus {
        self.running.status.clone()
    }

    async fn changed(&mut self) -> Change {
        self.running.changed().await
    }
}

fn urls(told: &Value) -> impl Iterator<Item = &str> {
    let tunnels = told["tunnels"].as_array().into_iter().flatten();
    tunnels.filter_map(|tunnel| tunnel["public_url"].as_str())
}

/// Takes what a line of the agent's log tells: JSON, or plain words when it ends.
fn read(seen: &mut Seen, line: &str) {
    let json: Option<Value> = serde_json::from_str(line).ok();
    if let Some(json) = &json
        && json["msg"] == "started tunnel"
        && let Some(url) = json["url"].as_str().filter(|url| url.starts_with("https://"))
    {
        seen.url = Some(url.to_owned());
        seen.complaint = None;
    }
    let Some(code) = code(line) else { return };
    let words = json
        .as_ref()
        .and_then(|json| json["err"].as_str())
        .unwrap_or(line)
        .split("ERR_NGROK_")
        .next()
        .unwrap_or_default()
        .trim_start_matches("ERROR:")
        .trim();
    let text = match words {
        "" => format!("ngrok refuses (ERR_NGROK_{code})"),
        words => format!("ngrok refuses (ERR_NGROK_{code}): {words}"),
    };
    let more = format!("https://ngrok.com/docs/errors/err_ngrok_{code}");
    let fix = match code {
        105 | 107 | 4018 => "set NGROK_AUTHTOKEN to the token of your account (https://dashboard.ngrok.com)",
        108 => "another ngrok agent of this account runs: stop it (https://dashboard.ngrok.com/agents)",
        120 | 121 => "the ngrok agent is too old: `ngrok update`",
        324 => "the account has no room for another endpoint: stop one of the others",
        334 => "something else serves this domain: stop it, or choose another domain in [tunnel.ngrok]",
        // The visitor's trouble, or one that passes; neither ends the agent.
        3200 | 8012 => return,
        _ => {
            seen.complaint = Some(TunnelError::passing(text).with_fix(more));
            return;
        }
    };
    // The code may come a line after the words: the first text is the better one.
    if seen.fatal.is_none() {
        seen.fatal = Some(TunnelError::fatal(text, format!("{fix}; {more}")));
    }
}

/// The number of `ERR_NGROK_…`.
fn code(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("ERR_NGROK_")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// The agent's own configuration, which may hold its token.
fn own_config() -> Option<(PathBuf, String)> {
    let home = std::env::home_dir()?;
    let config_home = std::env::var_os("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
    let places = if cfg!(target_os = "macos") {
        vec![
            home.join("Library/Application Support/ngrok/ngrok.yml"),
            home.join(".ngrok2/ngrok.yml"),
        ]
    } else if cfg!(windows) {
        vec![
            PathBuf::from(std::env::var_os("LOCALAPPDATA")?)
                .join("ngrok")
                .join("ngrok.yml"),
        ]
    } else {
        vec![
            config_home.join("ngrok/ngrok.yml"),
            home.join(".ngrok2/ngrok.yml"),
        ]
    };
    places.into_iter().find_map(|path| {
        let text = arp_common::private::read(&path, d::ANSWER).ok()?;
        Some((path, String::from_utf8_lossy(&text).into_owned()))
    })
}

fn version(text: &str) -> u8 {
    let line = text.lines().find_map(|line| line.strip_prefix("version:"));
    match line.map(|value| value.trim().trim_matches(['"', '\''])) {
        Some("3") => 3,
        _ => 2,
    }
}

/// What must be there before it can be started.
pub(super) fn available(config: &Config) -> Result<String, TunnelError> {
    find::program(Backend::Ngrok, "ngrok", config.bin.as_deref())?;
    let token =
        config.authtoken.is_some() || own_config().is_some_and(|(_, text)| text.contains("authtoken"));
    if !token {
        return Err(TunnelError::fatal(
            "ngrok has no authtoken",
            "set NGROK_AUTHTOKEN to the token of your account (https://dashboard.ngrok.com)",
        ));
    }
    Ok("ngrok is installed, and there is an authtoken".into())
}

#[cfg(test)]
mod tests {
    use super::super::seen_in;
    use super::*;
    use crate::Retry;

    #[test]
    fn the_address_is_that_of_the_started_tunnel() {
        let seen = seen_in(read, include_str!("../../fixtures/ngrok.jsonl"));
        assert_eq!(seen.url.as_deref(), Some("https://my-agent.ngrok-free.app"));
        assert_eq!((seen.fatal, seen.complaint), (None, None));
    }

    #[test]
    fn fatal_codes_are_the_end_and_say_what_to_do() {
        for (code, part) in [
            (105, "NGROK_AUTHTOKEN"),
            (4018, "NGROK_AUTHTOKEN"),
            (108, "another"),
            (121, "update"),
            (334, "domain"),
        ] {
            for line in [
                format!(
                    r#"{{"err":"authentication failed: no.\r\n\r\nERR_NGROK_{code}\r\n","lvl":"eror","msg":"session closing"}}"#
                ),
                format!("ERROR:  ERR_NGROK_{code}"),
            ] {
                let fatal = seen_in(read, &line).fatal.unwrap();
                assert_eq!(fatal.retry, Retry::Never);
                assert!(fatal.fix.unwrap().contains(part), "{code}");
            }
        }
        for passing in ["ERR_NGROK_3200", "ERR_NGROK_8012", "ERR_NGROK_999"] {
            assert!(seen_in(read, passing).fatal.is_none());
        }
        let seen = seen_in(read, include_str!("../../fixtures/ngrok-bad-token.jsonl"));
        assert!(seen.fatal.unwrap().message.contains("authentication failed"));
    }

    #[test]
    fn our_file_speaks_the_version_of_theirs() {
        assert_eq!(
            (
                version("version: \"3\"\n"),
                version("version: '2'"),
                version("authtoken: x")
            ),
            (3, 2, 2)
        );
    }
}
