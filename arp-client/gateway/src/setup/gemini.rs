//! `.env` and `settings.json` of Gemini CLI.

use super::{Edit, SetupError, backup_of, claude};
use crate::files;
use std::net::SocketAddr;
use std::path::Path;

const BASE_URL: &str = "GOOGLE_GEMINI_BASE_URL";
const KEY: &str = "GEMINI_API_KEY";
const AUTH: [&[&str]; 1] = [&["security", "auth", "selectedType"]];

pub(super) fn set(dir: &Path, address: SocketAddr) -> Result<Vec<Edit>, SetupError> {
    let path = dir.join(".env");
    let before = files::read(&path)?;
    let text = before.as_deref().unwrap_or_default();
    let text = put(text, KEY, Some("-"));
    let text = put(&text, BASE_URL, Some(&format!("http://{address}")));
    let env = Edit {
        path,
        before,
        after: Some(text),
    };
    // Without it `gemini -p` does not look at the key at all.
    let settings = claude::edit(
        &dir.join("settings.json"),
        &[(AUTH[0], Some("gemini-api-key".to_owned()))],
    )?;
    Ok(vec![env, settings])
}

pub(super) fn unset(dir: &Path) -> Result<Vec<Edit>, SetupError> {
    let path = dir.join(".env");
    let mut edits = vec![claude::undone(&dir.join("settings.json"), &AUTH)?];
    if let Some(before) = files::read(&path)? {
        let backup = files::read(&backup_of(&path))?;
        let old = backup.as_deref().unwrap_or_default();
        let text = put(&before, KEY, value(old, KEY).as_deref());
        let text = put(&text, BASE_URL, value(old, BASE_URL).as_deref());
        edits.push(Edit {
            path,
            before: Some(before),
            after: (backup.is_some() || !text.trim().is_empty()).then_some(text),
        });
    }
    Ok(edits)
}

pub(super) fn base_url(dir: &Path) -> Option<String> {
    value(&files::read(&dir.join(".env")).ok()??, BASE_URL)
}

fn name_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    line.split_once('=').map(|(name, _)| name.trim())
}

pub(super) fn value(text: &str, name: &str) -> Option<String> {
    // The last one counts.
    let line = text.lines().rev().find(|line| name_of(line) == Some(name))?;
    let value = line.split_once('=')?.1.trim();
    let bare = ['"', '\'']
        .iter()
        .find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
    Some(bare.unwrap_or(value).to_owned())
}

/// The file with a line for this name, or without.
fn put(text: &str, name: &str, value: Option<&str>) -> String {
    let mut out = String::new();
    let mut put = false;
    for line in text.split_inclusive('\n') {
        if name_of(line) != Some(name) {
            out.push_str(line);
            continue;
        }
        if let Some(value) = value
            && !std::mem::replace(&mut put, true)
        {
            out.push_str(&format!("{name}={value}\n"));
        }
    }
    if let Some(value) = value
        && !put
    {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out.push_str(&format!("{name}={value}\n"));
    }
    out
}
