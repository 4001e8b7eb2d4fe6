//! What upstreams are not to see: CLP's filters, which change a request for good, and redaction, which puts a
//! placeholder in the place of each secret and the secret back into the answer.

pub mod find;
mod keys;
mod numbers;
pub mod pieces;
pub mod placeholder;
pub mod recorded;
pub mod restore;

use crate::files::filters::Filters;
use crate::strings::{self, At};
use bytes::Bytes;
use find::Preset;
use placeholder::{Hidden, Key};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// `[redaction]` of `gateway.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Names of presets.
    pub presets: Vec<String>,
    /// Texts that are hidden as they are: paths, host names.
    pub words: Vec<String>,
    /// Patterns; what they find is hidden, or their first group if they have one.
    pub patterns: Vec<String>,
    /// Texts that are never hidden.
    pub keep: Vec<String>,
    /// Services whose requests are redacted; all where none is named.
    pub services: Vec<String>,
    /// Lets requests pass when the rules cannot be used. Off: they are refused.
    pub fail_open: bool,
}

/// Everything that is to be hidden, ready to be used.
#[derive(Debug, Clone, Default)]
pub struct Redaction {
    settings: Settings,
    presets: Vec<Preset>,
    patterns: Vec<Regex>,
}

/// One thing that was found, for a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The preset, `word`, `pattern N` or `filter N`.
    pub by: String,
    /// How often.
    pub count: usize,
    /// One of them, hidden but for its ends.
    pub example: String,
}

impl Redaction {
    /// From the settings.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let known = || Preset::ALL.map(Preset::name).join(", ");
        let presets = settings.presets.iter().map(|name| {
            Preset::parse(name)
                .ok_or_else(|| format!("redaction: there is no preset {name:?}; there are: {}", known()))
        });
        let patterns = settings.patterns.iter().map(|pattern| {
            let pattern =
                Regex::new(pattern).map_err(|e| format!("redaction: the pattern {pattern:?}: {e}"))?;
            if pattern.is_match("") {
                return Err(format!(
                    "redaction: the pattern {:?} takes empty text, too",
                    pattern.as_str()
                ));
            }
            Ok(pattern)
        });
        if settings.words.iter().any(|word| word.trim().len() < 3) {
            return Err(
                "redaction: a word has at least three characters, or it would be found everywhere".to_owned(),
            );
        }
        if let Some(name) = settings
            .services
            .iter()
            .find(|name| name.parse::<crate::service::Service>().is_err())
        {
            return Err(format!(
                "redaction: there is no service {name:?}: claude, codex, gemini"
            ));
        }
        Ok(Self {
            presets: presets.collect::<Result<_, _>>()?,
            patterns: patterns.collect::<Result<_, _>>()?,
            settings: settings.clone(),
        })
    }

    /// Is there anything to do for this service?
    #[must_use]
    pub fn is_on(&self, service: crate::service::Service) -> bool {
        let any = !self.presets.is_empty() || !self.patterns.is_empty() || !self.settings.words.is_empty();
        let services = &self.settings.services;
        any && (services.is_empty() || services.iter().any(|name| name == service.name()))
    }

    /// Where `text` holds secrets: in order, apart from each other, with what found them.
    fn find(&self, text: &str) -> Vec<(Range<usize>, By)> {
        let mut all = Vec::new();
        let mut ranges = Vec::new();
        for word in &self.settings.words {
            let found = memchr::memmem::find_iter(text.as_bytes(), word.as_bytes());
            all.extend(found.map(|at| (at..at + word.len(), By::Word)));
        }
        for (number, pattern) in self.patterns.iter().enumerate() {
            for found in pattern.captures_iter(text) {
                let group = found.iter().skip(1).flatten().next().or_else(|| found.get(0));
                let group = group.map(|group| group.range()).filter(|range| !range.is_empty());
                all.extend(group.map(|range| (range, By::Pattern(number))));
            }
        }
        find::find(&self.presets, text, &mut ranges);
        all.extend(
            ranges
                .into_iter()
                .map(|(range, preset)| (range, By::Preset(preset))),
        );
        if all.is_empty() {
            return all;
        }
        all.retain(|(range, _)| !self.settings.keep.iter().any(|keep| keep == &text[range.clone()]));
        // The first one counts, of two that begin together the longer one.
        all.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
        let mut free = 0;
        all.retain(|(range, _)| {
            let apart = range.start >= free;
            if apart {
                free = range.end;
            }
            apart
        });
        all
    }

    fn hide(&self, key: &Key, hidden: &mut Hidden, text: &str) -> Option<String> {
        let found = self.find(text);
        if found.is_empty() {
            return None;
        }
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        for (range, _) in found {
            out.push_str(&text[copied..range.start]);
            out.push_str(hidden.hide(key, &text[range.clone()]));
            copied = range.end;
        }
        out.push_str(&text[copied..]);
        Some(out)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Word,
    Pattern(usize),
    Preset(Preset),
}

