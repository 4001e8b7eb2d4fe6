//! `claude.json`, `codex.json`, `gemini.json`: the upstreams of a service, by name.
//!
//! The format is CLP's: `{"NAME": {"base_url": …, "auth_token": …, "api_key": …?, "weight": …?, "active": …?}}`. An
//! entry without `base_url` and `auth_token` (which may be empty where there is an `api_key`) is no upstream and is
//! left alone. The last one with `"active": true` is the active one; without any, the first.

use super::object::Object;
use super::{FileError, read, write};
use crate::clients::Origin;
use crate::secret::Secret;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::path::Path;
use std::sync::Arc;

/// One upstream, as its file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name in the file.
    pub name: Arc<str>,
    /// `http` or `https`, host, port and path, without a slash at the end.
    pub base_url: reqwest::Url,
    /// The same, as requests need it.
    pub origin: Origin,
    /// Sent as `Authorization: Bearer`.
    pub auth_token: Option<Secret>,
    /// Sent as `x-api-key` (Gemini: `x-goog-api-key`).
    pub api_key: Option<Secret>,
    /// Its place in the order, or its share. Never negative.
    pub weight: f64,
}

impl Upstream {
    /// A text of the upstream's own, for records and people, without the keys that it may have repeated in it.
    #[must_use]
    pub fn without_keys(&self, text: &str) -> String {
        let keys = [&self.auth_token, &self.api_key].into_iter().flatten();
        keys.map(Secret::expose)
            // What is shorter protects nothing, and stands in every other text.
            .filter(|key| key.len() >= 4)
            .fold(text.to_owned(), |text, key| text.replace(key, "…"))
    }
}

/// The upstreams of a service, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Upstreams {
    /// All that can be used.
    pub list: Vec<Arc<Upstream>>,
    /// Position in `list` of the active one.
    pub active: Option<usize>,
    /// Entries that look like an upstream and are none, and why, in words.
    pub faults: Vec<String>,
}

impl Upstreams {
    /// Parses the file's text.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let mut all = Self::default();
        if text.trim().is_empty() {
            return Ok(all);
        }
        let file = Object::parse(text).map_err(|e| FileError::json(path, &e))?;
        let mut active = None;
        for (name, value) in file.iter() {
            let Ok(entry) = Object::parse(value.get()) else {
                continue;
            };
            match upstream(name, &entry) {
                Ok(Some(upstream)) => {
                    if entry.get_as("active") == Some(true) {
                        active = Some(all.list.len());
                    }
                    all.list.push(Arc::new(upstream));
                }
                Ok(None) => {}
                Err(fault) => all.faults.push(format!("{}: {name:?}: {fault}", path.display())),
            }
        }
        all.active = active.or((!all.list.is_empty()).then_some(0));
        Ok(all)
    }

    /// By name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.list.iter().find(|upstream| &*upstream.name == name)
    }

    /// The one upstream that only got another name since the file was as `before`: that name then, and now.
    #[must_use]
    pub fn renamed<'a>(&'a self, before: &'a Self) -> Option<(&'a Arc<str>, &'a Arc<str>)> {
        let missing = |of: &'a Self, other: &Self| {
            let mut all = of.list.iter().filter(|one| other.get(&one.name).is_none());
            all.next().filter(|_| all.next().is_none())
        };
        let (gone, new) = (missing(before, self)?, missing(self, before)?);
        (gone.base_url == new.base_url).then_some((&gone.name, &new.name))
    }

    /// The active one.
    #[must_use]
    pub fn active(&self) -> Option<&Arc<Upstream>> {
        self.list.get(self.active?)
    }
}

fn upstream(name: &str, entry: &Object) -> Result<Option<Upstream>, String> {
    let (Some(url), Some(_)) = (entry.get("base_url"), entry.get("auth_token")) else {
        return Ok(None);
    };
    let key = |name: &str| -> Result<Option<Secret>, String> {
        let Some(value) = entry.get(name).filter(|v| v.get() != "null") else {
            return Ok(None);
        };
        let key: String =
            serde_json::from_str(value.get()).map_err(|_| format!("\"{name}\" is not a text"))?;
        let key = key.trim();
        // A header cannot carry anything else.
        if key.bytes().any(|b| !(0x21..=0x7e).contains(&b)) {
            return Err(format!("\"{name}\" has characters that no key has"));
        }
        Ok((!key.is_empty()).then(|| Secret::new(key)))
    };
    let url: String = serde_json::from_str(url.get()).map_err(|_| "\"base_url\" is not a text".to_owned())?;
    let weight = match entry.get("weight").map(RawValue::get) {
        None | Some("null") => 0.0,
        Some(text) => text
            .trim_matches('"')
            .parse()
            .ok()
            .filter(|w: &f64| w.is_finite() && *w >= 0.0)
            .ok_or("\"weight\" is not a number from 0 up")?,
    };
    let base_url = base_url(&url)?;
    Ok(Some(Upstream {
        name: name.into(),
        origin: Origin::of(&base_url).map_err(|e| e.to_string())?,
        base_url,
        auth_token: key("auth_token")?,
        api_key: key("api_key")?,
        weight,
    }))
}

