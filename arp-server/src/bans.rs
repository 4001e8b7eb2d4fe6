//! Edge agents that the operator does not want: by client id, by key, by network.

use arp_common::ids::ClientId;
use arp_common::tls::Fingerprint;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{PoisonError, RwLock};

/// What is banned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ban {
    /// Whoever comes from there.
    Net(IpNet),
    /// Whoever holds this key.
    Key(String),
    /// Whoever has this client id, in any case of letters.
    Client(String),
}

impl FromStr for Ban {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // An address could be an id, too; nobody who bans one means that.
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net.trunc()));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Net(ip.into()));
        }
        if let Ok(key) = text.parse::<Fingerprint>() {
            return Ok(Self::Key(key.to_string()));
        }
        match text.parse::<ClientId>() {
            Ok(id) => Ok(Self::Client(id.as_str().to_ascii_lowercase())),
            Err(e) => Err(format!(
                "not a client id, a key's fingerprint (arps clients shows both) or a network such as 10.0.0.0/8: {e}"
            )),
        }
    }
}

impl fmt::Display for Ban {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(f),
            Self::Key(text) | Self::Client(text) => f.write_str(text),
        }
    }
}

impl Ban {
    fn holds(&self, id: &ClientId, key: Option<&str>, ip: IpAddr) -> bool {
        match self {
            Self::Net(net) => net.contains(&ip),
            Self::Key(banned) => key == Some(banned.as_str()),
            Self::Client(banned) => banned.eq_ignore_ascii_case(id.as_str()),
        }
    }
}

/// Who is banned now.
#[derive(Debug, Default)]
pub struct Bans(RwLock<Lists>);

#[derive(Debug, Default)]
struct Lists {
    /// By the settings (`--ban`).
    set: Vec<Ban>,
    /// By the operator, while the relay ran; these are in the store.
    given: Vec<Ban>,
}

impl Bans {
    /// With what the settings say, and what was given earlier.
    pub fn new(set: Vec<Ban>, given: Vec<Ban>) -> Self {
        Self(RwLock::new(Lists { set, given }))
    }

    /// Is an edge banned that registers so?
    pub fn holds(&self, id: &ClientId, key: Option<Fingerprint>, ip: IpAddr) -> bool {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if lists.set.is_empty() && lists.given.is_empty() {
            return false;
        }
        let key = key.map(|k| k.to_string());
        let mut all = lists.set.iter().chain(&lists.given);
        all.any(|ban| ban.holds(id, key.as_deref(), ip))
    }

    /// Puts what the settings say in place of what they said.
    pub fn replace_set(&self, set: Vec<Ban>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).set = set;
    }

    /// Bans, or no longer. False if there is nothing to end.
    pub fn give(&self, ban: &Ban, on: bool) -> bool {
        let mut lists = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = lists.given.len();
        lists.given.retain(|b| b != ban);
        let was = lists.given.len() < before;
        if on {
            lists.given.push(ban.clone());
        }
        on || was
    }

    /// All: those of the settings, and those that were given.
    pub fn all(&self) -> (Vec<Ban>, Vec<Ban>) {
        let lists = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (lists.set.clone(), lists.given.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_holds_whom_it_names() {
        let key = Fingerprint::from_bytes([7; 32]);
        let (id, ip): (ClientId, IpAddr) = ("Demo".parse().unwrap(), "10.1.2.3".parse().unwrap());
        let other: Fingerprint = Fingerprint::from_bytes([8; 32]);
        for (text, wanted) in [
            ("demo", true),
            ("DEMO", true),
            ("demo2", false),
            ("10.9.9.9/8", true),
            ("10.1.2.3", true),
            ("10.1.2.4", false),
            (key.to_string().as_str(), true),
            (other.to_string().as_str(), false),
        ] {
            let ban: Ban = text.parse().unwrap();
            let bans = Bans::new(vec![], vec![]);
            assert!(!bans.holds(&id, Some(key), ip));
            bans.give(&ban, true);
            assert_eq!(bans.holds(&id, Some(key), ip), wanted, "{text}");
            assert_eq!(
                ban.to_string().parse::<Ban>().unwrap(),
                ban,
                "it can be read again"
            );
            assert!(bans.give(&ban, false) && !bans.give(&ban, false));
            bans.replace_set(vec![ban]);
            assert_eq!(bans.holds(&id, Some(key), ip), wanted, "{text}");
        }
        assert!("no spaces".parse::<Ban>().is_err());
    }
}
