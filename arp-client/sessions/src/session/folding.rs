//! Which events of a log only held fragments of a text that a later event has whole.

use crate::log::{LogError, LogReader, Spans};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// What counts of an event.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
    delta: bool,
}

/// The numbers of all fragments whose whole text follows.
pub(super) fn fragments(events: &Path) -> Result<Spans, LogError> {
    let mut log = LogReader::open(events)?;
    let mut open: HashMap<(String, String), Vec<u64>> = HashMap::new();
    let mut needless = Vec::new();
    while let Some(record) = log.next_record()? {
        let Ok(part) = serde_json::from_slice::<Part<'_>>(&record.payload) else {
            continue;
        };
        let key = (part.kind.to_owned(), part.id.into_owned());
        if part.delta {
            open.entry(key).or_default().push(record.seq);
        } else if let Some(mut fragments) = open.remove(&key) {
            needless.append(&mut fragments);
        }
    }
    needless.sort_unstable();
    let mut spans = Spans::default();
    needless.into_iter().for_each(|seq| spans.push(seq));
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Kind, LogWriter};

    #[test]
    fn fragments_go_where_the_whole_follows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.log");
        let mut log = LogWriter::open(&path, true).unwrap();
        for event in [
            r#"{"type":"user_message","id":"u","text":"x"}"#,
            r#"{"type":"text","id":"a","text":"he","delta":true}"#,
            r#"{"type":"thinking","id":"a","text":"hm","delta":true}"#,
            r#"{"type":"text","id":"a","text":"llo","delta":true}"#,
            r#"{"type":"text","id":"a","text":"hello","delta":false}"#,
            r#"{"type":"text","id":"b","text":"cut","delta":true}"#,
            r#"{"type":"turn_end","status":"completed"}"#,
        ] {
            log.append(Kind::Event, 1, true, 0, event.as_bytes()).unwrap();
        }
        log.flush().unwrap();
        let drop = fragments(&path).unwrap();
        let dropped: Vec<u64> = (1..=7).filter(|seq| drop.contains(*seq)).collect();
        assert_eq!(dropped, [2, 4]);
    }
}
