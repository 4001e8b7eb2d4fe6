//! The admin port and the socket in the data directory: their listeners, and how a connection is served.

use super::api::{self, From};
use super::{Admin, Guard};
use crate::data;
use crate::defaults as d;
use crate::handshakes::Handshakes;
use arp_common::net::accept_loop;
use arp_common::private;
use arp_common::protocol::Secret;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The key of the admin port: from its file in the data directory, made if there is none.
///
/// # Errors
/// If it can be neither read nor made.
pub fn key(dir: &Path) -> io::Result<Secret> {
    let path = dir.join("admin-key");
    let fresh: [u8; 16] = rand::random();
    let fresh: String = fresh.iter().map(|b| format!("{b:02x}")).collect();
    private::create(&path, format!("{fresh}\n").as_bytes())?;
    private::close_to_others(&path)?;
    let text = private::read(&path, d::MAX_SECRET_FILE)?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    if text.len() < d::ADMIN_KEY_MIN {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{}: holds no key; remove it, and a new one is made",
                path.display()
            ),
        ));
    }
    Ok(Secret::new(text))
}

/// Takes the port. When it is taken by somebody else and was not asked for by number, the relay does without.
///
/// # Errors
/// As the operating system says.
pub fn listen(bind: IpAddr, port: u16, named: bool) -> io::Result<Option<TcpListener>> {
    match arp_common::net::listen(Some(bind), port, "--admin-port") {
        Ok(listener) => Ok(Some(listener)),
        Err(e) if !named => {
            tracing::warn!("no admin port: {e}");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Serves the port until `stop`; connections of a moment ago end with `kill`.
pub async fn serve_port(
    admin: Arc<Admin>,
    listener: TcpListener,
    guard: Arc<Guard>,
    stop: CancellationToken,
) {
    let places = Handshakes::new(d::ADMIN_CONNS);
    let ended = stop.clone();
    accept_loop(listener, "admin", stop, |stream, _| {
        // Any program of this machine can open connections and say nothing: they drive out one another.
        let place = places.enter();
        let (admin, guard, stop) = (admin.clone(), guard.clone(), ended.clone());
        tokio::spawn(async move {
            place
                .hold(connection(&admin, From::Port(&guard), stream, stop))
                .await;
        });
    })
    .await;
}

/// Serves the socket until `stop`.
pub async fn serve_socket(admin: Arc<Admin>, dir: &Path, stop: CancellationToken) {
    let path = data::socket_file(dir);
    // The lock of the data directory says that no other relay has it.
    let listener = match arp_local::Listener::bind(&path) {
        Ok(listener) => listener,
        Err(e) => {
            tracing::warn!(
                "`arps status` and `arps clients` cannot ask this relay: {}: {e}",
                path.display()
            );
            return;
        }
    };
    let room = Arc::new(Semaphore::new(d::ADMIN_CONNS));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            // Its owner will not deny itself service; a script that forgets to close has to wait.
            Ok(place) = room.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok(stream) = accepted else {
            tokio::time::sleep(arp_common::defaults::ACCEPT_BACKOFF_MAX).await;
            continue;
        };
        let (admin, stop) = (admin.clone(), stop.clone());
        tokio::spawn(async move {
            connection(&admin, From::Socket, stream, stop).await;
            drop(place);
        });
    }
}

async fn connection(
    admin: &Admin,
    from: From<'_>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    stop: CancellationToken,
) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let head = request.into_parts().0;
        Ok::<_, Infallible>(api::answer(admin, from, &head).await.map(Full::<Bytes>::new))
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(d::HEAD_TIMEOUT)
        .max_buf_size(d::MAX_HEAD);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(d::AT_ONCE, served).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(e) = ended {
        tracing::debug!("a connection of the admin port broke off: {e}");
    }
}
