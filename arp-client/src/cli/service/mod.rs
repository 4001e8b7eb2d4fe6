//! `arpc service`: the edge agent as a service of this user, by the means of the system: systemd's user manager, launchd,
//! the task scheduler of Windows.

mod text;

use super::Failure;
use arp_common::private;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What to do with the service.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Set it up and start it: it then starts by itself, and again when it fails.
    #[command(
        after_help = "Examples:\n  arpc service install                                   with ~/.config/arpc/arpc.toml\n  arpc service install -- --server-addr relay.example --command-mode\n\nA join key belongs into a file (--join-key-file), not among the flags."
    )]
    Install {
        /// Set it up only.
        #[arg(long)]
        no_start: bool,
        /// Flags that it is started with, after `--`; without any, `--config` and the file arpc.toml.
        #[arg(last = true, value_name = "FLAGS")]
        flags: Vec<String>,
    },
    /// Stop and remove it. Settings and data stay.
    Uninstall,
    /// Is it set up, and does it run? Exit code 0 if it runs, 3 if not.
    Status,
}

/// Exit code of `arpc service status` where it does not run.
const NOT_RUNNING: u8 = 3;

/// Does it; gives the exit code.
pub(super) fn run(action: &Action) -> Result<u8, Failure> {
    let system = System::here()?;
    match action {
        Action::Install { no_start, flags } => {
            let program = std::env::current_exe()?;
            let flags = match &flags[..] {
                [] => default_flags()?,
                flags => flags.to_vec(),
            };
            if flags
                .iter()
                .any(|f| f == "--join-key" || f.starts_with("--join-key="))
            {
                return Err(Failure(
                    "a join key among the flags would be seen by every user of this machine; put it into a file and \
                     give --join-key-file"
                        .to_owned(),
                ));
            }
            system.install(&program, &flags, !no_start)?;
            Ok(0)
        }
        Action::Uninstall => system.uninstall().map(|()| 0),
        Action::Status => {
            let (there, runs) = system.status();
            let word = match (there, runs) {
                (_, true) => "runs",
                (true, false) => "is set up and does not run",
                (false, false) => "is not set up (arpc service install)",
            };
            println!("the service arpc {word}");
            Ok(if runs { 0 } else { NOT_RUNNING })
        }
    }
}

/// The settings file, which has to be there: a service without settings would fail at once and for ever.
fn default_flags() -> Result<Vec<String>, Failure> {
    let dirs =
        directories::BaseDirs::new().ok_or_else(|| Failure("this user has no home directory".to_owned()))?;
    let file = dirs.config_dir().join("arpc").join("arpc.toml");
    if !file.exists() {
        return Err(Failure(format!(
            "there are no settings: give flags (arpc service install -- --server-addr RELAY --command-mode), or make \
             {0} (arpc config example > {0})",
            file.display()
        )));
    }
    Ok(vec!["--config".to_owned(), file.to_string_lossy().into_owned()])
}

/// How services are run here.
enum System {
    Systemd(PathBuf),
    Launchd { list: PathBuf, log: PathBuf },
    Windows,
}

impl System {
    fn here() -> Result<Self, Failure> {
        let dirs = directories::BaseDirs::new()
            .ok_or_else(|| Failure("this user has no home directory".to_owned()))?;
        if cfg!(windows) {
            return Ok(Self::Windows);
        }
        if cfg!(target_os = "macos") {
            let list = dirs
                .home_dir()
                .join("Library/LaunchAgents")
                .join(format!("{}.plist", text::LABEL));
            let log = dirs.home_dir().join("Library/Logs/arpc.err");
            return Ok(Self::Launchd { list, log });
        }
        if call("systemctl", &["--version"]).is_err() {
            return Err(Failure(
                "this system has no systemd; start arpc by its own means (for example from cron: @reboot)"
                    .to_owned(),
            ));
        }
        let unit = dirs
            .config_dir()
            .join("systemd/user")
            .join(format!("{}.service", text::NAME));
        Ok(Self::Systemd(unit))
    }

