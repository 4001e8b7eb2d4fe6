//! Which relays this machine knows: the key of each at first contact, and what is trusted besides.

use arp_common::private;
use arp_common::tls::Fingerprint;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file of pins or authorities that is read, in bytes.
const MAX_FILE: usize = 4 * 1024 * 1024;
/// Word for the authorities that the operating system trusts, in place of a file.
pub const SYSTEM: &str = "system";

/// How a relay proves that it is the right one.
#[derive(Debug, Clone)]
pub enum Policy {
    /// By the key it showed at first contact.
    FirstUse,
    /// By this key.
    Fingerprint(Fingerprint),
    /// By a certificate of one of these authorities.
    Authorities(Arc<RootCertStore>),
}

/// Reads authorities from a PEM file, or takes those of the operating system.
///
/// # Errors
/// If there are none to be had; the text says why.
pub fn authorities(from: &str) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    if from == SYSTEM {
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            return Err("the operating system has no certificates of authorities".into());
        }
        return Ok(Arc::new(roots));
    }
    let pem = private::read(Path::new(from), MAX_FILE).map_err(|e| e.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| format!("{from}: {e}"))?;
        roots.add(certificate).map_err(|e| format!("{from}: {e}"))?;
    }
    if roots.is_empty() {
        return Err(format!("{from} holds no certificate in PEM form"));
    }
    Ok(Arc::new(roots))
}

/// The file of pins: one line for each relay, `host port fingerprint`.
#[derive(Debug, Clone)]
pub struct KnownRelays {
    path: PathBuf,
}

struct Line<'a> {
    host: &'a str,
    port: u16,
    key: Fingerprint,
}

/// A line of the file: a pin, or nothing (empty, or a remark after `#`).
fn parse(line: &str) -> Result<Option<Line<'_>>, Damaged> {
    let mut words = line.split_whitespace();
    let Some(host) = words.next().filter(|word| !word.starts_with('#')) else {
        return Ok(None);
    };
    let (Some(port), Some(key), None) = (words.next(), words.next(), words.next()) else {
        return Err(Damaged);
    };
    Ok(Some(Line {
        host,
        port: port.parse().map_err(|_| Damaged)?,
        key: key.parse().map_err(|_| Damaged)?,
    }))
}

/// A line that is no pin. Which relay it was for cannot be known: it may be any.
struct Damaged;

impl KnownRelays {
    /// In this data directory.
    pub fn new(data_dir: &Path) -> Self {
        let path = data_dir.join("known_relays");
        Self { path }
    }

