//! A command of the user's own that makes a tunnel.

use super::{Local, Running};
use crate::config::{Custom as Config, UrlSource};
use crate::defaults as d;
use crate::program::{Program, Seen, Start};
use crate::{Backend, Change, Check, Tunnel, TunnelError, TunnelHealth, TunnelInfo, TunnelStatus, find, get};
use std::path::Path;
use std::sync::Arc;

/// A tunnel by a command.
pub struct Custom {
    config: Config,
    local: Arc<Local>,
    running: Running,
}

impl Custom {
    pub(super) fn new(config: Config, local: Arc<Local>) -> Self {
        Self {
            config,
            local,
            running: Running::default(),
        }
    }

    async fn bring_up(&mut self) -> Result<TunnelInfo, TunnelError> {
        let words = self.config.command.iter().map(|word| self.filled(word));
        let mut args: Vec<String> = words.collect();
        let name = if args.is_empty() {
            String::new()
        } else {
            args.remove(0)
        };
        let program = find::program(Backend::Custom, &name, Some(Path::new(&name)))?;
        let source = self.config.url.clone();
        let reader = Box::new(move |seen: &mut Seen, line: &str| read(&source, seen, line));
        // A command with the port written out goes past the front: it cannot be proven then.
        let through_front = self.config.command.iter().any(|word| word.contains("{port}"));
        let mut start = Start::new(Backend::Custom, program, args, &self.local.run_dir, reader);
        // Files that it names are found from where arpc was started.
        if let Ok(here) = std::env::current_dir() {
            start.dir = here;
        }
        let program = Program::start(&self.local.launcher, start, &self.local.log).await?;
        let program = self.running.program.insert(program);
        let url = match &self.config.url {
            UrlSource::Fixed(url) => url.clone(),
            _ => {
                program
                    .until(self.config.start, "print an address", |seen| seen.url.clone())
                    .await?
            }
        };
        if !through_front && !self.local.direct_possible {
            return Err(TunnelError::fatal(
                "the command in [tunnel.custom] names its port itself, and so goes past arpc, which asks for the token",
                "write {port} in the command where the port stands",
            ));
        }
        let mut info = TunnelInfo::new(Backend::Custom, url, self.local.local_port);
        info.through_front = through_front;
        if !through_front {
            let note = "the command names its port itself: visitors go past arpc, are not counted, and whether they \
                        arrive cannot be proven; write {port} in its place";
            info.note = Some(note.into());
        }
        Ok(info)
    }

    /// Puts the front's address in.
    fn filled(&self, word: &str) -> String {
        word.replace("{port}", &self.local.front.port().to_string())
            .replace("{host}", &self.local.front.ip().to_string())
    }
}

impl Tunnel for Custom {
    fn backend(&self) -> Backend {
        Backend::Custom
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
        let backend = match &self.config.health_url {
            None => Check::Unknown("nothing says how to ask it (health_url)".into()),
            Some(url) => match get::get(url, &[], d::READINESS).await {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    Check::Good(format!("{url} answers {}", answer.status))
                }
                Ok(answer) => Check::Bad(format!("{url} answers {}", answer.status)),
                Err(why) => Check::Bad(format!("{url}: {why}")),
            },
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

/// Takes an address from a line, if there is one.
fn read(source: &UrlSource, seen: &mut Seen, line: &str) {
    let found = match source {
        UrlSource::Fixed(_) => None,
        UrlSource::First => line.split_whitespace().find_map(|word| {
            let at = word.find("https://").or_else(|| word.find("http://"))?;
            Some(word[at..].to_owned())
        }),
        UrlSource::Around(text) => line
            .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '|' | '(' | ')'))
            .find(|word| word.contains(text.as_str()))
            .map(|word| {
                word[word
                    .find("https://")
                    .or_else(|| word.find("http://"))
                    .unwrap_or(0)..]
                    .to_owned()
            }),
        UrlSource::Pattern(pattern) => pattern
            .captures(line)
            .and_then(|groups| groups.get(1).or_else(|| groups.get(0)))
            .map(|found| found.as_str().to_owned()),
    };
    if let Some(url) = found.and_then(|found| address(&found)) {
        seen.url = Some(url);
    }
}

/// As an address of the web: one without a scheme is plain HTTP.
fn address(found: &str) -> Option<String> {
    let found = found.trim_end_matches(['.', ',', ';', '!', '/']);
    let url = if found.contains("://") {
        found.to_owned()
    } else {
        format!("http://{found}")
    };
    let uri: http::Uri = url.parse().ok()?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    (web && uri.host().is_some_and(|host| !host.is_empty())).then_some(url)
}

/// What must be there before it can be started.
pub(super) fn available(config: Option<&Config>) -> Result<String, TunnelError> {
    let Some(name) = config.and_then(|config| config.command.first()) else {
        return Err(TunnelError::fatal(
            "there is no command in [tunnel.custom]",
            "say which program makes the tunnel: command = \"…\"",
        ));
    };
    find::program(Backend::Custom, name, Some(Path::new(name)))?;
    Ok(format!("{name} is there"))
}

#[cfg(test)]
mod tests {
    use super::super::seen_in;
    use super::*;
    use regex_lite::Regex;

    fn found(source: &UrlSource, output: &str) -> Option<String> {
        seen_in(|seen, line| read(source, seen, line), output).url
    }

    #[test]
    fn addresses_are_found_by_text_by_pattern_and_by_themselves() {
        let around = UrlSource::Around("bore.pub".into());
        let bore = include_str!("../../fixtures/bore-local.txt");
        assert_eq!(found(&around, bore).as_deref(), Some("http://bore.pub:44431"));
        let around = UrlSource::Around("serveo".into());
        assert_eq!(
            found(&around, "Forwarding HTTP traffic from https://ab.serveo.net.").as_deref(),
            Some("https://ab.serveo.net")
        );
        let pattern = UrlSource::Pattern(Regex::new(r"url: (\S+)").unwrap());
        assert_eq!(
            found(&pattern, "docs: https://x.example url: https://y.example/").as_deref(),
            Some("https://y.example")
        );
        assert_eq!(
            found(&UrlSource::First, "at https://x.example, enjoy").as_deref(),
            Some("https://x.example")
        );
        assert_eq!(found(&UrlSource::First, "nothing here\nftp://x"), None);
        assert_eq!(found(&UrlSource::Fixed("https://z".into()), "https://x"), None);
    }

    #[test]
    fn a_later_address_counts() {
        let text = "https://one.example\nhttps://two.example";
        assert_eq!(
            found(&UrlSource::First, text).as_deref(),
            Some("https://two.example")
        );
    }
}
