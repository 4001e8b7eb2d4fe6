//! A TCP hop that can fall silent: bytes stop flowing and no connection is closed, as when a network is
//! cut without a word.

use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;

/// A hop in front of one address.
#[derive(Debug)]
pub struct Middlebox {
    /// Where it listens.
    pub addr: SocketAddr,
    silent: Arc<watch::Sender<bool>>,
    accept: tokio::task::AbortHandle,
}

impl Middlebox {
    /// A hop to `to`.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let silent = Arc::new(watch::Sender::new(false));
        let switch = silent.clone();
        let accept = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let switch = switch.clone();
                tokio::spawn(async move {
                    let Ok(to) = TcpStream::connect(to).await else {
                        return;
                    };
                    let (fr, fw) = from.into_split();
                    let (tr, tw) = to.into_split();
                    let (a, b) = (switch.subscribe(), switch.subscribe());
                    tokio::join!(pass(fr, tw, a), pass(tr, fw, b));
                });
            }
        });
        Self {
            addr,
            silent,
            accept: accept.abort_handle(),
        }
    }

    /// From now on nothing passes, in old connections and in new ones.
    pub fn fall_silent(&self) {
        self.silent.send_replace(true);
    }

    /// New connections work again. What fell silent stays so: its bytes are lost.
    pub fn recover(&self) {
        self.silent.send_replace(false);
    }
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, mut silent: watch::Receiver<bool>) {
    let mut buf = vec![0; 64 * 1024];
    loop {
        let n = tokio::select! {
            () = became(&mut silent) => std::future::pending().await,
            n = from.read(&mut buf) => n.unwrap_or(0),
        };
        if n == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if *silent.borrow() {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buf[..n]).await.is_err() {
            return;
        }
    }
}

async fn became(silent: &mut watch::Receiver<bool>) {
    let _ = silent.wait_for(|s| *s).await;
}