    /// Where the pins are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn text(&self) -> io::Result<String> {
        match private::read(&self.path, MAX_FILE) {
            // What is no text becomes a damaged line.
            Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(e),
        }
    }

    /// All pins.
    fn lines<'a>(&self, text: &'a str) -> io::Result<Vec<Line<'a>>> {
        let mut all = Vec::new();
        for (at, line) in text.lines().enumerate() {
            match parse(line) {
                Ok(line) => all.extend(line),
                Err(Damaged) => {
                    let text = format!(
                        "line {} is damaged, and it may be the one that says which key this relay has; nothing is \
                         sent to a relay that cannot be checked. Put the line right (HOST PORT SHA256:…, as `arps \
                         fingerprint` prints it on the relay), or take it away to have the key pinned anew",
                        at + 1
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        }
        Ok(all)
    }

    /// Can the file be used?
    ///
    /// # Errors
    /// If it is there and cannot be read, or a line of it is damaged.
    pub fn check(&self) -> io::Result<()> {
        self.lines(&self.text()?).map(drop)
    }

    /// The key that is pinned for a relay.
    ///
    /// # Errors
    /// If the file is there and cannot be read, or a line of it is damaged: then nothing may be trusted.
    pub fn find(&self, host: &str, port: u16) -> io::Result<Option<Fingerprint>> {
        let text = self.text()?;
        let lines = self.lines(&text)?;
        let found = lines
            .iter()
            .find(|l| l.host.eq_ignore_ascii_case(host) && l.port == port);
        Ok(found.map(|l| l.key))
    }

    /// Pins a key.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn pin(&self, host: &str, port: u16, key: Fingerprint) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            private::create_dir(dir)?;
        }
        private::append_line(&self.path, &format!("{} {port} {key}", host.to_ascii_lowercase()))
    }

    /// Forgets the keys of a relay (`host`, or `host:port` for one of several) and tells how many there were.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn forget(&self, address: &str) -> io::Result<usize> {
        let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let with_port = address.rsplit_once(':').and_then(|(host, port)| {
            let plain = !host.contains(':') || host.ends_with(']');
            Some((bare(host), port.parse::<u16>().ok()?)).filter(|_| plain)
        });
        let (host, port) = match with_port {
            Some((host, port)) => (host, Some(port)),
            None => (bare(address), None),
        };
        let meant = |line: &str| match parse(line) {
            Ok(line) => {
                line.is_some_and(|l| l.host.eq_ignore_ascii_case(&host) && port.is_none_or(|p| p == l.port))
            }
            // A damaged line that still says for whom it was.
            Err(Damaged) => {
                let mut words = line.split_whitespace();
                words.next().is_some_and(|h| h.eq_ignore_ascii_case(&host))
                    && port.is_none_or(|p| words.next() == Some(&p.to_string()))
            }
        };
        let text = self.text()?;
        let kept: String = text
            .lines()
            .filter(|l| !meant(l))
            .map(|l| format!("{l}\n"))
            .collect();
        let gone = text.lines().filter(|l| meant(l)).count();
        if gone > 0 {
            private::replace(&self.path, kept.as_bytes())?;
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_kept_for_each_address_and_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownRelays::new(&dir.path().join("new"));
        let key = |n| Fingerprint::from_bytes([n; 32]);
        assert_eq!(known.find("relay", 1).unwrap(), None);
        known.pin("Relay", 1, key(1)).unwrap();
        known.pin("relay", 2, key(2)).unwrap();
        known.pin("::1", 1, key(3)).unwrap();
        assert_eq!(known.find("relay", 1).unwrap(), Some(key(1)));
        assert_eq!(known.find("RELAY", 2).unwrap(), Some(key(2)));
        assert_eq!(known.find("other", 1).unwrap(), None);
        assert_eq!(known.forget("relay:2").unwrap(), 1);
        assert_eq!(
            (known.find("relay", 1).unwrap(), known.find("relay", 2).unwrap()),
            (Some(key(1)), None)
        );
        assert_eq!(known.forget("relay").unwrap(), 1);
        assert_eq!(known.forget("relay").unwrap(), 0);
        assert_eq!(known.forget("[::1]:1").unwrap(), 1);
        known.pin("::1", 1, key(3)).unwrap();
        assert_eq!(known.forget("::1").unwrap(), 1);
    }

    #[test]
    fn an_unreadable_file_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("known_relays")).unwrap();
        assert!(KnownRelays::new(dir.path()).find("relay", 1).is_err());
    }

    #[test]
    fn authorities_are_read_and_faults_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "nothing").unwrap();
        assert!(
            authorities(path.to_str().unwrap())
                .unwrap_err()
                .contains("no certificate")
        );
        assert!(authorities("/does/not/exist").is_err());
    }

    #[test]
    fn a_damaged_line_is_never_taken_for_a_first_contact() {
        let dir = tempfile::tempdir().unwrap();
        let known = KnownRelays::new(dir.path());
        let key = Fingerprint::from_bytes([7; 32]);
        known.pin("relay.example", 7, key).unwrap();
        let whole = std::fs::read_to_string(known.path()).unwrap();
        // Cut anywhere, as a full disk or a power cut leaves it.
        for end in 1..whole.trim_end().len() {
            std::fs::write(known.path(), &whole[..end]).unwrap();
            let error = known.find("relay.example", 7).unwrap_err().to_string();
            assert!(error.contains("line 1 is damaged"), "{end}: {error}");
        }
        std::fs::write(known.path(), b"\xff\xfe\0\n").unwrap();
        assert!(known.find("relay.example", 7).is_err() && known.check().is_err());
        // The way out that the text names.
        std::fs::write(known.path(), &whole[..20]).unwrap();
        assert_eq!(known.forget("relay.example:7").unwrap(), 1);
        assert_eq!(known.find("relay.example", 7).unwrap(), None);
    }

    proptest::proptest! {
        /// Among good lines and remarks a pin is found; with any other line among them nothing is.
        #[test]
        fn a_pin_is_found_or_the_file_refused(
            before in proptest::collection::vec("[ -~\\t]{0,60}", 0..4),
            after in proptest::collection::vec("(relay 7 |relay |# |)[A-Za-z0-9+/=: ]{0,60}", 0..4),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let known = KnownRelays::new(dir.path());
            let lines = |l: &[String]| l.iter().map(|l| format!("{l}\n")).collect::<String>();
            let good = before.iter().chain(&after).all(|l| parse(l).is_ok());
            let key = arp_common::tls::Identity::generate().unwrap().fingerprint();
            let pin = format!("relay.example 7 {key}\n");
            std::fs::write(known.path(), lines(&before) + &pin + &lines(&after)).unwrap();
            match known.find("Relay.Example", 7) {
                Ok(found) => proptest::prop_assert!(good && found == Some(key)),
                Err(_) => proptest::prop_assert!(!good),
            }
            if good {
                proptest::prop_assert_eq!(known.find("relay.example", 8).unwrap(), None);
            }
        }
    }
}
