//! A flood of lines from one place in the code is cut: what a hostile peer can have us say must not fill the disk or
//! hide what an operator has to see.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines of one place in the code that are written within [`WINDOW`].
const MOST: u32 = 100;
const WINDOW: Duration = Duration::from_secs(10);

/// Lines of the last window, by the place in the code.
#[derive(Debug, Default)]
pub(super) struct Repeats(Arc<Mutex<HashMap<Identifier, Place>>>);

#[derive(Debug)]
struct Place {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Who turns on debugging wants to see everything.
        if *metadata.level() > Level::INFO || metadata.name() == SUMMARY {
            return true;
        }
        let now = Instant::now();
        match self.admit(metadata.callsite(), now) {
            Verdict::Written => true,
            Verdict::LeftOut => false,
            Verdict::FirstLeftOut(until) => {
                self.sum_up(metadata.callsite(), metadata.file(), metadata.line(), until - now);
                false
            }
        }
    }
}

/// Name of the line that tells how many were left out.
const SUMMARY: &str = "repeats";

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Written,
    LeftOut,
    /// The first one of a window, which ends then.
    FirstLeftOut(Instant),
}

impl Repeats {
    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, place: Identifier, now: Instant) -> Verdict {
        let mut places = self.lock();
        let new = || Place {
            since: now,
            lines: 0,
            left_out: 0,
        };
        let place = places.entry(place).or_insert_with(new);
        if now >= place.since + WINDOW && place.left_out == 0 {
            *place = new();
        }
        if place.lines < MOST {
            place.lines += 1;
            return Verdict::Written;
        }
        place.left_out += 1;
        if place.left_out == 1 {
            Verdict::FirstLeftOut((place.since + WINDOW).max(now))
        } else {
            Verdict::LeftOut
        }
    }

    /// Says at the end of the window how many were left out, and begins a new one.
    fn sum_up(&self, place: Identifier, file: Option<&'static str>, line: Option<u32>, wait: Duration) {
        let places = self.0.clone();
        let at = (file.unwrap_or("?"), line.unwrap_or(0));
        let wait_and_tell = move || {
            std::thread::sleep(wait);
            let gone = places
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&place);
            if let Some(gone) = gone {
                tracing::event!(
                    name: "repeats",
                    Level::WARN,
                    left_out = gone.left_out,
                    from = format!("{}:{}", at.0, at.1),
                    "the last lines went on like this; they were left out"
                );
            }
        };
        // One for each place that floods, for as long as a window lasts.
        let _ = std::thread::Builder::new()
            .name("repeats".into())
            .spawn(wait_and_tell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_is_cut_and_others_are_not() {
        let sink = Sink::default();
        let out = sink.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || out.clone());
        let subscriber = tracing_subscriber::registry()
            .with(Repeats::default())
            .with(lines);
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..MOST + 50 {
                tracing::warn!("flood {n}");
            }
            tracing::error!("something else");
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("flood").count(), MOST as usize);
        assert_eq!(text.matches("something else").count(), 1);
    }

    #[test]
    fn a_new_window_begins_after_the_old_one() {
        use tracing::callsite::{Callsite, Identifier};
        struct Here;
        impl Callsite for Here {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &tracing::Metadata<'_> {
                unreachable!("nobody asks")
            }
        }
        static HERE: Here = Here;
        let place = || Identifier(&HERE);
        let repeats = Repeats::default();
        let begin = Instant::now();
        for _ in 0..MOST {
            assert_eq!(repeats.admit(place(), begin), Verdict::Written);
        }
        let later = begin + WINDOW / 2;
        assert_eq!(
            repeats.admit(place(), later),
            Verdict::FirstLeftOut(begin + WINDOW)
        );
        assert_eq!(repeats.admit(place(), later), Verdict::LeftOut);
        repeats.lock().clear();
        for _ in 0..MOST {
            assert_eq!(repeats.admit(place(), later), Verdict::Written);
        }
        assert_eq!(
            repeats.admit(place(), later + WINDOW),
            Verdict::Written,
            "it was full, and is over"
        );
    }
}
