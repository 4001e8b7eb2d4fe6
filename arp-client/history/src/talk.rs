//! A page of a session as events.

use crate::defaults::{MAX_PAGE_BYTES, MAX_PAGE_LINES};
use crate::events::{self, Said};
use crate::format::{Format, Teller, Told};
use crate::lines::Line;
use crate::page::{Opened, Page, Taken};
use crate::shapes::HistoryEvent;
use crate::store::Store;
use crate::{HistoryError, summary};
use serde_json::Value;
use std::sync::atomic::AtomicU64;

/// Events, how many records the session has, and where the next page begins.
pub(crate) struct Talk {
    pub(crate) events: Vec<HistoryEvent>,
    pub(crate) records: u64,
    pub(crate) next: Option<u64>,
}

/// The events of a page.
pub(crate) fn page(
    store: &Store,
    counter: &AtomicU64,
    format: &dyn Format,
    opened: &Opened,
    page: Page,
) -> Result<Talk, HistoryError> {
    match format.told(&opened.path, counter) {
        Told::Lines { teller, lead } => of_lines(store, counter, format, opened, page, (teller, lead)),
        Told::Messages(events_of) => of_messages(store, counter, opened, page, events_of),
    }
}

fn of_lines(
    store: &Store,
    counter: &AtomicU64,
    format: &dyn Format,
    opened: &Opened,
    page: Page,
    (mut teller, lead): (Box<dyn Teller + '_>, bool),
) -> Result<Talk, HistoryError> {
    let mut all = Vec::new();
    let take = |number: u64, line: Line<'_>| {
        let told = line.bytes.filter(|b| !summary::is_housekeeping(format, b));
        let Some(value) = told.and_then(events::value) else {
            return Taken::LeftOut;
        };
        let said = teller.tell(number, &value);
        if said.is_empty() || number < page.from {
            return Taken::LeftOut;
        }
        all.extend(said.into_iter().map(|(timestamp, event)| HistoryEvent {
            line: number,
            timestamp,
            event,
        }));
        Taken::Given
    };
    let next = opened.walk(store, counter, page, lead, take)?;
    Ok(Talk {
        events: all,
        records: opened.lines,
        next,
    })
}

/// The records are the messages that stand, wherever their lines are.
fn of_messages(
    store: &Store,
    counter: &AtomicU64,
    opened: &Opened,
    page: Page,
    events_of: fn(&Value, Option<usize>) -> Option<Said>,
) -> Result<Talk, HistoryError> {
    let summary = opened.summary(store)?;
    let list = summary.journal.list();
    let from = usize::try_from(page.from).unwrap_or(usize::MAX).min(list.len());
    let limit = page.limit.clamp(1, MAX_PAGE_LINES);
    let (mut all, mut bytes, mut at) = (Vec::new(), 0, from);
    let mut line: Option<(u64, Option<Value>)> = None;
    for message in list.iter().skip(from).take(limit) {
        // Many messages may share one line; it is read and parsed once.
        if line.as_ref().map(|(offset, _)| *offset) != Some(message.offset) {
            let text = opened.line_at(counter, message.offset)?;
            let len = text.as_ref().map_or(0, Vec::len) as u64;
            if bytes > 0 && bytes + len > MAX_PAGE_BYTES {
                break;
            }
            bytes += len;
            line = Some((message.offset, text.as_deref().and_then(events::value)));
        }
        let value = line.as_ref().and_then(|(_, value)| value.as_ref());
        if let Some((timestamp, said)) = value.and_then(|value| events_of(value, message.place)) {
            let tell = |event| HistoryEvent {
                line: at as u64,
                timestamp: timestamp.clone(),
                event,
            };
            all.extend(said.into_iter().map(tell));
        }
        at += 1;
    }
    let next = (at < list.len()).then_some(at as u64);
    Ok(Talk {
        events: all,
        records: list.len() as u64,
        next,
    })
}