/// Understands a base URL as people write it.
///
/// # Errors
/// What is wrong with it.
pub fn base_url(text: &str) -> Result<reqwest::Url, String> {
    let url: reqwest::Url = text
        .trim()
        .parse()
        .map_err(|e| format!("the base_url is not a URL ({e}): it begins with https:// or http://"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("the base_url must begin with https:// or http:// and name a host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the base_url holds a user or password: put keys into auth_token or api_key".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the base_url has a query or a fragment: it ends with the path".to_owned());
    }
    Ok(url)
}

/// A change to the file of a service.
#[derive(Debug, Clone)]
pub enum Change<'a> {
    /// This one becomes the active one.
    Activate(&'a str),
    /// Adds an upstream, or changes what is given of one that is there.
    Put {
        /// Its name.
        name: &'a str,
        /// Where it is.
        base_url: Option<&'a str>,
        /// `Some("")` takes the token away.
        auth_token: Option<&'a str>,
        /// `Some("")` takes the key away.
        api_key: Option<&'a str>,
        /// Its weight.
        weight: Option<f64>,
    },
    /// Takes one out.
    Remove(&'a str),
    /// Gives one another name, in its place.
    Rename {
        /// The name that it has.
        from: &'a str,
        /// The name that it gets.
        to: &'a str,
    },
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The file cannot be used as it is; it was left alone.
    #[error("{0}; mend it first, it was left as it is")]
    File(#[from] FileError),
    /// Nothing has this name.
    #[error("there is no upstream {name:?}; there are: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// What was given cannot be.
    #[error("{0}")]
    Invalid(String),
}

/// Changes the file: all else in it stays as it was.
///
/// # Errors
/// See [`ChangeError`].
pub fn change(path: &Path, change: &Change<'_>) -> Result<(), ChangeError> {
    let text = read(path)?.unwrap_or_default();
    let changed = changed(path, &text, change)?;
    // What we would not understand ourselves is never written.
    Upstreams::parse(path, &changed)?;
    Ok(write(path, &changed)?)
}

fn check_name(name: &str) -> Result<(), ChangeError> {
    if name.trim().is_empty() || name.chars().any(char::is_control) || name.len() > 128 {
        return Err(ChangeError::Invalid(
            "a name has 1 to 128 characters and no control characters".to_owned(),
        ));
    }
    Ok(())
}

fn changed(path: &Path, text: &str, change: &Change<'_>) -> Result<String, ChangeError> {
    let mut file = if text.trim().is_empty() {
        Object::default()
    } else {
        Object::parse(text).map_err(|e| FileError::json(path, &e))?
    };
    let bad = |e: serde_json::Error| ChangeError::Invalid(e.to_string());
    let names = Upstreams::parse(path, text)?;
    let unknown = |name: &str| {
        let known: Vec<_> = names.list.iter().map(|u| u.name.to_string()).collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        ChangeError::Unknown {
            name: name.to_owned(),
            known,
        }
    };
    match change {
        Change::Activate(name) => {
            names.get(name).ok_or_else(|| unknown(name))?;
            for upstream in &names.list {
                let Some(mut entry) = file.get_as::<Object>(&upstream.name) else {
                    continue;
                };
                let active = *upstream.name == **name;
                // Only what says otherwise is touched.
                if active || entry.get_as("active") == Some(true) {
                    entry.set("active", &active).map_err(bad)?;
                    file.set(&upstream.name, &entry.to_raw(1).map_err(bad)?)
                        .map_err(bad)?;
                }
            }
        }
        Change::Put {
            name,
            base_url: url,
            auth_token,
            api_key,
            weight,
        } => {
            check_name(name)?;
            let mut entry = match file.get(name) {
                Some(value) => Object::parse(value.get()).map_err(|_| {
                    ChangeError::Invalid(format!("{name:?} is in the file as something else"))
                })?,
                None => Object::default(),
            };
            if let Some(url) = url {
                base_url(url).map_err(ChangeError::Invalid)?;
                entry.set("base_url", &url.trim()).map_err(bad)?;
            } else if entry.get("base_url").is_none() {
                return Err(ChangeError::Invalid("a new upstream needs a base URL".to_owned()));
            }
            match auth_token {
                Some(token) => entry.set("auth_token", token).map_err(bad)?,
                // CLP takes an entry without this field for no upstream at all.
                None if entry.get("auth_token").is_none() => entry.set("auth_token", &"").map_err(bad)?,
                None => {}
            }
            match api_key {
                Some("") => drop(entry.remove("api_key")),
                Some(key) => entry.set("api_key", key).map_err(bad)?,
                None => {}
            }
            if let Some(weight) = weight {
                if !weight.is_finite() || *weight < 0.0 {
                    return Err(ChangeError::Invalid("a weight is a number from 0 up".to_owned()));
                }
                if weight.fract() == 0.0 && *weight < 1e15 {
                    entry.set("weight", &(*weight as u64)).map_err(bad)?;
                } else {
                    entry.set("weight", weight).map_err(bad)?;
                }
            }
            upstream(name, &entry).map_err(ChangeError::Invalid)?;
            file.set(name, &entry.to_raw(1).map_err(bad)?).map_err(bad)?;
        }
        Change::Remove(name) => {
            names.get(name).ok_or_else(|| unknown(name))?;
            file.remove(name);
        }
        Change::Rename { from, to } => {
            names.get(from).ok_or_else(|| unknown(from))?;
            check_name(to)?;
            if file.get(to).is_some() {
                return Err(ChangeError::Invalid(format!("there is {to:?} already")));
            }
            file.rename(from, to);
        }
    }
    Ok(file.to_text(0) + "\n")
}

/// Is this text a file of upstreams, as far as JSON goes? For the API that replaces whole files.
///
/// # Errors
/// Where it is not.
pub fn check(path: &Path, text: &str) -> Result<Upstreams, FileError> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|e| FileError::json(path, &e))?;
    Upstreams::parse(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
  "prod": {"base_url": "https://api.example/v1/", "auth_token": "sk-1", "weight": 50, "note": {"a":  1.0}},
  "notes": "mine",
  "half": {"base_url": "https://x.example"},
  "dev": {
    "base_url": "http://127.0.0.1:9",
    "auth_token": "",
    "api_key": "k",
    "active": true
  },
  "bad": {"base_url": "x.example", "auth_token": ""}
}"#;

    fn parse(text: &str) -> Upstreams {
        Upstreams::parse(Path::new("claude.json"), text).unwrap()
    }

    #[test]
    fn another_name_for_the_same_upstream_is_noticed() {
        let of = |text: &str| Upstreams::parse(Path::new("x"), text).unwrap();
        let entry =
            |name: &str, host: &str| format!(r#""{name}":{{"base_url":"http://{host}","auth_token":""}}"#);
        let file = |list: &[(&str, &str)]| {
            let all: Vec<_> = list.iter().map(|(name, host)| entry(name, host)).collect();
            of(&format!("{{{}}}", all.join(",")))
        };
        let before = file(&[("a", "x"), ("b", "y")]);
        let name = |after: &Upstreams| {
            let renamed = after.renamed(&before);
            renamed.map(|(from, to)| (from.to_string(), to.to_string()))
        };
        assert_eq!(
            name(&file(&[("b", "y"), ("n", "x")])),
            Some(("a".into(), "n".into()))
        );
        for other in [
            file(&[("a", "x"), ("b", "y")]),
            file(&[("b", "y")]),
            file(&[("a", "x"), ("b", "y"), ("c", "z")]),
            file(&[("b", "y"), ("n", "z")]),
            file(&[("n", "x"), ("m", "y")]),
            Upstreams::default(),
        ] {
            assert_eq!(name(&other), None, "{other:?}");
        }
    }

    #[test]
    fn what_clp_takes_for_an_upstream_is_one() {
        let all = parse(FILE);
        let names: Vec<_> = all.list.iter().map(|u| &*u.name).collect();
        assert_eq!(names, ["prod", "dev"]);
        assert_eq!(&*all.active().unwrap().name, "dev");
        assert_eq!(all.list[0].weight, 50.0);
        assert!(all.list[1].auth_token.is_none() && all.list[1].api_key.is_some());
        assert_eq!(all.faults.len(), 1, "{:?}", all.faults);
        assert!(!format!("{all:?}").contains("sk-1"));
        assert_eq!(
            &*parse(&FILE.replace("true", "false")).active().unwrap().name,
            "prod"
        );
        assert!(parse("{}").active().is_none() && parse(" ").active().is_none());
    }

    #[test]
    fn a_change_touches_nothing_else() {
        let path = Path::new("claude.json");
        let after = changed(path, FILE, &Change::Activate("prod")).unwrap();
        assert!(after.contains(r#""note": {"a":  1.0}"#), "{after}");
        assert!(after.contains(r#""notes": "mine""#));
        assert!(
            after.contains(r#""half": {"base_url": "https://x.example"}"#),
            "{after}"
        );
        let all = parse(&after);
        assert_eq!(&*all.active().unwrap().name, "prod");
        let put = Change::Put {
            name: "new",
            base_url: Some("https://n.example"),
            auth_token: None,
            api_key: Some("key"),
            weight: Some(2.5),
        };
        let all = parse(&changed(path, &after, &put).unwrap());
        assert_eq!((all.list.len(), all.list[2].weight), (3, 2.5));
        let all = parse(&changed(path, &after, &Change::Remove("prod")).unwrap());
        assert_eq!(&*all.active().unwrap().name, "dev");
        let error = changed(path, FILE, &Change::Activate("x"))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "there is no upstream \"x\"; there are: prod, dev");
        let error = changed(path, "{", &Change::Activate("x"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("claude.json:1:1") && error.contains("left as it is"),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_only_the_owner_reads() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("dotfiles.json"), dir.path().join("claude.json"));
        std::fs::write(&real, FILE).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        change(&link, &Change::Activate("prod")).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            &*parse(&std::fs::read_to_string(&real).unwrap())
                .active()
                .unwrap()
                .name,
            "prod"
        );
    }
}
