//! The wire protocol of the control and the proxy port: length-prefixed JSON commands.
//!
//! A frame is a `u32` length, big-endian, then that many bytes of JSON: one [`Command`] in serde's
//! externally tagged form. docs/protocol.md describes it for other implementers. Version 1 is four
//! commands; version 2 adds optional fields and commands, version 3 adds services and the answer to a raw connection.
//! A peer that does not say `version` is version 1 and is never sent anything that version 1 does not know.

use crate::defaults::MAX_FRAME;
use crate::ids::{ClientId, Token};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The newest version we speak.
pub const VERSION: u32 = 3;

/// One message between relay and edge agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Edge to relay, first on the control channel.
    Register(Register),
    /// Relay to edge: the answer.
    RegisterResult(RegisterResult),
    /// Relay to edge: open one more tunnel and present this id on it.
    RequestNewProxyConn {
        /// Random, for one use ([`crate::ids::TunnelId`] on our relay; any text on others).
        proxy_conn_id: String,
    },
    /// Edge to relay, first on the proxy port; raw bytes follow (version 2: after [`Command::Open`]).
    NewProxyConn {
        /// The id that was asked for.
        proxy_conn_id: String,
        /// Who opens it.
        client_id: ClientId,
    },
    /// Version 2, both ways: are you there?
    Ping {},
    /// Version 2, both ways: yes.
    Pong {},
    /// Version 2, relay to edge: this control channel is about to close.
    GoAway {
        /// Why.
        reason: GoAwayReason,
    },
    /// Version 2, edge to relay: I leave, take me off the books.
    Deregister {},
    /// Version 2, edge to relay: from now on visitors reach me by these names and no others.
    SetTokens {
        /// Further tokens.
        tokens: Vec<Token>,
        /// Is the client id a token too?
        id_token: bool,
    },
    /// Version 2, relay to edge: the answer to [`Command::SetTokens`].
    TokensSet {
        /// Why nothing was changed, for people; none when it was.
        #[serde(default)]
        error: Option<String>,
    },
    /// Version 2, relay to edge, once on each tunnel at its first use: what comes now.
    Open {
        /// What the bytes are.
        kind: TunnelKind,
        /// The visitor of the first exchange, for logs and access rules.
        peer_addr: Option<SocketAddr>,
        /// Version 3: which of the edge's services is meant, by its token; the one of all other names if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<Token>,
        /// Version 3: what the visitor of a raw connection shows to the edge's own gate.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Secret>,
        /// Version 3: the visitor speaks TLS with the edge itself, by the edge's own key.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        e2e: bool,
        /// Version 3: what comes is a visitor's TLS, unread, for a service that wants it so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<TlsBegun>,
    },
    /// Version 3, edge to relay: the answer to [`Command::Open`] of kind `tcp`, before the first byte. Without an
    /// error the local service has been reached.
    Opened {
        /// Why there is no connection; the tunnel closes then.
        #[serde(default)]
        error: Option<OpenError>,
    },
}

/// How a visitor began TLS that the relay does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsBegun {
    /// With its first byte.
    Direct,
    /// Behind PostgreSQL's `SSLRequest`, which the relay has answered.
    Postgres,
}

/// Why an edge opened no raw connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenError {
    /// For programs: `local_service_unreachable`, `edge_auth_required`, `http_only`, `no_such_service`, `no_e2e`,
    /// `no_passthrough`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// One of an edge's local services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The token by which visitors reach it. Absent: this is the service of all names that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// What it speaks, where the edge knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The user that a visitor becomes who gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// The port of the relay that it wants for itself; 0 for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<u16>,
    /// Does the TLS of its visitors go to the edge unread, by the host name? The relay then takes none of its HTTP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passthrough: bool,
}

/// What became of a service's wish for a port of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemotePort {
    /// The service, by its token; absent for the one of all names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Token>,
    /// The port that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Why it has none, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a local service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// PostgreSQL's frontend/backend protocol.
    Postgres,
    /// MySQL's client/server protocol, which MariaDB speaks too.
    Mysql,
    /// Redis's RESP.
    Redis,
    /// SSH.
    Ssh,
    /// Something else over TCP.
    #[serde(other)]
    Tcp,
}

impl std::str::FromStr for Protocol {
    type Err = UnknownProtocol;
    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        Ok(match name {
            "http" => Self::Http,
            "postgres" | "postgresql" => Self::Postgres,
            "mysql" | "mariadb" => Self::Mysql,
            "redis" => Self::Redis,
            "ssh" => Self::Ssh,
            "tcp" => Self::Tcp,
            _ => return Err(UnknownProtocol),
        })
    }
}

