//! A program that brings itself up to date: fetches a release as the install scripts do, verifies it, tries it, and puts
//! it in its place in one step. The one before stays beside it (`arps.old`), and comes back when the new one does not
//! start. Programs that belong to it come along, where the release holds them.

use crate::private;
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Largest archive that is taken, in bytes.
const MAX_ARCHIVE: u64 = 512 * 1024 * 1024;
/// Largest list of checksums, in bytes.
const MAX_SUMS: usize = 256 * 1024;
/// Time for a download, in seconds.
const FETCH_SECS: &str = "600";
/// Time for a program to say its version, which loads it and no more.
const TRY: Duration = Duration::from_secs(20);

/// Why a program could not be brought up to date. The one that was there is in its place.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Nobody said where releases lie.
    #[error("set ARP_BASE_URL to where the release archives lie (https://…/releases/latest/download)")]
    NoBase,
    /// A base that nothing protects on the way.
    #[error("{0}: releases are fetched by https only (http only from this machine)")]
    NotHttps(String),
    /// A program that is needed.
    #[error("{0} is needed to update, and cannot be run: {1}")]
    Tool(&'static str, io::Error),
    /// It is not there, or broke off.
    #[error("cannot fetch {0}: {1}")]
    Fetch(String, String),
    /// The list does not know the archive.
    #[error("SHA256SUMS names no checksum of {0}")]
    NoChecksum(String),
    /// Something else than what was released.
    #[error("{0} is not what SHA256SUMS says; nothing was changed")]
    Checksum(String),
    /// The archive does not hold it.
    #[error("the archive holds no program {0}")]
    NotInside(String),
    /// It does not run here.
    #[error("the new program does not run on this machine ({0}); nothing was changed")]
    DoesNotRun(String),
    /// A file.
    #[error(transparent)]
    File(#[from] io::Error),
    /// It ran for its version, but not as a service.
    #[error("the new program did not come up ({0}); the old one is back in its place and was started again")]
    DidNotStart(String),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Updated {
    /// It is the newest already.
    Same(String),
    /// This version is in place now.
    To(String),
}

/// What to fetch and where to put it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program's name.
    pub name: &'static str,
    /// Where it is.
    pub at: PathBuf,
    /// Where the archives lie.
    pub base: String,
    /// For which system: `x86_64-unknown-linux-musl`.
    pub target: String,
    /// Programs that belong to it and lie beside it. It runs without them, and a release may lack them.
    pub with: &'static [&'static str],
}

impl Plan {
    /// For the program that runs. `built_for` is the target it was built for, `built_with` the base that the release
    /// wrote into it; the variable `ARP_BASE_URL` wins, and `version` is a part of the address then (`v0.2.0`).
    ///
    /// # Errors
    /// If nobody says where releases lie, or it is not known where the program is.
    pub fn new(
        name: &'static str,
        built_for: &str,
        built_with: Option<&str>,
        version: Option<&str>,
    ) -> Result<Self, UpdateError> {
        let given = std::env::var("ARP_BASE_URL").ok().filter(|b| !b.is_empty());
        let base = given
            .or_else(|| built_with.map(str::to_owned))
            .ok_or(UpdateError::NoBase)?;
        let mut base = base.trim_end_matches('/').to_owned();
        if !is_safe(&base) {
            return Err(UpdateError::NotHttps(base));
        }
        if let Some(version) = version {
            base = of_version(&base, version);
        }
        // What a link points to is replaced, not the link.
        let at = std::env::current_exe()?.canonicalize()?;
        Ok(Self {
            name,
            at,
            base,
            target: built_for.to_owned(),
            with: &[],
        })
    }

    /// Where the program before this one is kept.
    pub fn old(&self) -> PathBuf {
        old(&self.at)
    }

    /// What a program's file is called.
    fn file(&self, name: &str) -> String {
        let windows = self.target.contains("windows");
        format!("{name}{}", if windows { ".exe" } else { "" })
    }

    /// Where the programs that come along lie.
    fn along(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        self.with
            .iter()
            .map(|name| (*name, self.at.with_file_name(self.file(name))))
    }

