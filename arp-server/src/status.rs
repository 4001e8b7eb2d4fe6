//! Who is online, for `arps clients`: the running relay tells it on a socket in its data directory, which only its
//! own user can open. Whoever connects is told once, as one line of JSON.

use crate::registry::{Present, Registry};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Largest answer that is read, in bytes: some hundred for each client.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Time for one question and its answer.
const TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// A client that is online.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Online {
    /// Its id.
    pub id: String,
    /// Fingerprint of its key; none in plain.
    pub key: Option<String>,
    /// Names by which visitors reach it.
    pub names: usize,
    /// Seconds since it registered.
    pub since: u64,
    /// Address of its control channel.
    pub peer: String,
    /// What it calls itself.
    pub agent: Option<String>,
}

impl From<Present> for Online {
    fn from(p: Present) -> Self {
        Self {
            id: p.id.as_str().to_owned(),
            key: p.key.map(|k| k.to_string()),
            names: p.names,
            since: p.since.elapsed().as_secs(),
            peer: p.about.peer.to_string(),
            agent: p.about.agent,
        }
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("arps.sock")
}

/// Tells who is online until `stop`.
#[cfg(unix)]
pub async fn serve(dir: &Path, registry: Arc<Registry>, stop: CancellationToken) {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;
    let path = socket(dir);
    // The lock of the data directory says that no other relay has it.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).and_then(|listener| {
        arp_common::private::close_to_others(&path)?;
        Ok(listener)
    });
    let listener = match listener {
        Ok(listener) => listener,
        Err(e) => {
            tracing::warn!(
                "`arps clients` cannot show who is online: {}: {e}",
                path.display()
            );
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((mut stream, _)) = accepted else {
            tokio::time::sleep(arp_common::defaults::ACCEPT_BACKOFF_MAX).await;
            continue;
        };
        // One at a time: the owner of the machine asks now and then.
        let online: Vec<Online> = registry.present().into_iter().map(Online::from).collect();
        if let Ok(text) = serde_json::to_vec(&online) {
            let _ = tokio::time::timeout(TIME, stream.write_all(&text)).await;
        }
    }
    let _ = std::fs::remove_file(&path);
}

/// Not offered without Unix sockets.
#[cfg(not(unix))]
pub async fn serve(_: &Path, _: Arc<Registry>, stop: CancellationToken) {
    stop.cancelled().await;
}

/// Asks the relay that runs with this data directory; `None` if there is none (or it cannot tell).
#[cfg(unix)]
pub fn ask(dir: &Path) -> Option<Vec<Online>> {
    use std::io::Read;
    let stream = std::os::unix::net::UnixStream::connect(socket(dir)).ok()?;
    stream.set_read_timeout(Some(TIME)).ok()?;
    let mut text = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Not offered without Unix sockets.
#[cfg(not(unix))]
pub fn ask(_: &Path) -> Option<Vec<Online>> {
    let _ = (MAX_ANSWER, TIME, socket as fn(&Path) -> PathBuf);
    None
}
