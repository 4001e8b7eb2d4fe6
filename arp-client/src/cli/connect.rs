//! `arpc connect NAME`: a raw connection to a service behind an edge agent, by HTTP CONNECT on the relay's public port.
//!
//! With `--stdio` (ssh's ProxyCommand) it is one connection, with `--listen` one for each that comes to a local port.
//! Exit codes: 0 the connection ended, 1 it failed, 2 wrong flags.

use crate::defaults as d;
use crate::trust::{self, SYSTEM};
use arp_common::defaults::PUBLIC_PORT;
use arp_common::duplex::{self, Transferred};
use arp_common::ids::Token;
use arp_common::net;
use arp_common::protocol::Secret;
use arp_common::settings::EXIT_USAGE;
use arp_common::tls::{Fingerprint, e2e_connect};
use arp_common::transport::{Prefixed, Stream};
use bytes::{Buf, BytesMut};
use clap::Args;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest head of an answer, and longest error in its body, in bytes.
const MAX_ANSWER: usize = 32 * 1024;

/// What to reach, and from where.
#[derive(Debug, Args)]
pub struct Options {
    /// Token of the service, or the URL that the edge agent prints or shows as a QR code.
    ///
    /// The URL also says where the relay is, whether to use TLS, and (behind its #) the key for --e2e.
    #[arg(value_name = "NAME|URL")]
    name: String,
    /// Port that is told with the name; the name alone says which service is meant.
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Take connections on this local address, as in 127.0.0.1:2222, until stopped.
    #[arg(long, value_name = "IP:PORT", conflicts_with = "stdio")]
    listen: Option<SocketAddr>,
    /// One connection, on standard input and output (this is the default): for ssh's ProxyCommand.
    #[arg(long)]
    stdio: bool,
    /// Speak TLS with the edge agent itself, so that the relay carries bytes that it cannot read. Needs
    /// --fingerprint, or a URL that has it.
    #[arg(long)]
    e2e: bool,
    /// Key that the edge agent must have: `Own key` in what it prints. Not to be had from the relay.
    #[arg(long, value_name = "SHA256", requires = "e2e")]
    fingerprint: Option<Fingerprint>,
    /// Address of the relay [default: 127.0.0.1].
    #[arg(long, value_name = "HOST", env = "ARPC_SERVER_ADDR")]
    server_addr: Option<String>,
    /// Public port of the relay [default: 17003].
    #[arg(long, value_name = "PORT", env = "ARPC_PUBLIC_PORT")]
    public_port: Option<u16>,
    /// The relay's public port has a certificate: connect by TLS.
    #[arg(long, env = "ARPC_PUBLIC_TLS")]
    tls: bool,
    /// Trust these authorities for that certificate: a PEM file, or `system` [default: system].
    #[arg(long, value_name = "FILE", env = "ARPC_PUBLIC_CA", requires = "tls")]
    tls_ca: Option<String>,
    /// Key, or user:password, that the edge agent asks for (its --require-key or --require-auth).
    ///
    /// Better given as ARPC_GATE: other users see the flags of a process.
    #[arg(long, value_name = "KEY", env = "ARPC_GATE", hide_env_values = true)]
    gate: Option<String>,
    /// Seconds for which a relay or service that cannot be reached now is tried again.
    #[arg(long, value_name = "SECS", default_value_t = 10)]
    retry: u64,
}

/// Why there is no connection.
#[derive(Debug)]
enum Failed {
    /// It may work later.
    Now(String),
    /// It will not, without a change by a person.
    Final(String),
}

impl Failed {
    fn text(self) -> String {
        match self {
            Self::Now(text) | Self::Final(text) => text,
        }
    }
}

/// Where to connect, and what to say there.
struct Target {
    host: String,
    port: u16,
    request: Vec<u8>,
    tls: Option<Arc<ClientConfig>>,
    /// The key of the edge, to speak TLS with it.
    key: Option<Fingerprint>,
    retry: Duration,
}