/// Values that are not text of a person: signed, sealed, binary, or names that the API or the agent goes by.
fn is_untouchable(at: At<'_>, text: &str) -> bool {
    if at.free {
        return false;
    }
    matches!(
        at.key,
        "type"
            | "role"
            | "id"
            | "tool_use_id"
            | "call_id"
            | "signature"
            | "thinking"
            | "encrypted_content"
            | "thoughtSignature"
            | "thought_signature"
            | "model"
            | "media_type"
            | "mime_type"
            | "mimeType"
            | "prompt_cache_key"
            | "previous_response_id"
    ) || (at.key == "data"
        && matches!(
            at.parent,
            "source" | "inlineData" | "inline_data" | "content" | "input_audio"
        ))
        || (at.key == "user_id" && at.parent == "metadata")
        || (matches!(at.key, "url" | "image_url") && text.starts_with("data:image/"))
}

/// The request's body as the upstream is to see it; `None` if nothing changes.
///
/// # Errors
/// When the body is not JSON, so that nobody can tell what is in it.
pub fn hide(
    filters: &Filters,
    redaction: Option<&Redaction>,
    key: &Key,
    hidden: &mut Hidden,
    body: &[u8],
) -> Result<Option<Bytes>, strings::NotJson> {
    let new = strings::rewrite(body, |at, text| {
        if is_untouchable(at, text) {
            return None;
        }
        hide_value(filters, redaction, key, hidden, at, text)
    })?;
    Ok(new.map(Bytes::from))
}

/// A text beside the body (a header field) as the upstream is to see it; `None` if nothing changes.
pub fn hide_text(
    filters: &Filters,
    redaction: Option<&Redaction>,
    key: &Key,
    hidden: &mut Hidden,
    text: &str,
) -> Option<String> {
    plain(filters, redaction, key, hidden, text)
}

fn hide_value(
    filters: &Filters,
    redaction: Option<&Redaction>,
    key: &Key,
    hidden: &mut Hidden,
    at: At<'_>,
    text: &str,
) -> Option<String> {
    // The arguments of a tool are JSON in a string: what is in their strings is what counts.
    if at.key == "arguments"
        && text.trim_start().starts_with('{')
        && let Ok(inner) = strings::rewrite(text.as_bytes(), |_, text| {
            plain(filters, redaction, key, hidden, text)
        })
    {
        return inner.and_then(|inner| String::from_utf8(inner).ok());
    }
    plain(filters, redaction, key, hidden, text)
}

fn plain(
    filters: &Filters,
    redaction: Option<&Redaction>,
    key: &Key,
    hidden: &mut Hidden,
    text: &str,
) -> Option<String> {
    let mut new: Option<String> = None;
    for rule in &filters.rules {
        if let Some((changed, _)) = rule.apply(new.as_deref().unwrap_or(text)) {
            new = Some(changed);
        }
    }
    if let Some(redaction) = redaction {
        let hidden = redaction.hide(key, hidden, new.as_deref().unwrap_or(text));
        new = hidden.or(new);
    }
    new
}

/// What would be hidden of `text`, and how it would look.
#[must_use]
pub fn dry_run(filters: &Filters, redaction: &Redaction, key: &Key, text: &str) -> (String, Vec<Found>) {
    let mut all: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut note = |by: String, example: &str| {
        let entry = all.entry(by).or_insert_with(|| (0, shown(example)));
        entry.0 += 1;
    };
    let mut text = text.to_owned();
    for (number, rule) in filters.rules.iter().enumerate() {
        let example = rule.example(&text).unwrap_or_default().to_owned();
        if let Some((changed, count)) = rule.apply(&text) {
            for _ in 0..count {
                note(format!("filter {}", number + 1), &example);
            }
            text = changed;
        }
    }
    for (range, by) in redaction.find(&text) {
        note(by.name(), &text[range]);
    }
    let mut hidden = Hidden::of("");
    let out = redaction.hide(key, &mut hidden, &text).unwrap_or(text);
    let found = all
        .into_iter()
        .map(|(by, (count, example))| Found { by, count, example });
    (out, found.collect())
}

