//! Bodies that are kept for a person to look at: without anything that any rule or any preset would hide, so that no
//! secret lies on the disk; each place says what was found there, so that a dry run can tell what would be hidden.

use super::find::Preset;
use super::{By, Found, Redaction, Settings, dry_run};
use crate::files::filters::Filters;
use crate::redact::placeholder::Key;
use crate::strings::{self, At};
use std::collections::BTreeMap;

/// What stands in the place of something that was found: `‹hidden:mails›`.
const OPEN: &str = "‹hidden:";
const CLOSE: char = '›';

/// Finds what the rules in force and all presets find.
#[derive(Debug, Clone)]
pub struct Masker {
    filters: Filters,
    redaction: Redaction,
}

impl Masker {
    /// For these rules.
    #[must_use]
    pub fn new(filters: &Filters, redaction: &Redaction) -> Self {
        Self {
            filters: filters.clone(),
            redaction: Redaction {
                presets: Preset::ALL.to_vec(),
                ..redaction.clone()
            },
        }
    }

    /// `body` (JSON, or else a text) with marks in place of all that was found, as it may be kept.
    #[must_use]
    pub fn masked(&self, body: &[u8]) -> String {
        let json = strings::rewrite(body, |at, text| {
            (!is_binary(at, text)).then(|| self.text(text))?
        });
        match json {
            Ok(new) => String::from_utf8_lossy(new.as_deref().unwrap_or(body)).into_owned(),
            Err(_) => {
                let text = String::from_utf8_lossy(body);
                self.text(&text).unwrap_or_else(|| text.into_owned())
            }
        }
    }

    fn text(&self, text: &str) -> Option<String> {
        let mut new: Option<String> = None;
        for (number, rule) in self.filters.rules.iter().enumerate() {
            let mark = mark(&format!("filter {}", number + 1));
            new = rule.marked(new.as_deref().unwrap_or(text), &mark).or(new);
        }
        let text = new.as_deref().unwrap_or(text);
        let found = self.redaction.find(text);
        if found.is_empty() {
            return new;
        }
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        for (range, by) in found {
            out.push_str(&text[copied..range.start]);
            out.push_str(&mark(&by.name()));
            copied = range.end;
        }
        out.push_str(&text[copied..]);
        Some(out)
    }
}

fn mark(by: &str) -> String {
    format!("{OPEN}{by}{CLOSE}")
}

/// Pictures and the like: nothing that patterns of texts could find anything true in.
fn is_binary(at: At<'_>, text: &str) -> bool {
    !at.free
        && ((at.key == "data"
            && matches!(
                at.parent,
                "source" | "inlineData" | "inline_data" | "content" | "input_audio"
            ))
            || matches!(
                at.key,
                "signature" | "encrypted_content" | "thoughtSignature" | "thought_signature"
            )
            || (matches!(at.key, "url" | "image_url") && text.starts_with("data:image/")))
}

/// What of a kept body would be hidden by these rules.
#[must_use]
pub fn would_hide(filters: &Filters, redaction: &Redaction, key: &Key, body: &str) -> Vec<Found> {
    let mut all: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut note = |by: String, count: usize, example: String| {
        let entry = all.entry(by).or_insert((0, example));
        entry.0 += count;
    };
    let mut look = |text: &str| {
        for by in marks(text) {
            if is_asked_for(filters, &redaction.settings, by) {
                note(by.to_owned(), 1, "…".to_owned());
            }
        }
        let (_, found) = dry_run(filters, redaction, key, &without_marks(text));
        for found in found {
            note(found.by, found.count, found.example);
        }
    };
    let json = strings::rewrite(body.as_bytes(), |at, text| {
        if !super::is_untouchable(at, text) {
            look(text);
        }
        None
    });
    // One that was cut is no JSON any more. Nothing of it was looked at twice: each part before the fault counts once.
    if let Err(strings::NotJson(at)) = json {
        look(body.get(at..).unwrap_or_default());
    }
    all.into_iter()
        .map(|(by, (count, example))| Found { by, count, example })
        .collect()
}