    /// Fetches, verifies, tries and puts in place.
    ///
    /// # Errors
    /// See [`UpdateError`].
    pub fn install(&self) -> Result<Updated, UpdateError> {
        let scratch = Scratch::beside(&self.at)?;
        let windows = self.target.contains("windows");
        let archive = format!("arp-{}.{}", self.target, if windows { "zip" } else { "tar.gz" });
        let sums = scratch.0.join("SHA256SUMS");
        fetch(&format!("{}/SHA256SUMS", self.base), &sums)?;
        let wanted = checksum_of(
            &String::from_utf8_lossy(&private::read(&sums, MAX_SUMS)?),
            &archive,
        )
        .ok_or_else(|| UpdateError::NoChecksum(archive.clone()))?;
        let file = scratch.0.join(&archive);
        fetch(&format!("{}/{archive}", self.base), &file)?;
        if hash(&file)? != wanted {
            return Err(UpdateError::Checksum(archive));
        }
        // `tar` of Windows reads zip, too.
        let mut tar = Command::new("tar");
        tar.arg("-xf")
            .arg(&file)
            .arg("-C")
            .arg(&scratch.0)
            .stdin(Stdio::null());
        let unpacked = tar.output().map_err(|e| UpdateError::Tool("tar", e))?;
        if !unpacked.status.success() {
            return Err(UpdateError::NotInside(self.name.to_owned()));
        }
        let program = self.file(self.name);
        let new = find(&scratch.0, &program).ok_or(UpdateError::NotInside(program))?;
        let version = version_of(&new, self.name).map_err(UpdateError::DoesNotRun)?;
        let mut along = Vec::new();
        for (name, at) in self.along() {
            if let Some(new) = find(&scratch.0, &self.file(name)) {
                version_of(&new, name).map_err(UpdateError::DoesNotRun)?;
                along.push((at, new));
            }
        }
        let mode = std::fs::metadata(&self.at)?.permissions();
        if version_of(&self.at, self.name).is_ok_and(|old| old == version) {
            // One that only lacks what belongs to it gets it now.
            for (at, new) in along.iter().filter(|(at, _)| !at.exists()) {
                swap(at, new, mode.clone())?;
            }
            return Ok(Updated::Same(version));
        }
        // What is kept of the update before this one is not what a step back means from here on.
        for (_, at) in self.along() {
            let _ = std::fs::remove_file(old(&at));
        }
        for (at, new) in &along {
            let _ = swap(at, new, mode.clone());
        }
        if let Err(error) = swap(&self.at, &new, mode) {
            self.put_back_along();
            return Err(error.into());
        }
        Ok(Updated::To(version))
    }

    /// The program before this one takes its place again, with what belongs to it.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn roll_back(&self) -> io::Result<()> {
        self.put_back_along();
        put_back(&self.at)
    }

    fn put_back_along(&self) {
        for (_, at) in self.along().filter(|(_, at)| old(at).exists()) {
            let _ = put_back(&at);
        }
    }

    /// Starts the service anew by `restart` and waits until `is_up` says that the new program serves; else the old one
    /// is put back and started.
    ///
    /// # Errors
    /// [`UpdateError::DidNotStart`], with the reason.
    pub fn restart(
        &self,
        restart: impl Fn() -> Result<(), String>,
        is_up: impl Fn() -> bool,
        patience: Duration,
    ) -> Result<(), UpdateError> {
        let began = Instant::now();
        let failed = match restart() {
            Ok(()) => loop {
                if is_up() {
                    return Ok(());
                }
                if began.elapsed() > patience {
                    break format!("it does not serve after {} s", patience.as_secs());
                }
                std::thread::sleep(Duration::from_millis(200));
            },
            Err(e) => e,
        };
        self.roll_back()?;
        match restart() {
            Ok(()) => Err(UpdateError::DidNotStart(failed)),
            Err(e) => Err(UpdateError::DidNotStart(format!(
                "{failed}; and starting the old one: {e}"
            ))),
        }
    }
}

/// Where the program before this one is kept.
fn old(at: &Path) -> PathBuf {
    beside(at, ".old")
}

/// A file beside this one whose name goes on.
fn beside(at: &Path, what: &str) -> PathBuf {
    let mut name = at.file_name().unwrap_or_default().to_owned();
    name.push(what);
    at.with_file_name(name)
}

