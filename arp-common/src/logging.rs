//! One way to log, for both daemons: lines on standard error, and for the edge a daily file besides; for people, or as
//! JSON for programs. Lines that repeat without end are counted instead of written.

mod repeats;

use repeats::Repeats;
use serde::Deserialize;
use std::io::IsTerminal;
use std::path::Path;
use std::str::FromStr;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// Daily files that are kept.
const KEEP_FILES: usize = 14;

/// Lines that wait for the disk; those beyond are lost to the file. The places for them take memory from the start (at
/// the library's own 128,000 that is 4 MB).
const LINES_WAITING: usize = 8192;

/// Libraries that at `debug` and `trace` write down what goes through them, tokens included. They are heard at `info`
/// unless `RUST_LOG` names them.
const TALKATIVE: &[&str] = &[
    "h2",
    "hyper",
    "hyper_util",
    "reqwest",
    "rmcp",
    "rustls",
    "tungstenite",
];

/// How lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: `timestamp`, `level`, `fields` with `message` among them.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("has to be text or json"),
        }
    }
}

/// Starts logging to standard error at `info`, or as `RUST_LOG` says, and to `<dir>/<prefix>.YYYY-MM-DD`
/// when a directory is given. The guard writes the file's last lines when it is dropped: keep it in `main`.
///
/// # Errors
/// If the directory cannot be made or a file in it not be opened; nothing is set up then.
pub fn init(format: LogFormat, file: Option<(&Path, &str)>) -> std::io::Result<Option<WorkerGuard>> {
    let ansi = std::io::stderr().is_terminal();
    let stderr = lines(format, std::io::stderr, ansi, false);
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
            let (writer, guard) = NonBlockingBuilder::default()
                .buffered_lines_limit(LINES_WAITING)
                .finish(appender);
            (Some(lines(format, writer, false, true)), Some(guard))
        }
    };
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    // A second call (tests that start several daemons in one process) keeps the first set-up.
    let _ = subscriber(&wanted, stderr, file).try_init();
    Ok(guard)
}

/// All that hears what is logged. What the filter does not want costs nobody anything: it stands in front of everything
/// else, since a layer without a filter would have each line made, down to `trace`.
fn subscriber<A, B>(wanted: &str, stderr: A, file: B) -> impl tracing::Subscriber + Send + Sync
where
    A: Layer<Filtered> + Send + Sync,
    B: Layer<Layered<A, Filtered>> + Send + Sync,
{
    tracing_subscriber::registry()
        .with(filter_of(wanted))
        .with(Repeats::default())
        .with(stderr)
        .with(file)
}

type Filtered = Layered<Repeats, Layered<EnvFilter, Registry>>;

/// A layer that writes lines. `target` says whether each names the module that it comes from.
fn lines<S, W>(format: LogFormat, writer: W, ansi: bool, target: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer()
        .with_writer(writer)
        .with_ansi(ansi)
        .with_target(target);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().boxed(),
    }
}

fn filter_of(wanted: &str) -> EnvFilter {
    // The default of the builder counts only where there is no directive at all.
    let mut directives = if wanted.trim().is_empty() { "info" } else { wanted }.to_owned();
    for name in TALKATIVE {
        let named = wanted.split(',').any(|d| {
            let d = d.trim();
            d.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['=', ':', '[']) || rest.is_empty())
        });
        if !named {
            directives.push_str(&format!(",{name}=info"));
        }
    }
    EnvFilter::builder().parse_lossy(directives)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn what_nobody_wants_to_read_is_not_even_made() {
        for (wanted, level, is_made) in [
            ("", Level::INFO, true),
            ("", Level::DEBUG, false),
            ("warn", Level::INFO, false),
            ("debug", Level::DEBUG, true),
            ("debug", Level::TRACE, false),
        ] {
            let lines = || lines(LogFormat::Text, std::io::sink, false, false);
            let file = Some(super::lines(LogFormat::Json, std::io::sink, false, true));
            tracing::subscriber::with_default(subscriber(wanted, lines(), file), || {
                let enabled = match level {
                    Level::INFO => tracing::enabled!(Level::INFO),
                    Level::DEBUG => tracing::enabled!(Level::DEBUG),
                    _ => tracing::enabled!(Level::TRACE),
                };
                assert_eq!(enabled, is_made, "RUST_LOG={wanted}: {level}");
            });
        }
    }

    #[test]
    fn talkative_libraries_are_heard_when_they_are_named() {
        let quiet = filter_of("trace").to_string();
        assert!(quiet.contains("h2=info") && quiet.contains("trace"), "{quiet}");
        let named = filter_of("debug,h2=trace,hyper::proto=debug").to_string();
        assert!(
            named.contains("h2=trace") && !named.contains("h2=info"),
            "{named}"
        );
        assert!(
            !named.contains("hyper=info") && named.contains("hyper_util=info"),
            "{named}"
        );
        let unset = filter_of("").to_string();
        assert!(
            unset.contains("rmcp=info") && unset.split(',').any(|d| d == "info"),
            "{unset}"
        );
        assert_eq!(
            ("json".parse(), "text".parse()),
            (Ok(LogFormat::Json), Ok(LogFormat::Text))
        );
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
