//! Texts that come in fragments: each is told once more as a whole when its turn is over, so that the fragments can
//! be dropped; and the last line of what is being written, for the inbox.

use crate::model::ending;
use arp_agents::event::Event;
use std::collections::{BTreeMap, BTreeSet};

/// Texts are put together up to so many bytes; a longer one stays in fragments.
const MOST: usize = 4 * 1024 * 1024;

/// What is being written.
#[derive(Debug, Default)]
pub(super) struct Texts {
    open: BTreeMap<(Sort, String), Open>,
    bytes: usize,
    /// Texts that were too long.
    given_up: BTreeSet<(Sort, String)>,
    /// The id and the end of the text that is shown as activity.
    shown: (String, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Text,
    Thinking,
}

#[derive(Debug)]
struct Open {
    text: String,
    parent: Option<String>,
}

impl Texts {
    /// Takes note of an event.
    pub(super) fn note(&mut self, event: &Event) {
        let (sort, id, text, delta, parent) = match event {
            Event::Text {
                id,
                text,
                delta,
                parent,
            } => (Sort::Text, id, text, *delta, parent),
            Event::Thinking {
                id,
                text,
                delta,
                parent,
            } => (Sort::Thinking, id, text, *delta, parent),
            _ => return,
        };
        let key = (sort, id.clone());
        if !delta {
            self.close(&key);
            return;
        }
        if self.bytes + text.len() > MOST {
            self.close(&key);
            self.given_up.insert(key);
            return;
        }
        if self.given_up.contains(&key) {
            // Half a text must not stand for the whole.
            return;
        }
        let open = self.open.entry(key).or_insert_with(|| Open {
            text: String::new(),
            parent: parent.clone(),
        });
        open.text.push_str(text);
        self.bytes += text.len();
    }

    fn close(&mut self, key: &(Sort, String)) {
        if let Some(open) = self.open.remove(key) {
            self.bytes -= open.text.len();
        }
    }

    /// The turn is over: texts that were only told in fragments, as wholes.
    pub(super) fn finish(&mut self) -> Vec<Event> {
        self.bytes = 0;
        self.given_up.clear();
        self.shown.0.clear();
        std::mem::take(&mut self.open)
            .into_iter()
            .map(|((sort, id), Open { text, parent })| match sort {
                Sort::Text => Event::Text {
                    id,
                    text,
                    delta: false,
                    parent,
                },
                Sort::Thinking => Event::Thinking {
                    id,
                    text,
                    delta: false,
                    parent,
                },
            })
            .collect()
    }

    /// The last line of the text that is being written.
    pub(super) fn last_line(&mut self, id: &str, text: &str, delta: bool) -> Option<&str> {
        let (shown_id, shown) = &mut self.shown;
        if !delta || shown_id != id {
            id.clone_into(shown_id);
            shown.clear();
        }
        shown.push_str(text);
        if shown.len() > 4096 {
            *shown = ending(shown, 2048).to_owned();
        }
        shown.lines().rev().map(str::trim).find(|line| !line.is_empty())
    }
}
