//! What docs and messages name exists: flags, environment variables, keys of the file, error codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

use arp_testkit::daemon::Daemon;
use arpc::config::{Cli, Settings};
use clap::CommandFactory;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Flags that docs and messages name and that belong to other programs.
const FOREIGN: &[&str] = &[
    "acp",
    "all-features",
    "all-targets",
    "bins",
    "examples",
    "input-format",
    "locked",
    "mcp-config",
    "now",
    "quiet",
    "output-format",
    "path",
    "permission-prompt-tool",
    "release",
    "skip-trust",
    "user",
    "workspace",
];

/// Codes that become another one on their way out.
const INNER: &[&str] = &["bad_root", "root_not_allowed"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// README and docs/: name and text.
fn docs() -> Vec<(String, String)> {
    let mut files = vec![root().join("README.md")];
    files.extend(
        std::fs::read_dir(root().join("docs"))
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    files.retain(|file| file.extension().is_some_and(|end| end == "md"));
    let read = |file: PathBuf| {
        (
            file.display().to_string(),
            std::fs::read_to_string(&file).unwrap(),
        )
    };
    files.into_iter().map(read).collect()
}

/// Sources of both daemons without their tests: name and text.
fn sources(below: &[&str]) -> Vec<(String, String)> {
    let mut next: Vec<PathBuf> = below.iter().map(|place| root().join(place)).collect();
    let mut found = Vec::new();
    while let Some(path) = next.pop() {
        if path.is_dir() {
            next.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
            found.push((path.display().to_string(), text));
        }
    }
    found
}

const EDGE: &[&str] = &[
    "arp-client/src",
    "arp-client/sessions/src",
    "arp-client/files/src",
    "arp-client/history/src",
];
const ALL: &[&str] = &[
    "arp-client/src",
    "arp-client/sessions/src",
    "arp-client/files/src",
    "arp-server/src",
    "arp-common/src",
];

/// Names of flags and of their environment variables.
#[derive(Default)]
struct Known {
    flags: BTreeSet<String>,
    variables: BTreeSet<String>,
}

impl Known {
    fn new() -> Self {
        let mut known = Self::default();
        known.add(&Cli::command());
        known.relay(&[]);
        known.flags.extend(["help", "version"].map(str::to_owned));
        known
    }

    fn add(&mut self, command: &clap::Command) {
        for argument in command.get_arguments() {
            self.flags.extend(argument.get_long().map(str::to_owned));
            let aliases = argument.get_all_aliases().unwrap_or_default();
            self.flags.extend(aliases.into_iter().map(str::to_owned));
            self.variables
                .extend(argument.get_env().map(|name| name.to_string_lossy().into_owned()));
        }
        command.get_subcommands().for_each(|command| self.add(command));
    }

    /// Those of `arps`, as it tells them itself.
    fn relay(&mut self, subcommand: &[&str]) {
        let arguments: Vec<String> = subcommand
            .iter()
            .chain(&["--help"])
            .map(|&a| a.to_owned())
            .collect();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let help = runtime.block_on(async {
            let mut arps = Daemon::start("arps", &arguments, &[]);
            assert!(arps.ended().await.success());
            arps.output()
        });
        self.flags.extend(flags(&help));
        self.variables.extend(words(&help, "ARPS_"));
        let commands = help.split("Commands:\n").nth(1).unwrap_or_default();
        let commands = commands.lines().take_while(|line| !line.is_empty());
        for name in commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()) {
            if subcommand.len() < 2 && !name.is_empty() && name != "help" {
                self.relay(&[subcommand, &[name]].concat());
            }
        }
    }
}

/// `--flag`s of a text.
fn flags(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut before = ' ';
    for (at, _) in text.match_indices("--") {
        before = text[..at].chars().last().unwrap_or(before);
        let rest = &text[at + 2..];
        let end = rest
            .find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
            .unwrap_or(rest.len());
        let starts = " `\"'([\n|/,{".contains(before) || at == 0;
        if starts && rest.starts_with(|c: char| c.is_ascii_lowercase()) {
            found.insert(rest[..end].trim_end_matches('-').to_owned());
        }
        before = '-';
    }
    found
}

/// Words that begin with this.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(start) {
        let rest = &text[at..];
        let end = rest
            .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
            .unwrap_or(rest.len());
        found.insert(rest[..end].to_owned());
    }
    found
}

/// Code blocks of a kind, and what is in backquotes.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in text.split(&format!("```{kind}\n")).skip(1) {
        found.push(part.split("```").next().unwrap().to_owned());
    }
    found
}

/// Is this a command of another program? Its flags are its own.
fn is_foreign(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches(['`', '$', ' ', '|', '-']);
    let first = line
        .split([' ', '`'])
        .find(|word| !word.contains('='))
        .unwrap_or_default();
    let name = first.rsplit('/').next().unwrap_or_default();
    let ours = line.contains("arps") || line.contains("arpc");
    !ours && !name.is_empty() && !first.starts_with("--")
}

