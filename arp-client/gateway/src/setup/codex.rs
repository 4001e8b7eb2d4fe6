//! `config.toml` of Codex. Its provider keeps its name, or the list of earlier sessions would be split.

use super::{Edit, SetupError, backup_of, shape};
use crate::files;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Item, Value};

fn path(dir: &Path) -> PathBuf {
    dir.join("config.toml")
}

/// The file, and the names on the way to the base URL that counts.
fn open(path: &Path, text: &str) -> Result<(DocumentMut, Vec<String>), SetupError> {
    let file: DocumentMut = text
        .parse()
        .map_err(|e: toml_edit::TomlError| shape(path, e.message()))?;
    let way = way(&file);
    Ok((file, way))
}

/// Where the provider that is in use has its base URL.
fn way(file: &DocumentMut) -> Vec<String> {
    let provider = file.get("model_provider").and_then(Item::as_str);
    match provider {
        Some(name) if name != "openai" => vec!["model_providers".into(), name.to_owned(), "base_url".into()],
        _ => vec!["openai_base_url".into()],
    }
}

fn get<'a>(file: &'a DocumentMut, way: &[String]) -> Option<&'a Item> {
    let first = file.get(way.first()?)?;
    way[1..].iter().try_fold(first, |item, name| item.get(name))
}

fn put(path: &Path, file: &mut DocumentMut, way: &[String], value: Option<&str>) -> Result<(), SetupError> {
    let Some((last, tables)) = way.split_last() else {
        return Ok(());
    };
    let mut table: &mut dyn toml_edit::TableLike = file.as_table_mut();
    for name in tables {
        table = table
            .get_mut(name)
            .and_then(Item::as_table_like_mut)
            .ok_or_else(|| shape(path, format!("there is no table {:?} in it", tables.join("."))))?;
    }
    match (table.get_mut(last), value) {
        (Some(item), Some(value)) => {
            // The comment behind it stays.
            let mut new = Value::from(value);
            if let Some(old) = item.as_value() {
                *new.decor_mut() = old.decor().clone();
            }
            *item = Item::Value(new);
        }
        (None, Some(value)) => drop(table.insert(last, Item::Value(Value::from(value)))),
        (_, None) => drop(table.remove(last)),
    }
    Ok(())
}

pub(super) fn set(dir: &Path, address: SocketAddr) -> Result<Vec<Edit>, SetupError> {
    let path = path(dir);
    let before = files::read(&path)?;
    let (mut file, way) = open(&path, before.as_deref().unwrap_or_default())?;
    let url = format!("http://{address}/v1");
    if get(&file, &way).and_then(Item::as_str) == Some(url.as_str()) {
        return Ok(Vec::new());
    }
    put(&path, &mut file, &way, Some(&url))?;
    Ok(vec![Edit {
        path,
        before,
        after: Some(file.to_string()),
    }])
}

pub(super) fn unset(dir: &Path) -> Result<Vec<Edit>, SetupError> {
    let path = path(dir);
    let Some(before) = files::read(&path)? else {
        return Ok(Vec::new());
    };
    let backup = files::read(&backup_of(&path))?;
    let (mut file, way) = open(&path, &before)?;
    let ours = get(&file, &way)
        .and_then(Item::as_str)
        .is_some_and(super::is_ours);
    let old = match &backup {
        Some(backup) => {
            let (old, _) = open(&path, backup)?;
            get(&old, &way).and_then(Item::as_str).map(str::to_owned)
        }
        None => None,
    };
    if ours {
        put(&path, &mut file, &way, old.as_deref())?;
    }
    let text = file.to_string();
    let after = (backup.is_some() || !text.trim().is_empty()).then_some(text);
    Ok(vec![Edit {
        path,
        before: Some(before),
        after,
    }])
}

pub(super) fn base_url(dir: &Path) -> Option<String> {
    let path = path(dir);
    let (file, way) = open(&path, &files::read(&path).ok()??).ok()?;
    get(&file, &way)?.as_str().map(str::to_owned)
}

/// The arguments that send one process of Codex through the gateway, whatever its settings say.
#[must_use]
pub(super) fn arguments(dir: &Path, url: &str) -> [String; 2] {
    let path = path(dir);
    let text = files::read(&path).ok().flatten().unwrap_or_default();
    let way = open(&path, &text).map_or_else(|_| vec!["openai_base_url".to_owned()], |(_, way)| way);
    // Names with other characters than these are quoted, as in the file.
    let is_bare = |name: &str| {
        name.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let name: Vec<String> = way
        .into_iter()
        .map(|name| {
            if is_bare(&name) {
                name
            } else {
                serde_json::Value::from(name).to_string()
            }
        })
        .collect();
    [
        "-c".to_owned(),
        format!("{}={}", name.join("."), serde_json::Value::from(url)),
    ]
}