/// No protocol that has a name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be http, postgres, mysql, redis, ssh or tcp")]
pub struct UnknownProtocol;

/// Who wants to be reachable, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The edge's id, also its first token.
    pub client_id: ClientId,
    /// Protocol version; absent is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Program and version of the edge, for the operator (`arpc/0.1.0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What the edge does with tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Further tokens by which visitors reach it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<Token>,
    /// Is the client id a token too? Absent is yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<bool>,
    /// The relay's shared secret, where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join_key: Option<Secret>,
    /// Version 3: its services, as far as there is something to say of them. Their tokens are among `tokens`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

/// What an edge does with the tunnels it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Copies bytes to a local service.
    Tcp,
    /// Serves the HTTP API and console.
    Command,
    /// Something a newer edge does.
    #[serde(other)]
    Other,
}

/// The relay's answer to [`Register`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterResult {
    /// Is the edge registered?
    pub success: bool,
    /// Why not, for people.
    #[serde(default)]
    pub error: Option<String>,
    /// Protocol version of this connection; absent is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Where visitors find the edge, without the token (`http://relay.example:17003`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// The relay's public port, for an edge that was given no URL and makes one up of the host it dialed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// Does that port take HTTPS?
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_tls: Option<bool>,
    /// Seconds between heartbeats that the relay wishes for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_secs: Option<u32>,
    /// Trying again later makes no sense without a change by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fatal: Option<bool>,
    /// Version 3: the ports that its services have for themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remote_ports: Vec<RemotePort>,
    /// Version 3: the domain below which names are host names, and TLS can pass through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// Why a relay closes a control channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoAwayReason {
    /// The relay stops or restarts: come back after a moment.
    Shutdown,
    /// The same client registered again from elsewhere: do not come back by yourself.
    Replaced,
    /// The relay's operator ended this connection: come back after a moment, as after [`GoAwayReason::Shutdown`].
    Kicked,
    /// Anything a newer relay may say.
    #[serde(other)]
    Other,
}

/// What the bytes on a tunnel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TunnelKind {
    /// HTTP/1.1 exchanges, one after the other.
    Http,
    /// One raw connection.
    Tcp,
}

/// A text that must never be shown. `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The secret itself: for comparing and sending, never for showing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer announced more than [`MAX_FRAME`] bytes.
    #[error("frame of {0} bytes is over the limit of {MAX_FRAME}: not an arp peer?")]
    TooLong(usize),
    /// The bytes are not a command we know. The text says where, never what: it may hold a secret.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// The connection ended inside a frame.
    #[error("connection closed in the middle of a frame")]
    Truncated,
}

impl Command {
    /// The frame of this command: length and JSON.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] if it does not fit a frame.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let json = serde_json::to_vec(self).map_err(|e| FrameError::Malformed(e.to_string()))?;
        if json.len() > MAX_FRAME {
            return Err(FrameError::TooLong(json.len()));
        }
        let mut frame = BytesMut::with_capacity(4 + json.len());
        frame.put_u32(json.len() as u32);
        frame.put_slice(&json);
        Ok(frame.freeze())
    }

    /// Takes one command off the front of `buf`, or `None` when it is not complete yet. What follows the
    /// frame stays in `buf`.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] as soon as the length is known, [`FrameError::Malformed`] for bad JSON.
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(prefix) = buf.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > MAX_FRAME {
            return Err(FrameError::TooLong(len));
        }
        if buf.len() < 4 + len {
            return Ok(None);
        }
        buf.advance(4);
        let json = buf.split_to(len);
        match serde_json::from_slice(&json) {
            Ok(command) => Ok(Some(command)),
            Err(e) => Err(FrameError::Malformed(describe(&e))),
        }
    }
}

/// Says where JSON is wrong without quoting it.
fn describe(e: &serde_json::Error) -> String {
    let what = match e.classify() {
        serde_json::error::Category::Io => "unreadable",
        serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Data => "not a command of this protocol",
        serde_json::error::Category::Eof => "JSON ends too early",
    };
    format!("{what}, at byte {}", e.column())
}