/// A connection that stands.
enum Connected {
    /// To the service, through the relay; these bytes came already.
    Open(Stream, BytesMut),
    /// Likewise, in TLS of the edge.
    Sealed(Box<TlsStream<Prefixed<Stream>>>),
}

/// Does it, and gives the exit code.
pub(super) fn run(options: &Options) -> u8 {
    let target = match target(options) {
        Ok(target) => target,
        Err(why) => {
            eprintln!("arpc: {why}");
            return EXIT_USAGE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("arpc: {e}");
            return 1;
        }
    };
    net::raise_file_limit();
    let done = runtime.block_on(async {
        match options.listen {
            Some(at) => listen(Arc::new(target), at).await,
            None => stdio(&target).await,
        }
    });
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    match done {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("arpc: {why}");
            1
        }
    }
}

fn target(options: &Options) -> Result<Target, String> {
    let given = Given::read(&options.name)?;
    let name: Token = given.name.parse().map_err(|e| format!("NAME {e}"))?;
    let host = options.server_addr.as_deref().or(given.host);
    let host = host.unwrap_or("127.0.0.1");
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let key = options.fingerprint.or(given.key);
    if options.e2e && key.is_none() {
        return Err(
            "--e2e needs the key of the edge agent: --fingerprint SHA256:…, which it prints as `Own key`"
                .into(),
        );
    }
    let mut request = format!(
        "CONNECT {0}:{1} HTTP/1.1\r\nHost: {0}:{1}\r\n",
        name.as_str(),
        options.port
    );
    if let Some(key) = options.gate.as_deref().map(Secret::new) {
        if key.expose().is_empty() || key.expose().bytes().any(|b| b.is_ascii_control()) {
            return Err("--gate must be a key, or user:password, in one line".into());
        }
        request.push_str(&format!("X-ARP-Key: {}\r\n", key.expose()));
    }
    if key.is_some() {
        request.push_str("X-ARP-E2E: 1\r\n");
    }
    request.push_str("\r\n");
    let tls = match (
        options.tls || given.tls,
        options.tls_ca.as_deref().unwrap_or(SYSTEM),
    ) {
        (false, _) => None,
        (true, from) => {
            let roots = trust::authorities(from).map_err(|e| format!("--tls-ca {e}"))?;
            let config = ClientConfig::builder_with_provider(arp_common::tls::provider())
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Some(Arc::new(config))
        }
    };
    Ok(Target {
        host,
        port: options.public_port.or(given.port).unwrap_or(PUBLIC_PORT),
        request: request.into_bytes(),
        tls,
        key,
        retry: Duration::from_secs(options.retry),
    })
}

/// What a name or a URL says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Given<'a> {
    name: &'a str,
    host: Option<&'a str>,
    port: Option<u16>,
    tls: bool,
    key: Option<Fingerprint>,
}

impl<'a> Given<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self {
                name: text,
                ..Self::default()
            });
        };
        let bad = || format!("{text}: not a URL that an edge agent prints");
        let usual = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(bad()),
        };
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (authority, query) = rest.split_once('/').ok_or_else(bad)?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (authority, usual),
        };
        let token = query.trim_start_matches('?').split('&');
        let token = token.filter_map(|pair| pair.strip_prefix("token=")).next();
        // A key that cannot be read is not left out in silence.
        let key = fragment.rsplit_once("e2e=").map(|(_, key)| key.parse());
        let key = key
            .transpose()
            .map_err(|e| format!("{text}: the key behind # {e}"))?;
        Ok(Self {
            // Without a token the name is the first part of the host, which the relay takes apart. TLS by that host would be
            // the edge agent's own.
            name: token.unwrap_or(host),
            host: Some(host),
            port: Some(port),
            tls: scheme == "https" && token.is_some(),
            key,
        })
    }
}

