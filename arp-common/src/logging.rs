//! One way to log, for both daemons: human lines on standard error, and for the edge a daily file besides.

use std::io::IsTerminal;
use std::path::Path;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Daily files that are kept.
const KEEP_FILES: usize = 14;

/// Starts logging to standard error at `info`, or as `RUST_LOG` says, and to `<dir>/<prefix>.YYYY-MM-DD`
/// when a directory is given. The guard writes the file's last lines when it is dropped: keep it in `main`.
///
/// # Errors
/// If the directory cannot be made or a file in it not be opened; nothing is set up then.
pub fn init(file: Option<(&Path, &str)>) -> std::io::Result<Option<WorkerGuard>> {
    let stderr = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_filter(filter());
    let (file, guard) = match file {
        None => (None, None),
        Some((dir, prefix)) => {
            std::fs::create_dir_all(dir)?;
            let appender = rolling::Builder::new()
                .rotation(rolling::Rotation::DAILY)
                .filename_prefix(prefix)
                .max_log_files(KEEP_FILES)
                .build(dir)
                .map_err(std::io::Error::other)?;
            let (writer, guard) = tracing_appender::non_blocking(appender);
            let layer = fmt::layer()
                .with_writer(writer)
                .with_ansi(false)
                .with_filter(filter());
            (Some(layer), Some(guard))
        }
    };
    // A second call (tests that start several daemons in one process) keeps the first set-up.
    let _ = tracing_subscriber::registry().with(stderr).with(file).try_init();
    Ok(guard)
}

fn filter() -> EnvFilter {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy()
}
