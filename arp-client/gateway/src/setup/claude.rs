//! `settings.json` of Claude Code: its `env` goes before the shell's variables.

use super::{Edit, SetupError, Wanted, backup_of, shape};
use crate::files;
use crate::json;
use std::net::SocketAddr;
use std::path::Path;

const NAMES: [&[&str]; 2] = [&["env", "ANTHROPIC_BASE_URL"], &["env", "ANTHROPIC_AUTH_TOKEN"]];

pub(super) fn set(dir: &Path, address: SocketAddr) -> Result<Vec<Edit>, SetupError> {
    let wanted = [
        (NAMES[0], Some(format!("http://{address}"))),
        (NAMES[1], Some("-".to_owned())),
    ];
    Ok(vec![edit(&dir.join("settings.json"), &wanted)?])
}

pub(super) fn unset(dir: &Path) -> Result<Vec<Edit>, SetupError> {
    Ok(vec![undone(&dir.join("settings.json"), &NAMES)?])
}

pub(super) fn base_url(dir: &Path) -> Option<String> {
    value(&files::read(&dir.join("settings.json")).ok()??, NAMES[0])
}

/// A text in a JSON file.
pub(super) fn value(text: &str, path: &[&str]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    path.iter()
        .try_fold(&value, |value, name| value.get(name))?
        .as_str()
        .map(str::to_owned)
}

/// A JSON file with these texts in it.
pub(super) fn edit(path: &Path, wanted: &[Wanted]) -> Result<Edit, SetupError> {
    let before = files::read(path)?;
    let mut text = before
        .clone()
        .filter(|text| !text.trim().is_empty())
        .unwrap_or_else(|| "{}\n".to_owned());
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)
        .map_err(|e| shape(path, format!("it is not the JSON object that it should be ({e})")))?;
    for (name, value) in wanted {
        text = put(&text, name, value.as_deref(), 0).ok_or_else(|| {
            shape(
                path,
                format!("{:?} is something else than it should be", name.join(".")),
            )
        })?;
    }
    Ok(Edit {
        path: path.to_owned(),
        before,
        after: Some(text),
    })
}

/// The file as it was before us, as far as these texts go.
pub(super) fn undone(path: &Path, names: &[&'static [&'static str]]) -> Result<Edit, SetupError> {
    let before = files::read(path)?;
    let backup = files::read(&backup_of(path))?;
    let Some(now) = &before else {
        return Ok(Edit {
            path: path.to_owned(),
            before: None,
            after: None,
        });
    };
    let old = backup.as_deref().unwrap_or_default();
    let wanted: Vec<Wanted> = names.iter().map(|name| (*name, value(old, name))).collect();
    // Nothing else has changed: it is as it was, to the byte.
    if let Some(backup) = &backup
        && same_but(now, backup, names)
    {
        return Ok(Edit {
            path: path.to_owned(),
            after: Some(backup.clone()),
            before,
        });
    }
    let mut edit = edit(path, &wanted)?;
    // A file that was not there before, with nothing in it but what was ours.
    if backup.is_none() && edit.after.as_deref().is_some_and(is_bare) {
        edit.after = None;
    }
    Ok(edit)
}

fn is_bare(text: &str) -> bool {
    fn bare(value: &serde_json::Value) -> bool {
        value.as_object().is_some_and(|all| all.values().all(bare))
    }
    serde_json::from_str(text).is_ok_and(|value| bare(&value))
}

fn same_but(a: &str, b: &str, names: &[&[&str]]) -> bool {
    let without = |text: &str| -> Option<serde_json::Value> {
        let mut value: serde_json::Value =
            serde_json::from_str(if text.trim().is_empty() { "{}" } else { text }).ok()?;
        for name in names {
            let (last, way) = name.split_last()?;
            let at = way.iter().try_fold(&mut value, |value, name| value.get_mut(name));
            if let Some(object) = at.and_then(|value| value.as_object_mut()) {
                object.remove(*last);
            }
            // An object that holds nothing else came with what was in it.
            for depth in (1..=way.len()).rev() {
                let at = way[..depth - 1]
                    .iter()
                    .try_fold(&mut value, |value, name| value.get_mut(name));
                if let Some(object) = at.and_then(|value| value.as_object_mut())
                    && object
                        .get(way[depth - 1])
                        .and_then(|v| v.as_object())
                        .is_some_and(serde_json::Map::is_empty)
                {
                    object.remove(way[depth - 1]);
                }
            }
        }
        Some(value)
    };
    let (a, b) = (without(a), without(b));
    a.is_some() && a == b
}

fn put(text: &str, path: &[&str], value: Option<&str>, depth: usize) -> Option<String> {
    let (name, rest) = path.split_first()?;
    let inner = json::member(text.as_bytes(), name).map(|range| &text[range]);
    if rest.is_empty() {
        return match value {
            Some(value) => json::with_member(text, name, &serde_json::Value::from(value).to_string(), depth),
            None => Some(json::without_member(text, name)),
        };
    }
    match (inner, value) {
        (None, None) => Some(text.to_owned()),
        (inner, value) => {
            let changed = put(inner.unwrap_or("{}"), rest, value, depth + 1)?;
            let empty = value.is_none()
                && changed
                    .trim_start_matches('{')
                    .trim_end_matches('}')
                    .trim()
                    .is_empty();
            if empty {
                return Some(json::without_member(text, name));
            }
            json::with_member(text, name, &changed, depth)
        }
    }
}
