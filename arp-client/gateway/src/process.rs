//! The gateway as a process of its own: one per home, found again by its lock, started and stopped by others.

use crate::api::{Api, Pages};
use crate::forward::Gateway;
use crate::guard::Doors;
use crate::home::Home;
use crate::live::Live;
use crate::persist;
use crate::secret::Secret;
use crate::server;
use crate::service::Service;
use crate::usage;
use crate::usage::store::Usage;
use arp_common::net;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time that a start may take; a slow disk and a loaded machine included.
const START: Duration = Duration::from_secs(20);
/// Time that a stop may take: the grace of requests under way, and a little.
const STOP: Duration = Duration::from_secs(15);
/// Longer than anybody who only looks holds the lock.
const LOOKING: Duration = Duration::from_millis(500);
/// Between two looks at a process that starts or stops.
const LOOK: Duration = Duration::from_millis(50);

/// Where people expect the page.
pub const UI_PORT: u16 = 3300;

/// Where the gateway listens.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Address of all ports.
    pub host: IpAddr,
    /// A port for each service, in the order of [`Service::ALL`]; 0 takes a free one.
    pub ports: [u16; 3],
    /// Address of the page.
    pub ui_host: IpAddr,
    /// Port of the page.
    pub ui_port: u16,
    /// What everybody must show who is not on this machine.
    pub key: Option<Secret>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            ports: Service::ALL.map(Service::default_port),
            ui_host: Ipv4Addr::LOCALHOST.into(),
            ui_port: UI_PORT,
            key: None,
        }
    }
}

/// The gateway cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Another one runs over the same home.
    #[error("the gateway runs already (process {0}); see `arpc gateway status`")]
    Running(u32),
    /// None runs.
    #[error("the gateway does not run; `arpc gateway start` starts it")]
    NotRunning,
    /// A port is taken.
    #[error(
        "port {port} for {what} cannot be used: {source}. What listens there? Another port: {variable}={next}"
    )]
    Port {
        /// For what.
        what: &'static str,
        /// Which.
        port: u16,
        /// What else to set.
        variable: String,
        /// To what, for example.
        next: u16,
        /// As the operating system says.
        source: io::Error,
    },
    /// Others than this machine would be served without a key.
    #[error(
        "to listen on {0} the gateway needs a key, or everybody there could spend your money: set CLP_PROXY_KEY"
    )]
    NoKey(IpAddr),
    /// A file or the like.
    #[error("{0}")]
    Other(String),
}

impl From<io::Error> for ProcessError {
    fn from(e: io::Error) -> Self {
        Self::Other(e.to_string())
    }
}

/// What is known of a running gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Since when, in Unix seconds.
    pub since: u64,
    /// Where each service listens.
    pub claude: SocketAddr,
    /// See `claude`.
    pub codex: SocketAddr,
    /// See `claude`.
    pub gemini: SocketAddr,
    /// Where its page and API are.
    pub ui: SocketAddr,
}

impl Running {
    /// Where a service listens.
    #[must_use]
    pub const fn address(&self, service: Service) -> SocketAddr {
        match service {
            Service::Claude => self.claude,
            Service::Codex => self.codex,
            Service::Gemini => self.gemini,
        }
    }
}

fn lock_path(home: &Home) -> PathBuf {
    home.run().join("gateway.lock")
}

fn state_path(home: &Home) -> PathBuf {
    home.run().join("gateway.json")
}

/// Where a gateway that was started in the background writes.
#[must_use]
pub fn log_path(home: &Home) -> PathBuf {
    home.run().join("gateway.log")
}

/// CLP's files that hold the number of a process.
fn pid_paths(home: &Home) -> [PathBuf; 3] {
    ["claude_code_proxy.pid", "codex_proxy.pid", "ui.pid"].map(|name| home.run().join(name))
}

/// The lock of a home, while this process holds it.
#[derive(Debug)]
struct Lock(File);

/// Takes the lock, or tells who has it. The operating system gives it back when a process dies, however it does.
fn lock(home: &Home) -> Result<Lock, ProcessError> {
    home.create()?;
    let since = Instant::now();
    loop {
        let mut file = open_lock(home)?;
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            // Whoever only looks holds it for a moment, too.
            Err(TryLockError::WouldBlock) if since.elapsed() < LOOKING => std::thread::sleep(LOOK),
            Err(TryLockError::WouldBlock) => return Err(ProcessError::Running(pid_in(&mut file, home))),
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
    }
}

fn open_lock(home: &Home) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(lock_path(home))
}

/// Where the number of the process stands on Windows, on which nobody else can read what is locked.
fn pid_beside(home: &Home) -> PathBuf {
    home.run().join("gateway.pid")
}

