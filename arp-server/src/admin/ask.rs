//! How the command line asks a running relay: HTTP on the socket in its data directory.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

/// Largest answer that is read, in bytes: some hundred for each client.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Time for one step of an answer.
const TIME: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there to be asked.
    #[error(
        "no relay runs with the data directory {0}; is it another one (--data-dir), or another user's (sudo)?"
    )]
    NotRunning(String),
    /// It is not ours to ask.
    #[error("{0}: {1}; run this as the relay's user, or with sudo")]
    NotAllowed(String, io::Error),
    /// It broke off, or said something else.
    #[error("the relay did not answer: {0}")]
    Broken(String),
    /// It says no.
    #[error("{1}")]
    Refused(u16, String),
}

/// Asks, and gives the body of a good answer.
///
/// # Errors
/// See [`AskError`].
pub fn ask(dir: &Path, method: &str, path: &str) -> Result<Vec<u8>, AskError> {
    let socket = crate::data::socket_file(dir);
    let broken = |e: io::Error| AskError::Broken(e.to_string());
    let mut stream = arp_local::connect_blocking(&socket).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => AskError::NotAllowed(socket.display().to_string(), e),
        _ => AskError::NotRunning(dir.display().to_string()),
    })?;
    stream.set_read_timeout(Some(TIME)).map_err(broken)?;
    stream.set_write_timeout(Some(TIME)).map_err(broken)?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(broken)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).map_err(broken)?;
    parse(&answer)
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn parse(answer: &[u8]) -> Result<Vec<u8>, AskError> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let broken = |e: &str| AskError::Broken(e.to_owned());
    let len = match head.parse(answer) {
        Ok(httparse::Status::Complete(len)) => len,
        _ => return Err(broken("the answer breaks off")),
    };
    let body = &answer[len..];
    let length = head
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|h| std::str::from_utf8(h.value).ok()?.parse::<usize>().ok());
    if length != Some(body.len()) {
        return Err(broken("the answer breaks off"));
    }
    let status = head.code.unwrap_or(0);
    if (200..300).contains(&status) {
        return Ok(body.to_vec());
    }
    #[derive(serde::Deserialize)]
    struct Told {
        message: String,
    }
    let told = serde_json::from_slice::<Told>(body).map(|t| t.message);
    Err(AskError::Refused(
        status,
        told.unwrap_or_else(|_| format!("status {status}")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_whole_or_not() {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        assert_eq!(parse(ok).unwrap(), b"hi");
        for end in 1..ok.len() {
            assert!(matches!(parse(&ok[..end]), Err(AskError::Broken(_))), "{end}");
        }
        let no = b"HTTP/1.1 404 Not Found\r\ncontent-length: 17\r\n\r\n{\"message\":\"gone\"";
        assert!(matches!(parse(no), Err(AskError::Refused(404, _))));
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
    }
}
