//! An HTTP/1.1 client that sends exactly the bytes it is given and reads answers one by one.

use crate::daemon::PATIENCE;
use std::future::Future;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// One connection.
#[derive(Debug)]
pub struct RawClient {
    /// The socket, for tests that use it directly.
    pub stream: TcpStream,
    buf: Vec<u8>,
}

/// One answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Content, without framing.
    pub body: Vec<u8>,
    /// Trailer lines.
    pub trailers: Vec<String>,
}

impl Answer {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The content as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// Fails a test that waits for too long, saying for what.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// Sends one request on a connection of its own.
pub async fn get(addr: SocketAddr, target: &str, fields: &str) -> Answer {
    let mut client = RawClient::connect(addr).await;
    client
        .send(&format!(
            "GET {target} HTTP/1.1\r\nHost: relay.test\r\n{fields}\r\n"
        ))
        .await;
    client.answer().await
}

impl RawClient {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).await.expect("it listens"))
    }

    /// Connects from an address of 127.0.0.0/8.
    pub async fn connect_from(from: [u8; 4], addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("a local address");
        Self::over(socket.connect(addr).await.expect("it listens"))
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option");
        Self {
            stream,
            buf: Vec::new(),
        }
    }

    /// Sends text.
    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    /// Sends bytes.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        within("bytes to be taken", self.stream.write_all(bytes))
            .await
            .expect("they are taken");
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> bool {
        within("an answer", self.stream.read_buf(&mut self.buf))
            .await
            .unwrap_or(0)
            > 0
    }

    /// Reads a line, without its end.
    async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.buf.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buf.drain(..at + 2).collect();
                return String::from_utf8_lossy(&line[..at]).into_owned();
            }
            assert!(
                self.fill().await,
                "the connection ended in a line: {:?}",
                String::from_utf8_lossy(&self.buf)
            );
        }
    }

    /// Reads so many bytes.
    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.buf.len() < n {
            assert!(
                self.fill().await,
                "the connection ended {} bytes short",
                n - self.buf.len()
            );
        }
        self.buf.drain(..n).collect()
    }

    /// Reads a head.
    pub async fn head(&mut self) -> Answer {
        let status = self.line().await;
        let code = status.split(' ').nth(1).and_then(|c| c.parse().ok());
        let mut answer = Answer {
            status: code.unwrap_or_else(|| panic!("not a status: {status}")),
            ..Answer::default()
        };
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else {
                return answer;
            };
            answer
                .headers
                .push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads a final answer to a request that is not HEAD.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if matches!(answer.status, 100..=199 | 204 | 304) {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.chunk(&mut answer.body).await;
                if size == 0 {
                    break;
                }
            }
            loop {
                let line = self.line().await;
                if line.is_empty() {
                    break;
                }
                answer.trailers.push(line);
            }
        } else if let Some(n) = answer.header("content-length").map(str::to_owned) {
            answer.body = self.exactly(n.parse().expect("a number")).await;
        } else {
            while self.fill().await {}
            answer.body = std::mem::take(&mut self.buf);
        }
        answer
    }

    /// Reads one chunk, and tells its size.
    pub async fn chunk(&mut self, body: &mut Vec<u8>) -> usize {
        let line = self.line().await;
        let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("not a chunk size: {line}"));
        if size > 0 {
            body.extend(self.exactly(size).await);
            assert_eq!(self.exactly(2).await, b"\r\n");
        }
        size
    }

    /// Waits for the end of the connection and gives what came before it.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buf)
    }
}
