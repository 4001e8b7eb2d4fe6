//! What stands in the place of a secret: always the same for the same secret in the same session, never the same in
//! two sessions, and of a form that models copy faithfully and that means nothing to a shell or to JSON.

use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// What every placeholder begins with.
pub const PREFIX: &str = "ARPX";
/// Bytes of a placeholder: the prefix, and 80 bits in base 32.
pub const LEN: usize = 20;

const DIGITS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// The gateway's own key, from which placeholders are made; kept on disk, so that they outlive a restart.
#[derive(Clone)]
pub struct Key(Arc<[u8]>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// From these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// One that nobody has seen before.
    #[must_use]
    pub fn random() -> Self {
        Self::new(&rand::random::<[u8; 32]>())
    }

    /// The one in this file, which is made if it is not there.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn open(path: &std::path::Path) -> std::io::Result<Self> {
        arp_common::private::create(path, &rand::random::<[u8; 32]>())?;
        let bytes = std::fs::read(path)?;
        if bytes.len() < 32 {
            return Err(std::io::Error::other(format!(
                "{} is not what the gateway has written: remove it",
                path.display()
            )));
        }
        Ok(Self::new(&bytes[..32]))
    }

    fn placeholder(&self, session: &str, secret: &str) -> String {
        // The key is secret, of fixed length and in front; what is made from it is cut: nothing can be appended to it.
        let mut hash = Sha256::new();
        hash.update(&self.0);
        hash.update((session.len() as u64).to_be_bytes());
        hash.update(session.as_bytes());
        hash.update(secret.as_bytes());
        let hash = hash.finalize();
        let mut out = String::with_capacity(LEN);
        out.push_str(PREFIX);
        let mut bits = u128::from_be_bytes(hash[..16].try_into().unwrap_or_default());
        for _ in PREFIX.len()..LEN {
            out.push(char::from(DIGITS[(bits & 31) as usize]));
            bits >>= 5;
        }
        out
    }
}

/// The secrets of one request and what stands for them.
#[derive(Debug, Default)]
pub struct Hidden {
    session: String,
    by_secret: HashMap<String, String>,
    by_placeholder: HashMap<String, String>,
}

impl Hidden {
    /// For a request of this session.
    #[must_use]
    pub fn of(session: &str) -> Self {
        Self {
            session: session.to_owned(),
            ..Self::default()
        }
    }

    /// How many secrets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_placeholder.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_placeholder.is_empty()
    }

    /// What stands for `secret`.
    pub fn hide(&mut self, key: &Key, secret: &str) -> &str {
        if !self.by_secret.contains_key(secret) {
            let placeholder = key.placeholder(&self.session, secret);
            self.by_placeholder.insert(placeholder.clone(), secret.to_owned());
            self.by_secret.insert(secret.to_owned(), placeholder);
        }
        self.by_secret.get(secret).map_or("", String::as_str)
    }

    /// `text` with all secrets back in their places, each passed through `form`; `None` if there is none in it.
    #[must_use]
    pub fn restore(&self, text: &str, form: impl Fn(&str) -> String) -> Option<String> {
        let (out, _) = self.scan(text, true, form);
        out
    }

    /// The same for a piece of a text that goes on: what was restored, and from where on the piece has to wait,
    /// because a placeholder may have begun there.
    #[must_use]
    pub fn restore_piece(&self, piece: &str, form: impl Fn(&str) -> String) -> (String, usize) {
        let (out, end) = self.scan(piece, false, form);
        (out.unwrap_or_else(|| piece[..end].to_owned()), end)
    }

    fn scan(&self, text: &str, whole: bool, form: impl Fn(&str) -> String) -> (Option<String>, usize) {
        let bytes = text.as_bytes();
        let mut out: Option<String> = None;
        let mut copied = 0;
        let mut from = 0;
        let mut end = text.len();
        while let Some(found) = memchr::memmem::find(&bytes[from..], PREFIX.as_bytes()) {
            let at = from + found;
            if at + LEN > bytes.len()
                && !whole
                && bytes[at + PREFIX.len()..].iter().all(|b| DIGITS.contains(b))
            {
                end = at;
                break;
            }
            match text
                .get(at..at + LEN)
                .and_then(|word| self.by_placeholder.get(word))
            {
                Some(secret) => {
                    let out = out.get_or_insert_default();
                    out.push_str(&text[copied..at]);
                    out.push_str(&form(secret));
                    copied = at + LEN;
                    from = copied;
                }
                None => from = at + 1,
            }
        }
        if !whole && end == text.len() {
            // The begin of a prefix at the very end.
            let part = (1..PREFIX.len())
                .rev()
                .find(|n| bytes.len() - copied >= *n && bytes.ends_with(&PREFIX.as_bytes()[..*n]));
            end -= part.unwrap_or(0);
        }
        let out = out.map(|mut out| {
            out.push_str(&text[copied..end]);
            out
        });
        (out, end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_placeholder_is_the_same_in_one_session_only() {
        let key = Key::random();
        let mut one = Hidden::of("s");
        let first = one.hide(&key, "secret").to_owned();
        assert_eq!(first.len(), LEN);
        assert_eq!(one.hide(&key, "secret"), first);
        assert_ne!(one.hide(&key, "other"), first);
        assert_eq!(Hidden::of("s").hide(&key, "secret"), first);
        assert_ne!(Hidden::of("t").hide(&key, "secret"), first);
        assert_ne!(Hidden::of("s").hide(&Key::random(), "secret"), first);
        assert_eq!(
            one.restore(&format!("a{first}{first}ARPX{first}"), str::to_owned)
                .unwrap(),
            "asecretsecretARPXsecret"
        );
        assert_eq!(
            Hidden::of("s").restore(&first, str::to_owned),
            None,
            "it is not of this request"
        );
    }

    #[test]
    fn the_key_stays_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let hide = |key: &Key| Hidden::of("").hide(key, "x").to_owned();
        assert_eq!(hide(&Key::open(&path).unwrap()), hide(&Key::open(&path).unwrap()));
        std::fs::write(&path, "short").unwrap();
        assert!(Key::open(&path).is_err());
    }

    proptest! {
        #[test]
        fn what_was_hidden_comes_back_however_it_is_cut(
            parts in proptest::collection::vec((".{0,8}", "[a-z]{1,6}"), 1..5), cuts in proptest::collection::vec(0usize..200, 0..8)
        ) {
            let key = Key::new(&[7; 32]);
            let mut hidden = Hidden::of("s");
            let (mut text, mut wanted) = (String::new(), String::new());
            for (plain, secret) in &parts {
                text.push_str(plain);
                text.push_str(hidden.hide(&key, secret));
                wanted.push_str(plain);
                wanted.push_str(secret);
            }
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c <= text.len() && text.is_char_boundary(*c)).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let (mut out, mut wait, mut from) = (String::new(), String::new(), 0);
            for cut in cuts {
                wait.push_str(&text[from..cut]);
                from = cut;
                let (ready, end) = hidden.restore_piece(&wait, str::to_owned);
                prop_assert!(wait.len() - end < LEN);
                out.push_str(&ready);
                wait.drain(..end);
            }
            out.push_str(&wait);
            prop_assert_eq!(out, wanted);
        }
    }
}
