//! The host's local socket.

use super::{FromHost, ToHost};
use crate::ipc::{Frames, Listener};
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Takes connections of arpc: commands in, the tail out.
pub(super) async fn accept(
    listener: Listener,
    commands: mpsc::Sender<ToHost>,
    tail: watch::Receiver<FromHost>,
    connected: watch::Sender<usize>,
) {
    let mut serving = tokio::task::JoinSet::new();
    loop {
        match listener.accept().await {
            Ok(stream) => {
                while serving.try_join_next().is_some() {}
                let (commands, tail, connected) = (commands.clone(), tail.clone(), connected.clone());
                connected.send_modify(|count| *count += 1);
                serving.spawn(async move {
                    // A broken connection is arpc's business: it comes again.
                    let _ = serve_connection(Frames::new(stream), commands, tail).await;
                    connected.send_modify(|count| *count -= 1);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(
    mut frames: Frames,
    commands: mpsc::Sender<ToHost>,
    mut tail: watch::Receiver<FromHost>,
) -> io::Result<()> {
    tail.mark_changed();
    loop {
        tokio::select! {
            changed = tail.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = *tail.borrow_and_update();
                frames.send(&now).await?;
            }
            command = frames.receive() => {
                let Some(command) = command? else { return Ok(()) };
                if commands.send(command).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
