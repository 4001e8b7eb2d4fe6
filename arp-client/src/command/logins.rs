//! What browsers hold in place of secrets: a random number for each login with the edge key, which can be taken back,
//! and a seal on the origin that our own pages have. The key itself is in no cookie.

use arp_common::cookies;
use arp_common::ids::ClientId;
use arp_common::private;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// A login lasts this long.
pub(crate) const LOGIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// Logins that are remembered; the oldest make room.
const MOST: usize = 64;
/// Largest file of logins, in bytes.
const MAX_FILE: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Logins {
    file: PathBuf,
    /// Stands for the edge key: with another key no login is left.
    key: [u8; 32],
    /// Nobody else can seal an origin.
    seal: [u8; 32],
    known: Mutex<Vec<Known>>,
}

/// A login as it is on disk: who reads the file cannot log in with it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    digest: String,
    /// Seconds since 1970.
    until: u64,
}

impl Logins {
    /// Reads those of earlier runs. What cannot be read is as if it had ended.
    pub(crate) fn open(data_dir: &Path, client: &ClientId, edge_key: Option<&str>) -> Self {
        let cookie = cookies::edge_login(client);
        let file = data_dir.join(format!("logins-{cookie}"));
        let text = private::read(&file, MAX_FILE).unwrap_or_default();
        let now = now();
        let known = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|line| {
                let (digest, until) = line.split_once(' ')?;
                let until = until.parse().ok().filter(|until| *until > now)?;
                let digest = digest.to_owned();
                Some(Known { digest, until })
            })
            .take(MOST)
            .collect();
        Self {
            file,
            key: Sha256::new()
                .chain_update(cookie)
                .chain_update(edge_key.unwrap_or_default())
                .finalize()
                .into(),
            seal: seal(&data_dir.join("origin-seal")),
            known: Mutex::new(known),
        }
    }

    /// A new login: what the browser shows from now on.
    pub(crate) fn begin(&self) -> io::Result<String> {
        let id = format!("{:032x}", rand::random::<u128>());
        let mut known = self.known();
        if known.len() >= MOST {
            known.remove(0);
        }
        known.push(Known {
            digest: self.digest(&id),
            until: now().saturating_add(LOGIN.as_secs()),
        });
        self.save(&known)?;
        Ok(id)
    }

    /// Is somebody logged in by this?
    pub(crate) fn holds(&self, id: &str) -> bool {
        let (digest, now) = (self.digest(id), now());
        let is = |known: &Known| bool::from(known.digest.as_bytes().ct_eq(digest.as_bytes()));
        self.known().iter().any(|known| known.until > now && is(known))
    }

    /// Ends a login.
    pub(crate) fn end(&self, id: &str) -> io::Result<()> {
        let digest = self.digest(id);
        let mut known = self.known();
        known.retain(|known| known.digest != digest);
        self.save(&known)
    }

    /// What a browser shows later for a page of this origin, where it says no more than the page's origin.
    pub(crate) fn vouch(&self, origin: &str) -> String {
        let inner = Sha256::new()
            .chain_update(self.seal)
            .chain_update(origin)
            .finalize();
        let outer = Sha256::new()
            .chain_update(self.seal)
            .chain_update(inner)
            .finalize();
        hex(&outer)
    }

    /// Did we vouch for this origin?
    pub(crate) fn vouched(&self, origin: &str, shown: &str) -> bool {
        self.vouch(origin).as_bytes().ct_eq(shown.as_bytes()).into()
    }

    fn digest(&self, id: &str) -> String {
        hex(&Sha256::new().chain_update(self.key).chain_update(id).finalize())
    }

    fn save(&self, known: &[Known]) -> io::Result<()> {
        let mut text = String::new();
        for known in known {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} {}", known.digest, known.until);
        }
        private::replace(&self.file, text.as_bytes())
    }

    fn known(&self) -> MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of the seal, which outlives us if it can be kept.
fn seal(file: &Path) -> [u8; 32] {
    let fresh: [u8; 32] = rand::random();
    let kept = private::create(file, &fresh).and_then(|_| private::read(file, fresh.len()));
    kept.ok().and_then(|kept| kept.try_into().ok()).unwrap_or(fresh)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, key: Option<&str>) -> Logins {
        Logins::open(dir, &"demo".parse().unwrap(), key)
    }

    #[test]
    fn a_login_outlives_a_restart_but_not_another_key_and_can_be_ended() {
        let dir = tempfile::tempdir().unwrap();
        let logins = open(dir.path(), Some("key"));
        let (one, two) = (logins.begin().unwrap(), logins.begin().unwrap());
        assert!(logins.holds(&one) && !logins.holds("") && !logins.holds("key"));
        let text = std::fs::read_to_string(&logins.file).unwrap();
        assert!(!text.contains(&one) && !text.contains("key"));
        let again = open(dir.path(), Some("key"));
        assert!(again.holds(&one) && again.holds(&two));
        again.end(&one).unwrap();
        assert!(!again.holds(&one) && again.holds(&two));
        assert!(!open(dir.path(), Some("other")).holds(&two));
        for _ in 0..MOST {
            again.begin().unwrap();
        }
        assert!(!again.holds(&two) && again.known().len() == MOST);
    }

    #[test]
    fn what_is_not_a_file_of_logins_logs_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(open(dir.path(), None).file, b"\xff\n\n x\na b\nc 1\n").unwrap();
        assert!(open(dir.path(), Some("key")).known().is_empty());
    }

    #[test]
    fn an_origin_is_vouched_for_by_us_alone() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let logins = open(dir.path(), None);
        let shown = logins.vouch("https://relay.example");
        assert!(open(dir.path(), None).vouched("https://relay.example", &shown));
        assert!(!logins.vouched("https://evil.example", &shown));
        assert!(!open(other.path(), None).vouched("https://relay.example", &shown));
    }
}