impl Target {
    /// Connects, and tries again for a while where that may help.
    async fn connect(&self) -> Result<Connected, String> {
        let (stream, head) = self.reach().await?;
        let Some(key) = self.key else {
            return Ok(Connected::Open(stream, head));
        };
        match timeout(d::DIAL, e2e_connect(head, stream, key)).await {
            Ok(Ok(tls)) => Ok(Connected::Sealed(Box::new(tls))),
            Ok(Err(e)) => Err(format!(
                "no TLS with the edge agent: {e}. Nothing was sent. Ask its owner for the fingerprint; if that is the right \
                 one, somebody stands in between"
            )),
            Err(_) => Err("the edge agent does not answer".into()),
        }
    }

    /// Connects to the service.
    async fn reach(&self) -> Result<(Stream, BytesMut), String> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            match self.try_once().await {
                Ok(connected) => return Ok(connected),
                Err(Failed::Now(_)) if begun.elapsed() + pause < self.retry => {
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(failed) => return Err(failed.text()),
            }
        }
    }

    async fn try_once(&self) -> Result<(Stream, BytesMut), Failed> {
        let Self { host, port, .. } = self;
        let at = || format!("the relay at {host} port {port}");
        let dialed = timeout(d::DIAL, net::connect(host, *port)).await;
        let tcp = match dialed {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(e)) => {
                return Err(Failed::Now(format!(
                    "cannot reach {}: {e}; check --server-addr and --public-port",
                    at()
                )));
            }
            Err(_) => return Err(Failed::Now(format!("{} does not answer", at()))),
        };
        let mut stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let name = ServerName::try_from(host.clone()).map_err(|e| Failed::Final(e.to_string()))?;
                let handshake = TlsConnector::from(config.clone()).connect(name, tcp);
                match timeout(d::DIAL, handshake).await {
                    Ok(Ok(tls)) => Stream::Tls(Box::new(tls.into())),
                    Ok(Err(e)) => return Err(Failed::Final(format!("no TLS with {}: {e}", at()))),
                    Err(_) => return Err(Failed::Now(format!("{} does not answer", at()))),
                }
            }
        };
        let exchange = async {
            stream.write_all(&self.request).await?;
            stream.flush().await?;
            let mut answer = BytesMut::new();
            loop {
                if let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") {
                    return Ok((answer, end + 4));
                }
                if answer.len() > MAX_ANSWER || stream.read_buf(&mut answer).await? == 0 {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        };
        let answered: io::Result<(BytesMut, usize)> = match timeout(d::CONNECT, exchange).await {
            Ok(answered) => answered,
            Err(_) => return Err(Failed::Now(format!("{} does not answer", at()))),
        };
        let (mut answer, end) = answered.map_err(|e| {
            let hint = if self.tls.is_some() {
                ""
            } else {
                "; if it has a certificate, give --tls"
            };
            Failed::Now(format!("{} broke off: {e}{hint}", at()))
        })?;
        let status = status_of(&answer);
        answer.advance(end);
        if status == Some(200) {
            return Ok((stream, answer));
        }
        let rest = async {
            while answer.len() < MAX_ANSWER && matches!(stream.read_buf(&mut answer).await, Ok(n) if n > 0) {}
        };
        let _ = timeout(d::LINGER, rest).await;
        let told = serde_json::from_slice::<serde_json::Value>(&answer).ok();
        let told = told.as_ref().and_then(|json| json["message"].as_str());
        let text: String = match told {
            Some(text) => text.chars().filter(|c| !c.is_control()).collect(),
            None => format!("{} does not speak as a relay does (status {status:?})", at()),
        };
        Err(match status {
            Some(502..=504) => Failed::Now(text),
            _ => Failed::Final(text),
        })
    }
}