/// A secret of which only the ends are shown.
fn shown(secret: &str) -> String {
    let count = secret.chars().count();
    if count < 8 {
        return "…".to_owned();
    }
    let ends = (count / 8).min(4);
    let head: String = secret.chars().take(ends).collect();
    let tail: String = secret.chars().skip(count - ends).collect();
    format!("{head}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn redaction(presets: &[&str], words: &[&str]) -> Redaction {
        let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
        Redaction::new(&Settings {
            presets: texts(presets),
            words: texts(words),
            ..Settings::default()
        })
        .unwrap()
    }

    #[test]
    fn secrets_go_and_what_is_signed_stays() {
        let redaction = redaction(&["mails"], &["db.corp.internal"]);
        let key = Key::new(&[1; 32]);
        let mut hidden = Hidden::of("s");
        let body = r#"{"model":"a@b.cd","n":1.50,"messages":[{"role":"user","content":"mail a@b.cd on db.corp.internal"},
            {"role":"assistant","content":[{"type":"thinking","thinking":"a@b.cd","signature":"x"},
            {"type":"tool_use","id":"t","name":"Bash","input":{"command":"ping db.corp.internal"}}]}]}"#;
        let new = hide(
            &Filters::default(),
            Some(&redaction),
            &key,
            &mut hidden,
            body.as_bytes(),
        )
        .unwrap()
        .unwrap();
        let new = std::str::from_utf8(&new).unwrap();
        assert!(!new.contains("corp.internal"), "{new}");
        assert_eq!(
            new.matches("a@b.cd").count(),
            2,
            "the model's name and the thinking"
        );
        assert!(new.contains("\"n\":1.50") && hidden.len() == 2);
        let back = strings::rewrite(new.as_bytes(), |_, text| hidden.restore(text, str::to_owned))
            .unwrap()
            .unwrap();
        assert_eq!(String::from_utf8(back).unwrap(), body);
        assert!(
            hide(
                &Filters::default(),
                Some(&redaction),
                &key,
                &mut hidden,
                b"not json"
            )
            .is_err()
        );
    }

    #[test]
    fn a_tools_own_names_protect_no_secret() {
        let redaction = redaction(&["mails"], &[]);
        let key = Key::new(&[1; 32]);
        let inner = serde_json::json!({
            "id": "a@b.cd", "type": "a@b.cd", "model": "a@b.cd", "thinking": ["a@b.cd"], "signature": {"x": "a@b.cd"},
            "content": {"data": "a@b.cd"}, "url": "data:image/png a@b.cd",
        });
        for body in [
            serde_json::json!({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": inner}]}]}),
            serde_json::json!({"contents": [{"parts": [{"functionCall": {"name": "n", "args": inner}}]}]}),
            serde_json::json!({"contents": [{"parts": [{"functionResponse": {"response": inner}}]}]}),
            serde_json::json!({"messages": [{"role": "user", "content": "data:image/png a@b.cd"}]}),
        ] {
            let mut hidden = Hidden::of("s");
            let text = body.to_string();
            let new = hide(
                &Filters::default(),
                Some(&redaction),
                &key,
                &mut hidden,
                text.as_bytes(),
            );
            let new = new.unwrap().unwrap();
            assert_eq!(memchr::memmem::find(&new, b"a@b.cd"), None, "{body}");
            let back = restore::whole(&hidden, &new);
            let back: serde_json::Value = serde_json::from_slice(&back).unwrap();
            assert_eq!(back, body);
        }
    }

    #[test]
    fn settings_that_cannot_be_used_are_told() {
        let fault = |settings: Settings| Redaction::new(&settings).unwrap_err();
        let of = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert!(
            fault(Settings {
                presets: of(&["mail"]),
                ..Settings::default()
            })
            .contains("there are: api_keys")
        );
        assert!(
            fault(Settings {
                patterns: of(&["("]),
                ..Settings::default()
            })
            .contains("pattern")
        );
        assert!(
            fault(Settings {
                patterns: of(&["x*"]),
                ..Settings::default()
            })
            .contains("empty")
        );
        assert!(
            fault(Settings {
                words: of(&["a"]),
                ..Settings::default()
            })
            .contains("three")
        );
        assert!(
            fault(Settings {
                services: of(&["x"]),
                ..Settings::default()
            })
            .contains("service")
        );
    }

    #[test]
    fn a_dry_run_says_what_would_be_hidden() {
        let filters = Filters::parse(
            Path::new("f"),
            r#"[{"source":"foo","target":"bar","op":"replace"}]"#,
        )
        .unwrap();
        let redaction = redaction(&["mails"], &[]);
        let (text, found) = dry_run(
            &filters,
            &redaction,
            &Key::new(&[1; 32]),
            "foo someone@example.com someone@example.com",
        );
        assert!(text.starts_with("bar ARPX") && !text.contains('@'), "{text}");
        let found: Vec<_> = found
            .iter()
            .map(|f| (f.by.as_str(), f.count, f.example.as_str()))
            .collect();
        assert_eq!(found, [("filter 1", 1, "…"), ("mails", 2, "so…om")]);
    }

    proptest! {
        #[test]
        fn what_comes_back_is_what_went_in(texts in proptest::collection::vec("(user|a@b.cd|13812345678|ARPX|\\PC| |\"|\\\\|\n){0,12}", 1..5)) {
            let redaction = redaction(&["mails", "phones"], &["user"]);
            let key = Key::new(&[3; 32]);
            let mut hidden = Hidden::of("s");
            let arguments = serde_json::json!({"command": texts[0], "list": texts}).to_string();
            let body = serde_json::json!({"input": texts, "arguments": arguments}).to_string();
            let new = hide(&Filters::default(), Some(&redaction), &key, &mut hidden, body.as_bytes()).unwrap();
            let new = new.map_or(body.clone(), |new| String::from_utf8(new.to_vec()).unwrap());
            let back = restore::whole(&hidden, new.as_bytes());
            let back: serde_json::Value = serde_json::from_slice(&back).unwrap();
            prop_assert_eq!(back, serde_json::from_str::<serde_json::Value>(&body).unwrap());
        }
    }
}