fn pid_in(file: &mut File, home: &Home) -> u32 {
    let mut text = String::new();
    let _ = if cfg!(windows) {
        File::open(pid_beside(home)).and_then(|file| file.take(32).read_to_string(&mut text))
    } else {
        file.take(32).read_to_string(&mut text)
    };
    text.trim().parse().unwrap_or(0)
}

/// Who holds the lock, if anybody does.
fn holder(home: &Home) -> Result<Option<u32>, ProcessError> {
    if !lock_path(home).exists() {
        return Ok(None);
    }
    let mut file = open_lock(home)?;
    // Shared: two that look do not take each other for a gateway.
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(pid_in(&mut file, home))),
        Err(TryLockError::Error(e)) => Err(e.into()),
    }
}

impl Lock {
    fn write_pid(&mut self, home: &Home) -> io::Result<()> {
        if cfg!(windows) {
            return std::fs::write(pid_beside(home), format!("{}\n", std::process::id()));
        }
        self.0.set_len(0)?;
        self.0.rewind()?;
        writeln!(self.0, "{}", std::process::id())
    }
}

/// Runs the gateway until `stop`, in this process, with these pages. `ready` is called when all ports answer.
///
/// # Errors
/// When one runs already, a port is taken or a file cannot be used.
pub async fn run(
    home: Home,
    listen: Listen,
    pages: Option<Pages>,
    stop: CancellationToken,
    ready: impl FnOnce(&Running),
) -> Result<(), ProcessError> {
    for host in [listen.host, listen.ui_host] {
        if !host.is_loopback() && listen.key.is_none() {
            return Err(ProcessError::NoKey(host));
        }
    }
    let mut held = lock(&home)?;
    held.write_pid(&home)?;
    let (usage, _thread) = Usage::open(&home.usage()).map_err(|e| ProcessError::Other(e.to_string()))?;
    // Before anything is read of them.
    take_over(&home, usage.clone()).await;
    let gateway = Arc::new(Gateway::new(Arc::new(Live::new(home.clone())), usage));
    for fault in gateway.live().faults() {
        tracing::error!("{fault}");
    }
    let doors = Arc::new(Doors { key: listen.key });
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for service in Service::ALL {
        let port = listen.ports[service.index()];
        let variable = format!("CLP_{}_PORT", service.name().to_uppercase());
        let listener = bind(listen.host, port, service.name(), variable)?;
        addresses.push(listener.local_addr()?);
        listeners.push((service, listener));
    }
    let page = bind(
        listen.ui_host,
        listen.ui_port,
        "the page",
        "CLP_UI_PORT".to_owned(),
    )?;
    let running = Running {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
        claude: addresses[0],
        codex: addresses[1],
        gemini: addresses[2],
        ui: page.local_addr()?,
    };
    let api = Arc::new(Api::new(gateway.clone(), running.clone(), pages, doors.clone()));
    let tasks = TaskTracker::new();
    for (service, listener) in listeners {
        tasks.spawn(server::serve(
            listener,
            service,
            gateway.clone(),
            doors.clone(),
            stop.clone(),
        ));
    }
    tasks.spawn(server::serve_page(page, api, stop.clone()));
    tasks.spawn(persist::keep(gateway.clone(), stop.clone()));
    let text = serde_json::to_string(&running).map_err(|e| ProcessError::Other(e.to_string()))?;
    arp_common::private::replace(&state_path(&home), text.as_bytes())?;
    for path in pid_paths(&home) {
        arp_common::private::replace(&path, running.pid.to_string().as_bytes())?;
    }
    ready(&running);
    tasks.close();
    tasks.wait().await;
    let flush = gateway.usage().clone();
    let _ = tokio::task::spawn_blocking(move || flush.flush()).await;
    for path in pid_paths(&home).into_iter().chain([state_path(&home)]) {
        let _ = std::fs::remove_file(path);
    }
    drop(held);
    Ok(())
}

fn bind(host: IpAddr, port: u16, what: &'static str, variable: String) -> Result<TcpListener, ProcessError> {
    net::listen_at((host, port).into()).map_err(|source| ProcessError::Port {
        what,
        port,
        variable,
        // 0 and 65535 have no neighbour to name.
        next: port.checked_add(1_000).unwrap_or(port - 1_000),
        source,
    })
}