/// What was found in a body before it was kept, by name.
#[must_use]
pub fn hidden_in(body: &str) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for by in marks(body) {
        *all.entry(by.to_owned()).or_insert(0) += 1;
    }
    all
}

fn marks(text: &str) -> impl Iterator<Item = &str> {
    text.split(OPEN)
        .skip(1)
        .filter_map(|rest| rest.split_once(CLOSE))
        .map(|(by, _)| by)
}

fn without_marks(text: &str) -> String {
    let mut parts = text.split(OPEN);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push('\u{2039}');
        out.push_str(part.split_once(CLOSE).map_or(part, |(_, rest)| rest));
    }
    out
}

fn is_asked_for(filters: &Filters, settings: &Settings, by: &str) -> bool {
    let numbered = |name: &str, count: usize| {
        by.strip_prefix(name)
            .and_then(|n| n.trim().parse::<usize>().ok())
            .is_some_and(|n| (1..=count).contains(&n))
    };
    settings.presets.iter().any(|preset| preset == by)
        || (by == "word" && !settings.words.is_empty())
        || numbered("pattern ", settings.patterns.len())
        || numbered("filter ", filters.rules.len())
}

impl By {
    /// As dry runs call it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Word => "word".to_owned(),
            Self::Pattern(number) => format!("pattern {}", number + 1),
            Self::Preset(preset) => preset.name().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn rules(filters: &str, presets: &[&str], words: &[&str]) -> (Filters, Redaction) {
        let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
        let settings = Settings {
            presets: texts(presets),
            words: texts(words),
            ..Settings::default()
        };
        (
            Filters::parse(Path::new("filter.json"), filters).unwrap(),
            Redaction::new(&settings).unwrap(),
        )
    }

    #[test]
    fn nothing_that_any_preset_knows_is_kept_and_a_dry_run_still_finds_it() {
        let (filters, none) = rules("", &[], &["hushhost"]);
        let body = r#"{"model":"m","messages":[{"content":"mail a@corp.example at hushhost about password=\"hunter2hunter2\" \u00e9"}],"n":1.50}"#;
        let kept = Masker::new(&filters, &none).masked(body.as_bytes());
        assert!(
            !kept.contains("a@corp") && !kept.contains("hunter2") && !kept.contains("hushhost"),
            "{kept}"
        );
        assert!(
            kept.starts_with(r#"{"model":"m""#) && kept.ends_with(r#""n":1.50}"#),
            "{kept}"
        );
        assert_eq!(hidden_in(&kept).get("mails"), Some(&1), "{kept}");

        let key = Key::random();
        let found = |filters: &Filters, redaction: &Redaction| -> Vec<(String, usize)> {
            let all = would_hide(filters, redaction, &key, &kept);
            all.into_iter().map(|f| (f.by, f.count)).collect()
        };
        assert_eq!(found(&filters, &none), [("word".to_owned(), 1)]);
        let (rule, mails) = rules(r#"[{"source":"about","op":"remove"}]"#, &["mails"], &[]);
        assert_eq!(
            found(&rule, &mails),
            [("filter 1".to_owned(), 1), ("mails".to_owned(), 1)]
        );
        // Cut in the middle, and no JSON at all.
        let cut = &kept[..kept.find(" about").unwrap() + 6];
        assert!(
            would_hide(&rule, &mails, &key, cut)
                .iter()
                .any(|f| f.by == "filter 1")
        );
        assert!(
            !Masker::new(&filters, &none)
                .masked(b"a@corp.example, no json")
                .contains("a@corp")
        );
    }

    #[test]
    fn what_a_filter_finds_is_marked_with_its_number() {
        let (filters, redaction) = rules(r#"[{"source":"x[0-9]+","target":"y","op":"replace"}]"#, &[], &[]);
        let kept = Masker::new(&filters, &redaction).masked(br#"["x12 and x3"]"#);
        assert_eq!(kept, r#"["‹hidden:filter 1› and ‹hidden:filter 1›"]"#);
    }
}