/// Reads commands off a stream. Dropping a pending [`FrameReader::next`] loses nothing.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
    buf: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames from `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            buf: BytesMut::new(),
        }
    }

    /// The next command, or `None` when the peer closed between frames.
    ///
    /// # Errors
    /// See [`FrameError`]. The stream is of no use afterwards.
    pub async fn next(&mut self) -> Result<Option<Command>, FrameError> {
        loop {
            if let Some(command) = Command::decode(&mut self.buf)? {
                if self.buf.is_empty() {
                    self.buf = BytesMut::new();
                }
                return Ok(Some(command));
            }
            if self.buf.capacity() == self.buf.len() {
                self.buf.reserve(512);
            }
            if self.inner.read_buf(&mut self.buf).await? == 0 {
                return if self.buf.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Truncated)
                };
            }
        }
    }

    /// The stream, and bytes that were read behind the last frame: they come first.
    pub fn into_parts(self) -> (R, BytesMut) {
        (self.inner, self.buf)
    }
}

/// Writes one command and flushes it.
///
/// # Errors
/// See [`FrameError`].
pub async fn write_frame<W: AsyncWrite + Unpin>(out: &mut W, command: &Command) -> Result<(), FrameError> {
    out.write_all(&command.encode()?).await?;
    out.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(command: &Command) -> String {
        String::from_utf8(command.encode().unwrap()[4..].to_vec()).unwrap()
    }

    fn register(id: &str) -> Register {
        Register {
            client_id: id.parse().unwrap(),
            version: None,
            agent: None,
            mode: None,
            tokens: vec![],
            id_token: None,
            join_key: None,
            services: vec![],
        }
    }

    #[test]
    fn version_1_is_spoken_to_the_letter() {
        assert_eq!(
            json(&Command::Register(register("my-service"))),
            r#"{"Register":{"client_id":"my-service"}}"#
        );
        assert_eq!(
            json(&Command::RegisterResult(RegisterResult {
                success: true,
                ..Default::default()
            })),
            r#"{"RegisterResult":{"success":true,"error":null}}"#
        );
        assert_eq!(
            json(&Command::RequestNewProxyConn {
                proxy_conn_id: "x".into()
            }),
            r#"{"RequestNewProxyConn":{"proxy_conn_id":"x"}}"#
        );
        assert_eq!(
            json(&Command::NewProxyConn {
                proxy_conn_id: "x".into(),
                client_id: "c".parse().unwrap()
            }),
            r#"{"NewProxyConn":{"proxy_conn_id":"x","client_id":"c"}}"#
        );
    }

    #[test]
    fn unknown_fields_are_ignored_and_versions_told() {
        let mut buf = BytesMut::new();
        let text = br#"{"Register":{"client_id":"a","version":3,"shoe_size":44,"mode":"hologram"}}"#;
        buf.put_u32(text.len() as u32);
        buf.put_slice(text);
        buf.put_slice(b"rest");
        let Some(Command::Register(r)) = Command::decode(&mut buf).unwrap() else {
            panic!()
        };
        assert_eq!((r.version, r.mode), (Some(3), Some(Mode::Other)));
        assert_eq!(&buf[..], b"rest");
    }

    #[test]
    fn a_huge_length_is_refused_before_anything_is_allocated() {
        let mut buf = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(
            Command::decode(&mut buf),
            Err(FrameError::TooLong(4_294_967_295))
        ));
    }

    #[test]
    fn errors_do_not_quote_the_frame() {
        let text = br#"{"Register":{"client_id":"a","join_key":["hunter2"]}}"#;
        let mut buf = BytesMut::new();
        buf.put_u32(text.len() as u32);
        buf.put_slice(text);
        let error = Command::decode(&mut buf).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        let command = Command::Register(Register {
            join_key: Some(Secret::new("hunter2")),
            ..register("a")
        });
        assert!(!format!("{command:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn frames_arrive_whole_however_they_are_cut() {
        let commands = [
            Command::Ping {},
            Command::GoAway {
                reason: GoAwayReason::Shutdown,
            },
            Command::Pong {},
        ];
        let mut bytes = Vec::new();
        for c in &commands {
            bytes.extend_from_slice(&c.encode().unwrap());
        }
        bytes.extend_from_slice(b"raw");
        let (mut tx, rx) = tokio::io::duplex(1);
        let sent = bytes.clone();
        let writer = tokio::spawn(async move { tx.write_all(&sent).await });
        let mut reader = FrameReader::new(rx);
        for c in &commands {
            assert_eq!(reader.next().await.unwrap().as_ref(), Some(c));
        }
        assert!(matches!(reader.next().await, Err(FrameError::Truncated)));
        writer.await.unwrap().unwrap();
    }
}