/// Takes over what CLP has counted, once.
async fn take_over(home: &Home, counts: Usage) {
    let home = home.clone();
    let done = tokio::task::spawn_blocking(move || {
        let imported = usage::import::read(&home).map_err(|e| e.to_string())?;
        if imported.files.is_empty() {
            return Ok(None);
        }
        let files = imported.files.join(", ");
        let new = counts.import(imported).map_err(|e| e.to_string())?;
        Ok::<_, String>(new.then_some(files))
    })
    .await;
    match done {
        Ok(Ok(Some(files))) => tracing::info!("counts were taken over from {files}"),
        Ok(Ok(None)) => {}
        Ok(Err(e)) => tracing::warn!("what CLP has counted could not be taken over: {e}"),
        Err(e) => tracing::warn!("what CLP has counted could not be taken over: {e}"),
    }
}

/// The gateway of this home, if one runs. What a crashed one has left behind is not believed.
///
/// # Errors
/// When the folder cannot be used.
pub fn running(home: &Home) -> Result<Option<Running>, ProcessError> {
    let since = Instant::now();
    // It holds the lock already and its ports a moment later.
    while let Some(pid) = holder(home)? {
        let state = std::fs::read_to_string(state_path(home)).ok();
        let state: Option<Running> = state.and_then(|text| serde_json::from_str(&text).ok());
        if let Some(state) = state.filter(|state| state.pid == pid) {
            return Ok(Some(state));
        }
        if since.elapsed() > START {
            return Err(ProcessError::Other(format!(
                "process {pid} holds the gateway's lock but does not say where it listens; its log: {}",
                log_path(home).display()
            )));
        }
        std::thread::sleep(LOOK);
    }
    Ok(None)
}

/// Starts `program` (arguments included) in the background and waits until the gateway's ports answer.
///
/// # Errors
/// When one runs already, or the new one ends at once: then with the last lines of its log.
pub fn start(home: &Home, program: &[std::ffi::OsString]) -> Result<Running, ProcessError> {
    if let Some(running) = running(home)? {
        return Err(ProcessError::Running(running.pid));
    }
    home.create()?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_path(home))?;
    let begin = log.metadata()?.len();
    let (first, rest) = program
        .split_first()
        .ok_or_else(|| ProcessError::Other("no program to start".to_owned()))?;
    let mut command = Command::new(first);
    command
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // Of its own group: Ctrl-C in the terminal that started it is not meant for it.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    #[cfg(windows)]
    {
        const DETACHED_PROCESS: u32 = 0x8;
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        std::os::windows::process::CommandExt::creation_flags(
            &mut command,
            DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP,
        );
    }
    let mut child = command.spawn()?;
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            let said = log_from(home, begin);
            return Err(ProcessError::Other(if said.is_empty() {
                format!("the gateway ended at once ({status})")
            } else {
                said
            }));
        }
        if let Ok(text) = std::fs::read_to_string(state_path(home))
            && let Ok(state) = serde_json::from_str::<Running>(&text)
            && state.pid == child.id()
        {
            // A starter that lives on (arpc) is told of its end by nobody else.
            std::thread::spawn(move || child.wait());
            return Ok(state);
        }
        if since.elapsed() > START {
            return Err(ProcessError::Other(format!(
                "the gateway does not answer after {} s; its log: {}",
                START.as_secs(),
                log_path(home).display()
            )));
        }
        std::thread::sleep(LOOK);
    }
}

/// What was written into the log since it had this length: the reason of an end, at the end.
fn log_from(home: &Home, begin: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log_path(home))?;
        file.seek(io::SeekFrom::Start(begin))?;
        let mut text = String::new();
        file.take(4_096).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().unwrap_or_default();
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("arpc: ")
        .to_owned()
}

/// Ends the gateway of this home, and waits until it has ended.
///
/// # Errors
/// When none runs, or it does not end in time.
pub fn stop(home: &Home) -> Result<u32, ProcessError> {
    let Some(running) = running(home)? else {
        return Err(ProcessError::NotRunning);
    };
    ask_to_end(running.pid)?;
    let since = Instant::now();
    while since.elapsed() < STOP {
        if holder(home)?.is_none() {
            return Ok(running.pid);
        }
        std::thread::sleep(LOOK);
    }
    Err(ProcessError::Other(format!(
        "process {} does not end",
        running.pid
    )))
}

#[cfg(unix)]
fn ask_to_end(pid: u32) -> Result<(), ProcessError> {
    use rustix::process::{Pid, Signal, kill_process};
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(ProcessError::NotRunning)?;
    kill_process(pid, Signal::TERM).map_err(|e| ProcessError::Other(format!("it cannot be told to end: {e}")))
}

#[cfg(not(unix))]
fn ask_to_end(pid: u32) -> Result<(), ProcessError> {
    let ended = Command::new("taskkill")
        .args(["/F", "/PID", &pid.to_string()])
        .output()?;
    if ended.status.success() {
        return Ok(());
    }
    Err(ProcessError::Other(
        String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
    ))
}
