//! Notes in `lb_config.json` who rests, so that a restart and CLP's own tools know.

use crate::files::{self, FileError, balance};
use crate::forward::Gateway;
use crate::service::Service;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Changes within this time go into the file together.
const EVERY: Duration = Duration::from_millis(500);

/// Keeps the file up to date until `stop`, and once more then.
pub async fn keep(gateway: Arc<Gateway>, stop: CancellationToken) {
    loop {
        let last = tokio::select! {
            () = tokio::time::sleep(EVERY) => false,
            () = stop.cancelled() => true,
        };
        // Mostly nothing has, and nobody is woken for it.
        let any = Service::ALL
            .into_iter()
            .any(|service| gateway.health(service).has_changes());
        if !any && !last {
            continue;
        }
        let gateway = gateway.clone();
        let noted = tokio::task::spawn_blocking(move || note(&gateway)).await;
        if let Ok(Err(e)) = noted {
            tracing::warn!("who rests could not be noted: {e}");
        }
        if last {
            return;
        }
    }
}

/// Writes what has changed, if anything has.
fn note(gateway: &Gateway) -> Result<(), FileError> {
    let path = gateway.live().home().balance();
    for service in Service::ALL {
        if let Some((failures, resting)) = gateway.health(service).changes() {
            let text = files::read(&path)?.unwrap_or_default();
            files::write(
                &path,
                &balance::noted(&path, &text, service, &failures, &resting)?,
            )?;
        }
    }
    Ok(())
}