    fn install(&self, program: &Path, flags: &[String], start: bool) -> Result<(), Failure> {
        match self {
            Self::Systemd(unit) => {
                write(unit, &text::systemd(program, flags))?;
                println!("wrote {}", unit.display());
                user(&["daemon-reload"])?;
                if start {
                    user(&["enable", text::NAME])?;
                    // Also where it ran before, with other flags.
                    user(&["restart", text::NAME])?;
                    println!(
                        "started; it starts by itself when you log in. To have it run without anybody logged in:"
                    );
                    println!("  loginctl enable-linger");
                }
            }
            Self::Launchd { list, log } => {
                write(list, &text::launchd(program, flags, log))?;
                println!("wrote {}", list.display());
                if start {
                    let _ = call("launchctl", &["unload", &list.to_string_lossy()]);
                    call("launchctl", &["load", "-w", &list.to_string_lossy()])?;
                    println!("started; it starts by itself when you log in");
                }
            }
            Self::Windows => {
                let user = format!("{}\\{}", variable("USERDOMAIN"), variable("USERNAME"));
                let file = std::env::temp_dir().join(format!("arpc-task-{}.xml", std::process::id()));
                let text = text::windows(program, flags, &user);
                // The task scheduler wants UTF-16 with its mark.
                let units = std::iter::once(0xfeff).chain(text.encode_utf16());
                private::replace(&file, &units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>())?;
                let made = call(
                    "schtasks",
                    &[
                        "/Create",
                        "/F",
                        "/TN",
                        text::NAME,
                        "/XML",
                        &file.to_string_lossy(),
                    ],
                );
                let _ = std::fs::remove_file(&file);
                made?;
                println!("made the task {}", text::NAME);
                if start {
                    call("schtasks", &["/Run", "/TN", text::NAME])?;
                    println!("started; it starts by itself when you log on");
                }
            }
        }
        Ok(())
    }

    fn uninstall(&self) -> Result<(), Failure> {
        let missing = || Failure("the service is not set up".to_owned());
        match self {
            Self::Systemd(unit) => {
                if !unit.exists() {
                    return Err(missing());
                }
                // It may not run, and the user manager neither.
                let _ = user(&["disable", "--now", text::NAME]);
                std::fs::remove_file(unit)?;
                let _ = user(&["daemon-reload"]);
            }
            Self::Launchd { list, .. } => {
                if !list.exists() {
                    return Err(missing());
                }
                let _ = call("launchctl", &["unload", "-w", &list.to_string_lossy()]);
                std::fs::remove_file(list)?;
            }
            Self::Windows => {
                let _ = call("schtasks", &["/End", "/TN", text::NAME]);
                call("schtasks", &["/Delete", "/F", "/TN", text::NAME])?;
            }
        }
        println!("removed; settings and data stay");
        Ok(())
    }

    /// Is it set up, and does it run?
    fn status(&self) -> (bool, bool) {
        match self {
            Self::Systemd(unit) => (unit.exists(), user(&["is-active", "--quiet", text::NAME]).is_ok()),
            Self::Launchd { list, .. } => {
                let told = call("launchctl", &["list", text::LABEL]);
                let runs = told.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).contains("\"PID\""));
                (list.exists(), runs)
            }
            Self::Windows => match call("schtasks", &["/Query", "/FO", "CSV", "/NH", "/TN", text::NAME]) {
                Ok(told) => (true, String::from_utf8_lossy(&told.stdout).contains("Running")),
                Err(_) => (false, false),
            },
        }
    }
}

fn user(args: &[&str]) -> Result<(), Failure> {
    call("systemctl", &[&["--user"], args].concat()).map(|_| ())
}

fn call(program: &str, args: &[&str]) -> Result<Output, Failure> {
    let done = Command::new(program).args(args).stdin(Stdio::null()).output();
    let done = done.map_err(|e| Failure(format!("{program}: {e}")))?;
    if done.status.success() {
        return Ok(done);
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(Failure(format!(
        "{program} {}: {said} ({})",
        args.join(" "),
        done.status
    )))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Flags may tell of tokens.
    Ok(private::replace(path, text.as_bytes())?)
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}