/// Commands and flags of a text: lines of code blocks, and what stands in backquotes.
fn code(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            // What follows a pipe or && may be another program.
            found.extend(line.split(['|', ';']).map(str::to_owned));
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_flag_and_variable_that_docs_name_exists() {
    let known = Known::new();
    let mut missing = Vec::new();
    for (file, text) in docs() {
        for line in code(&text).iter().filter(|line| !is_foreign(line)) {
            for flag in flags(line) {
                if !known.flags.contains(&flag) && !FOREIGN.contains(&flag.as_str()) {
                    missing.push(format!("{file}: --{flag} in {line:?}"));
                }
            }
        }
        for name in ["ARPC_", "ARPS_"].iter().flat_map(|start| words(&text, start)) {
            // `ARPC_<FLAG>`, `ARPC_…` stand for all of them.
            if name.len() > 5 && !known.variables.contains(&name) {
                missing.push(format!("{file}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_flag_that_a_message_names_exists() {
    let known = Known::new();
    let mut missing = Vec::new();
    for (file, text) in sources(ALL) {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in lines.filter(|line| line.contains('"') || line.trim_end().ends_with('\\')) {
            // A sentence, or a part of one; a word alone is an argument for somebody.
            for flag in flags(line)
                .into_iter()
                .filter(|flag| !line.contains(&format!("\"--{flag}\"")))
            {
                if !known.flags.contains(&flag) && !FOREIGN.contains(&flag.as_str()) {
                    missing.push(format!("{file}: --{flag} in {}", line.trim()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_file_of_settings_in_the_docs_is_understood() {
    let known = Known::new();
    for (file, text) in docs() {
        for block in blocks(&text, "toml") {
            if block.starts_with("# ~/.clp/gateway.toml\n") {
                let parsed = arp_gateway::settings::Settings::parse(Path::new(&file), &block);
                assert!(parsed.is_ok(), "{file}: {parsed:?}\n{block}");
                continue;
            }
            let Err(why) = Settings::from_toml(&block, &file) else {
                continue;
            };
            let keys = block
                .lines()
                .filter_map(|line| line.split_once('=').map(|(key, _)| key.trim()));
            let of_relay = keys.clone().count() > 0 && keys.clone().all(|key| known.flags.contains(key));
            assert!(of_relay, "{file}: {why}\n{block}");
        }
    }
}

/// Codes that the API can answer with, as the sources have them.
fn codes_of_the_sources() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut take = |text: &str| {
        let code = text.split('"').nth(1).unwrap_or_default();
        let is_code = !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if is_code {
            found.insert(code.to_owned());
        }
    };
    for (_, text) in sources(EDGE) {
        // `ApiError::new(STATUS, "code", …)`, and the arms of `fn code`.
        for at in ["ApiError::new(", "Self::new("] {
            for (at, _) in text.match_indices(at) {
                let arguments = &text[at..text.len().min(at + 200)];
                let second = arguments.split_once(',').map_or("", |(_, rest)| rest);
                if second.trim_start().starts_with('"') {
                    take(second);
                }
            }
        }
        for (at, _) in text.match_indices("fn code(&self)") {
            let arms = text[at..].split("\n    }\n").next().unwrap();
            arms.split("=>")
                .skip(1)
                .filter(|arm| arm.trim_start().starts_with('"'))
                .for_each(&mut take);
        }
    }
    INNER.iter().for_each(|inner| {
        found.remove(*inner);
    });
    found
}

#[test]
fn the_error_codes_of_docs_and_sources_are_the_same() {
    let (_, api) = docs()
        .into_iter()
        .find(|(file, _)| file.ends_with("docs/api.md"))
        .unwrap();
    let table = api
        .split("## 9. Errors")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let is_code = |word: &&str| {
        word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !["executor"].contains(word)
    };
    let told: BTreeSet<String> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(is_code)
        .map(str::to_owned)
        .collect();
    let known = codes_of_the_sources();
    assert!(known.len() > 30, "{known:?}");
    let lost: Vec<_> = known.difference(&told).collect();
    assert!(lost.is_empty(), "docs/api.md, section 9, does not tell {lost:?}");
    // Some are made in other ways; they have to stand somewhere all the same.
    let sources: String = sources(EDGE).into_iter().map(|(_, text)| text).collect();
    let invented: Vec<_> = told
        .iter()
        .filter(|code| !sources.contains(&format!("\"{code}\"")))
        .collect();
    assert!(
        invented.is_empty(),
        "docs/api.md, section 9, tells of {invented:?}, which nothing answers"
    );
    // And what the text names beside a status is in the table.
    for line in api.lines() {
        for (at, _) in line.match_indices(" `") {
            let before = line[..at].rsplit(' ').next().unwrap_or_default();
            let named = line[at + 2..].split('`').next().unwrap_or_default();
            let status = before.len() == 3 && before.parse::<u16>().is_ok_and(|it| (400..600).contains(&it));
            if status && named.contains('_') {
                assert!(told.contains(named), "{line}");
            }
        }
    }
}