fn status_of(head: &[u8]) -> Option<u16> {
    let line = head.split(|b| *b == b'\r').next()?;
    let text = std::str::from_utf8(line).ok()?;
    text.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

/// One connection on standard input and output. It is over when the service has said everything.
async fn stdio(target: &Target) -> Result<(), String> {
    match target.connect().await? {
        Connected::Open(stream, head) => {
            let (rd, wr) = stream.into_split();
            pipe(rd, wr, head).await
        }
        Connected::Sealed(tls) => {
            let (rd, wr) = tokio::io::split(tls);
            pipe(rd, wr, BytesMut::new()).await
        }
    }
}

async fn pipe(
    mut rd: impl AsyncRead + Unpin,
    mut wr: impl AsyncWrite + Unpin,
    head: BytesMut,
) -> Result<(), String> {
    let up = async {
        let copied = tokio::io::copy(&mut tokio::io::stdin(), &mut wr).await;
        // The service is told that nothing more comes.
        let _ = wr.shutdown().await;
        copied
    };
    let down = async {
        let mut out = tokio::io::stdout();
        out.write_all(&head).await?;
        tokio::io::copy(&mut rd, &mut out).await?;
        out.flush().await
    };
    tokio::pin!(up, down);
    let ended = tokio::select! {
        ended = &mut down => ended,
        sent = &mut up => match sent {
            Ok(_) => down.await,
            Err(e) => Err(e),
        },
    };
    match ended {
        Ok(()) => Ok(()),
        // Whoever reads has gone: that is an end.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(format!("the connection broke off: {e}")),
    }
}

/// A connection for each that comes to a local address.
async fn listen(target: Arc<Target>, at: SocketAddr) -> Result<(), String> {
    let stop = arp_common::shutdown::on_signal().map_err(|e| e.to_string())?;
    let listener = net::listen_at(at)
        .map_err(|e| format!("cannot listen on {at}: {e}; choose another address with --listen"))?;
    let at = listener.local_addr().map_err(|e| e.to_string())?;
    crate::banner::say(&format!("Listening on {at}"));
    net::accept_loop(listener, "local", stop, |mut local, peer| {
        let target = target.clone();
        // Ends with its connection, or with the process.
        tokio::spawn(async move {
            let connected = match target.connect().await {
                Ok(connected) => connected,
                Err(why) => {
                    eprintln!("arpc: {peer}: {why}");
                    return net::reset_on_drop(&local);
                }
            };
            match connected {
                Connected::Open(mut stream, head) => {
                    let mut count = Transferred::default();
                    let _ = duplex::copy(&mut local, &mut stream, BytesMut::new(), head, &mut count).await;
                }
                Connected::Sealed(mut tls) => {
                    // What is cut must not look like an end.
                    if tokio::io::copy_bidirectional(&mut local, &mut tls).await.is_err() {
                        net::reset_on_drop(&local);
                    }
                }
            }
        });
    })
    .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_all_of_it() {
        let key = format!("SHA256:{}", "A".repeat(43));
        let given = |name, host, port, tls, key: Option<&str>| Given {
            name,
            host,
            port,
            tls,
            key: key.map(|key| key.parse().unwrap()),
        };
        for (text, want) in [
            ("db", given("db", None, None, false, None)),
            (
                "http://r:17003/?token=db",
                given("db", Some("r"), Some(17003), false, None),
            ),
            (
                "https://r.test/?token=db",
                given("db", Some("r.test"), Some(443), true, None),
            ),
            (
                "http://[::1]:80/?token=db",
                given("db", Some("[::1]"), Some(80), false, None),
            ),
            (
                "http://[::1]/?token=db",
                given("db", Some("[::1]"), Some(80), false, None),
            ),
            (
                "https://db.r.test:8443/",
                given("db.r.test", Some("db.r.test"), Some(8443), false, None),
            ),
        ] {
            assert_eq!(Given::read(text), Ok(want), "{text}");
            if text.contains('/') {
                let sealed = format!("{text}#:~:e2e={key}");
                assert_eq!(Given::read(&sealed).unwrap().key, Some(key.parse().unwrap()));
            }
        }
        for bad in [
            "ftp://r/",
            "http://r",
            "http://r:x/?token=a",
            "http://r/?token=a#:~:e2e=SHA256:x",
        ] {
            assert!(Given::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_status_is_read_strictly() {
        for (head, status) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 407 No\r\n", Some(407)),
            ("HTTP/2 200\r\n", None),
            ("SSH-2.0-x\r\n", None),
            ("", None),
        ] {
            assert_eq!(status_of(head.as_bytes()), status, "{head}");
        }
    }
}
