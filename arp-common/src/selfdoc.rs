//! What a program writes down about itself from the definition of its command line: completions for shells, manual
//! pages, an example of its settings. So none of them can tell of a flag that is not there.

use crate::settings::key_of;
use clap::{Arg, Command, Subcommand};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What can be written down.
#[derive(Debug, Clone, Subcommand)]
pub enum Papers {
    /// Print the completions for a shell.
    #[command(
        after_help = "Examples:\n  bash: PROGRAM completions bash > ~/.local/share/bash-completion/completions/PROGRAM\n  zsh:  PROGRAM completions zsh > ~/.zfunc/_PROGRAM\n  fish: PROGRAM completions fish > ~/.config/fish/completions/PROGRAM.fish"
    )]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all subcommands too.
    Man {
        /// Write them to this directory instead.
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Settings as a file.
    Config {
        /// What to do.
        #[command(subcommand)]
        action: ConfigAction,
    },
}

/// What to do with the settings.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigAction {
    /// Print a file with every setting, explained and commented out; for --config.
    Example,
}

/// Writes it down. `keys` are the settings with the type of each in a word that stands for a value.
///
/// # Errors
/// If it cannot be written. A pipe that is closed early (`| head`) is none.
pub fn write(
    papers: &Papers,
    mut command: Command,
    keys: &[(String, &'static str)],
    out: &mut impl Write,
) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    match papers {
        Papers::Completions { shell } => clap_complete::generate(*shell, &mut command, name, &mut text),
        Papers::Man { to: None } => clap_mangen::Man::new(command).render(&mut text)?,
        Papers::Man { to: Some(dir) } => return pages(command, dir),
        Papers::Config { .. } => text = example(&command, keys).into_bytes(),
    }
    match out.write_all(&text).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

fn pages(command: Command, dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)
}

/// The settings as a TOML file: explained, in the groups of the help, each with its default commented out.
fn example(command: &Command, keys: &[(String, &'static str)]) -> String {
    let name = command.get_name();
    let mut text = format!(
        "# Settings of {name}, for `{name} --config FILE`. Take the # away in front of what you want to change.\n\
         # `{name} --config FILE --check-config` tells whether all is well.\n"
    );
    let args: BTreeMap<&str, &Arg> = command
        .get_arguments()
        .filter_map(|arg| Some((arg.get_long()?, arg)))
        .collect();
    let mut group = "";
    let mut tables = String::new();
    for (key, kind) in keys {
        let arg = args.get(key.as_str());
        let heading = arg.and_then(|a| a.get_help_heading()).unwrap_or_default();
        if heading != group {
            let _ = write!(text, "\n### {heading}\n");
            group = heading;
        }
        let help = arg.and_then(|a| a.get_long_help().or(a.get_help()));
        let help = help.map(ToString::to_string).unwrap_or_default();
        let out = if kind.is_empty() { &mut tables } else { &mut text };
        out.push('\n');
        for line in wrapped(&help) {
            let _ = writeln!(out, "# {line}");
        }
        if kind.is_empty() {
            let _ = writeln!(out, "#[{key}.NAME]");
        } else {
            let _ = writeln!(
                out,
                "#{key} = {}",
                default_of(&help).map_or_else(|| (*kind).to_owned(), |d| value_of(d, kind))
            );
        }
    }
    text + &tables
}

/// What the help says of the default.
fn default_of(help: &str) -> Option<&str> {
    help.split_once("[default: ")?.1.split(']').next()
}

/// A default as a value of TOML; `kind` where it is only described.
fn value_of(default: &str, kind: &str) -> String {
    let number = !default.is_empty() && default.bytes().all(|b| b.is_ascii_digit());
    if number || default == "true" || default == "false" {
        default.to_owned()
    } else if default.parse::<std::net::IpAddr>().is_ok() {
        format!("\"{default}\"")
    } else {
        kind.to_owned()
    }
}

/// The help in lines of a readable length.
fn wrapped(help: &str) -> Vec<String> {
    const WIDTH: usize = 100;
    let mut lines = Vec::new();
    for paragraph in help.lines().filter(|l| !l.trim().is_empty()) {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.len() + word.len() >= WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// For tests: the example with everything in it taken in.
pub fn uncommented(example: &str) -> String {
    let setting = |line: &str| {
        let rest = line.strip_prefix('#')?;
        rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[')
            .then(|| rest.to_owned())
    };
    let lines = example.lines().filter_map(setting);
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

/// The key of a field, with a word of its type.
pub fn keyed<T: crate::settings::Words>(field: &str) -> (String, &'static str) {
    (key_of(field), T::EXAMPLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let arg = |name: &'static str, help: &'static str, heading: &'static str| {
            Arg::new(name).long(name).help(help).help_heading(heading)
        };
        Command::new("demo")
            .about("A demo")
            .arg(arg("public-port", "Port for visitors [default: 17003].", "Ports"))
            .arg(arg("domain", "A domain.", "Visitors"))
    }

    fn written(papers: &Papers) -> String {
        let keys = [
            ("public-port".to_owned(), "80"),
            ("domain".to_owned(), "\"text\""),
        ];
        let mut out = Vec::new();
        write(papers, command(), &keys, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_example_explains_each_setting_in_its_group() {
        let text = written(&Papers::Config {
            action: ConfigAction::Example,
        });
        assert!(
            text.contains("### Ports\n\n# Port for visitors [default: 17003].\n#public-port = 17003\n"),
            "{text}"
        );
        assert!(
            text.contains("### Visitors\n\n# A domain.\n#domain = \"text\"\n"),
            "{text}"
        );
        assert!(text.lines().all(|l| l.is_empty() || l.starts_with('#')));
        assert_eq!(uncommented(&text), "public-port = 17003\ndomain = \"text\"\n");
    }

    #[test]
    fn shells_and_manual_know_the_flags() {
        for shell in [
            clap_complete::Shell::Bash,
            clap_complete::Shell::Zsh,
            clap_complete::Shell::Fish,
        ] {
            assert!(
                written(&Papers::Completions { shell }).contains("public-port"),
                "{shell}"
            );
        }
        assert!(written(&Papers::Man { to: None }).contains("public\\-port"));
    }
}
