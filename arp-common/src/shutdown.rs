//! One way to stop, for both daemons: the first SIGINT or SIGTERM asks, the second ends at once.

use tokio_util::sync::CancellationToken;

/// Exit code of a daemon that was told to stop at once by a second signal.
const IMPATIENT: i32 = 130;

/// A token that is cancelled at the first SIGINT, SIGTERM or (Windows) Ctrl-C / Ctrl-Break. A second
/// signal ends the process at once.
///
/// # Errors
/// If the operating system refuses the handlers.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let stop = token.clone();
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        signals.recv().await;
        tracing::info!("stopping; once more to stop at once");
        crate::service::stopping();
        stop.cancel();
        signals.recv().await;
        std::process::exit(IMPATIENT);
    });
    Ok(token)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals {
    c: tokio::signal::windows::CtrlC,
    brk: tokio::signal::windows::CtrlBreak,
}

#[cfg(windows)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            c: tokio::signal::windows::ctrl_c()?,
            brk: tokio::signal::windows::ctrl_break()?,
        })
    }
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.c.recv() => {}
            _ = self.brk.recv() => {}
        }
    }
}
