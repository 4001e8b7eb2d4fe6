//! How the daemon does, for `arpc status`: where its link to the relay stands. A leaf: the link writes, the local
//! socket reads.

use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// See the module.
#[derive(Debug)]
pub struct Standing {
    began: Instant,
    fixed: Fixed,
    link: Mutex<Link>,
    tunnels: AtomicUsize,
}

/// An open tunnel; it counts until it is dropped.
#[derive(Debug)]
pub struct Open(Arc<Standing>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Relaxed);
    }
}

/// What does not change while the daemon runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Fixed {
    /// Version and commit.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Host and control port of the relay; none where it runs without.
    pub relay: Option<String>,
    /// What visitors reach.
    pub serves: String,
}

#[derive(Debug, Default)]
struct Link {
    registered: Option<Instant>,
    registrations: u64,
    public_url: Option<String>,
    error: Option<String>,
}

/// As it is told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Told {
    /// What does not change.
    #[serde(flatten)]
    pub fixed: Fixed,
    /// Seconds since the start.
    pub uptime: u64,
    /// Is it registered with the relay? None where it runs without.
    pub registered: Option<bool>,
    /// Seconds since it registered last.
    pub since: Option<u64>,
    /// Registrations since the start.
    pub registrations: u64,
    /// Where visitors come, as far as the relay says.
    pub public_url: Option<String>,
    /// Why it is not registered now.
    pub error: Option<String>,
    /// Tunnels to the relay that are open, idle ones too.
    pub tunnels: usize,
}

impl Standing {
    /// Of a daemon that has just started.
    pub fn new(fixed: Fixed) -> Self {
        Self {
            began: Instant::now(),
            fixed,
            link: Mutex::default(),
            tunnels: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is registered.
    pub fn registered(&self, public_url: Option<String>) {
        let mut link = self.lock();
        link.registered = Some(Instant::now());
        link.registrations += 1;
        link.public_url = public_url;
        link.error = None;
    }

    /// It is not, for this reason.
    pub fn lost(&self, why: String) {
        let mut link = self.lock();
        link.registered = None;
        link.error = Some(why);
    }

    /// A tunnel was opened.
    pub fn opened(self: &Arc<Self>) -> Open {
        self.tunnels.fetch_add(1, Relaxed);
        Open(self.clone())
    }

    /// As it is now.
    pub fn told(&self) -> Told {
        let link = self.lock();
        Told {
            fixed: self.fixed.clone(),
            uptime: self.began.elapsed().as_secs(),
            registered: self.fixed.relay.as_ref().map(|_| link.registered.is_some()),
            since: link.registered.map(|at| at.elapsed().as_secs()),
            registrations: link.registrations,
            public_url: link.public_url.clone(),
            error: link.error.clone(),
            tunnels: self.tunnels.load(Relaxed),
        }
    }
}
