//! `arpc stop`: asks the running daemon to stop, and waits until it has.

use super::Failure;
use super::client::Client;
use serde_json::json;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

/// Parking gives agents time to save; this is longer than all of that.
const PATIENCE: Duration = Duration::from_secs(40);

pub(super) async fn run(park: bool, data_dir: &Path) -> Result<(), Failure> {
    let client = Client::new(data_dir);
    client.post("/api/stop", &json!({"park": park})).await?;
    // The daemon holds this lock as long as it uses the data directory.
    let lock = File::options().write(true).open(data_dir.join("arpc.lock"))?;
    let until = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) if Instant::now() > until => {
                return Err(Failure(
                    "arpc was told to stop and still runs; see its log".into(),
                ));
            }
            Err(TryLockError::WouldBlock) => {
                if !told && until - Instant::now() < PATIENCE - Duration::from_secs(1) {
                    told = true;
                    eprintln!("waiting for arpc to stop …");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    if park {
        println!("stopped; its sessions are parked");
    } else {
        println!("stopped; its sessions run on, and the next arpc finds them");
    }
    Ok(())
}