/// A new program takes the place of the old one, if there is one, which is kept. At each moment there is one in the
/// place then.
fn swap(at: &Path, new: &Path, mode: std::fs::Permissions) -> io::Result<()> {
    std::fs::set_permissions(new, mode)?;
    let old = old(at);
    let _ = std::fs::remove_file(&old);
    if at.exists() {
        if cfg!(windows) {
            // A running program can be renamed there, not replaced.
            std::fs::rename(at, &old)?;
        } else if std::fs::hard_link(at, &old).is_err() {
            std::fs::copy(at, &old)?;
        }
    }
    std::fs::rename(new, at).inspect_err(|_| {
        if cfg!(windows) {
            let _ = std::fs::rename(&old, at);
        }
    })
}

/// The program before this one takes its place again.
fn put_back(at: &Path) -> io::Result<()> {
    if cfg!(windows) {
        let _ = std::fs::rename(at, beside(at, ".failed"));
    }
    std::fs::rename(old(at), at)
}

/// Where one release lies, given where releases do.
fn of_version(base: &str, version: &str) -> String {
    match base.strip_suffix("/latest/download") {
        // As GitHub has them.
        Some(releases) => format!("{releases}/download/{version}"),
        None => format!("{base}/{version}"),
    }
}

/// HTTPS, or a server on this machine.
fn is_safe(base: &str) -> bool {
    if base.starts_with("https://") {
        return true;
    }
    let Some(rest) = base.strip_prefix("http://") else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

/// A directory that is removed in the end; beside the program, so that nothing crosses a file system.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(at: &Path) -> io::Result<Self> {
        let dir = at.with_file_name(format!(".arp-update.{:016x}", rand::random::<u64>()));
        private::create_dir(&dir).map(|()| Self(dir)).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("{e}; run it as the user who may replace the program (sudo)"),
            )
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn fetch(url: &str, to: &Path) -> Result<(), UpdateError> {
    let mut curl = Command::new("curl");
    curl.args([
        "-fsSL",
        "--retry",
        "3",
        "--connect-timeout",
        "20",
        "--max-time",
        FETCH_SECS,
    ]);
    // Not by a redirect to something else either.
    let only = if url.starts_with("https:") {
        "=https"
    } else {
        "=http,https"
    };
    curl.args(["--proto", only, "--max-filesize", &MAX_ARCHIVE.to_string(), "-o"]);
    let done = curl.arg(to).arg(url).stdin(Stdio::null()).output();
    let done = done.map_err(|e| UpdateError::Tool("curl", e))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(UpdateError::Fetch(url.to_owned(), said))
}

/// The checksum that a list as `sha256sum` writes it has for a file.
fn checksum_of(sums: &str, file: &str) -> Option<String> {
    let line = |line: &str| {
        let (sum, name) = line.split_once(char::is_whitespace)?;
        let name = name.trim_start().trim_start_matches('*');
        (name == file).then(|| sum.to_ascii_lowercase())
    };
    let sum = sums.lines().find_map(line)?;
    (sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit())).then_some(sum)
}

fn hash(file: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(file)?;
    let mut buf = vec![0; 64 * 1024];
    loop {
        let n = file.read(&mut buf)?;
        if n == 0 {
            return Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect());
        }
        hasher.update(&buf[..n]);
    }
}

/// A file of this name, at most one directory down; no link.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let is_file = |p: &PathBuf| p.symlink_metadata().is_ok_and(|m| m.is_file());
    let here = dir.join(name);
    if is_file(&here) {
        return Some(here);
    }
    let below = std::fs::read_dir(dir).ok()?;
    below
        .filter_map(|e| Some(e.ok()?.path().join(name)))
        .find(is_file)
}

/// What a program says to `--version`.
fn version_of(program: &Path, name: &str) -> Result<String, String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(program)
            .map_err(|e| e.to_string())?
            .permissions()
            .mode();
        let runs = std::fs::Permissions::from_mode(mode | 0o500);
        std::fs::set_permissions(program, runs).or_else(|e| {
            if mode & 0o100 != 0 {
                Ok(())
            } else {
                Err(e.to_string())
            }
        })?;
    }
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let until = Instant::now() + TRY;
    while child.try_wait().map_err(|e| e.to_string())?.is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return Err("it does not end".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let done = child.wait_with_output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    if done.status.success() && said.starts_with(&format!("{name} ")) && said.lines().count() == 1 {
        Ok(said)
    } else {
        Err(format!(
            "{}; {}",
            done.status,
            String::from_utf8_lossy(&done.stderr).trim()
        ))
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
