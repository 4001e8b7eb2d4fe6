//! What clients send: path, query and body, in snake_case or camelCase.

use super::error::ApiError;
use crate::command::{PeerInfo, Starter, Via};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::str::FromStr;
use std::time::Duration;

/// Largest body of a request.
pub(crate) const MAX_BODY: usize = 8 * 1024 * 1024;
/// A body has to arrive within this.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A request on its way to its handler.
pub(crate) struct Call {
    pub(crate) peer: PeerInfo,
    pub(crate) head: request::Parts,
    /// Path parameters, decoded.
    pub(crate) params: Vec<(&'static str, String)>,
    pub(crate) query: Query,
    pub(crate) body: Incoming,
}

impl Call {
    /// A path parameter that the route has.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params
            .iter()
            .find(|(known, _)| *known == name)
            .map_or("", |(_, value)| value)
    }

    /// The body as this type. No body is an empty object.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        let value = self.json_object().await?;
        serde_json::from_value(Value::Object(value))
            .map_err(|error| ApiError::bad_request(format!("the request's JSON does not fit: {error}")))
    }

    /// The body as an object with its names in snake_case.
    async fn json_object(&mut self) -> Result<Map<String, Value>, ApiError> {
        let kind = self
            .head
            .headers
            .get(CONTENT_TYPE)
            .map(|value| value.as_bytes().to_ascii_lowercase());
        let json = kind.as_ref().is_some_and(|kind| {
            let end = kind.iter().position(|byte| *byte == b';').unwrap_or(kind.len());
            kind[..end].trim_ascii() == b"application/json"
        });
        if !json && (kind.is_some() || !self.body.is_end_stream()) {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "json_required",
                "send the body as JSON, with the header Content-Type: application/json",
            ));
        }
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(object)) => snake_object(object),
            Ok(_) => Err(ApiError::bad_request("the request's JSON must be an object")),
            Err(error) => Err(ApiError::bad_request(format!(
                "the request's body is not JSON: {error}"
            ))),
        }
    }

    async fn bytes(&mut self) -> Result<Bytes, ApiError> {
        let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(&mut self.body, MAX_BODY).collect()).await;
        match read {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body has more than {MAX_BODY} bytes"),
            )),
            Ok(Err(_)) => Err(ApiError::bad_request("the body ended early")),
            Err(_) => Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "bad_request",
                "the body did not arrive in time",
            )),
        }
    }

    /// Does the client want a stream of events?
    pub(crate) fn accepts_sse(&self) -> bool {
        self.head
            .headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.to_ascii_lowercase().contains("text/event-stream"))
    }

    /// Who starts what this request starts.
    pub(crate) fn starter(&self) -> Starter {
        match self.peer.via {
            Via::Local => Starter::Owner,
            Via::Relay | Via::Sealed | Via::Loopback | Via::Tunnel => Starter::Visitor,
        }
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head.headers, name)
    }
}

/// A header as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The query of a request, its names in snake_case.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<Parameter>);

#[derive(Debug)]
struct Parameter {
    name: String,
    /// Decoded; what is not UTF-8 has replacement characters.
    value: String,
    /// Decoded.
    bytes: Vec<u8>,
}

/// Parameters that say whom a request is for: they counted before it came to its endpoint.
const ADDRESSING: [&str; 3] = ["token", "arp_token", "edge_id"];

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&');
        let parameter = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let bytes = decode_bytes(value);
            Parameter {
                name: snake_case(&String::from_utf8_lossy(&decode_bytes(name))),
                value: String::from_utf8_lossy(&bytes).into_owned(),
                bytes,
            }
        };
        Self(pairs.filter(|pair| !pair.is_empty()).map(parameter).collect())
    }

    fn find(&self, name: &str) -> Option<&Parameter> {
        self.0.iter().find(|known| known.name == name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.find(name).map(|known| known.value.as_str())
    }

    /// A value that need not be UTF-8, if it is given and not empty.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        let bytes = self.find(name).map(|known| known.bytes.as_slice());
        bytes.filter(|bytes| !bytes.is_empty())
    }

    /// Are there no parameters but these, and each at most once?
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        for (at, Parameter { name, .. }) in self.0.iter().enumerate() {
            if ADDRESSING.contains(&name.as_str()) {
                continue;
            }
            if !known.contains(&name.as_str()) {
                return Err(ApiError::bad_query(format!(
                    "there is no parameter {} here; there are {}",
                    short(name),
                    known.join(", ")
                )));
            }
            if self.0[..at].iter().any(|before| before.name == *name) {
                return Err(ApiError::bad_query(format!("\"{name}\" is given twice")));
            }
        }
        Ok(())
    }

    /// A value of a type, if it is given and not empty.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.get(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value
                .parse()
                .map(Some)
                .map_err(|_| ApiError::bad_query(format!("\"{name}\" cannot be {}", short(value)))),
        }
    }

    /// A number within limits: above the limit counts as the limit.
    pub(crate) fn limit(&self, name: &str, default: usize, most: usize) -> Result<usize, ApiError> {
        Ok(self
            .parsed::<u64>(name)?
            .map_or(default, |value| usize::try_from(value).unwrap_or(most).min(most)))
    }

    /// A switch: `true`, `1`, or given without a value.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(value) => Err(ApiError::bad_query(format!(
                "\"{name}\" is true or false, not {}",
                short(value)
            ))),
        }
    }
}

fn short(value: &str) -> String {
    format!("\"{}\"", value.chars().take(50).collect::<String>())
}

/// Decodes `%41` and `+`.
fn decode_bytes(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

/// `projectPath` as `project_path`.
pub(crate) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            if !snake.is_empty() {
                snake.push('_');
            }
            snake.push(character.to_ascii_lowercase());
        } else {
            snake.push(character);
        }
    }
    snake
}

/// The same object with its own names (not those of values in it) in snake_case. Nulls count as not given.
pub(crate) fn snake_object(object: Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let mut snake = Map::new();
    for (name, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
        let name = snake_case(&name);
        if snake.insert(name.clone(), value).is_some() {
            return Err(ApiError::bad_request(format!("\"{name}\" is given twice")));
        }
    }
    Ok(snake)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_in_camel_case() {
        assert_eq!(snake_case("projectPath"), "project_path");
        assert_eq!(snake_case("project_path"), "project_path");
        assert_eq!(
            Query::parse(Some("projectPath=%2Fa+b&x")).get("project_path"),
            Some("/a b")
        );
    }

    #[test]
    fn parameters_that_are_not_known_or_come_twice_are_refused() {
        let refused = |query: &str| {
            let refused = Query::parse(Some(query)).only(&["path", "project_path"]);
            refused.err().map(|error| error.message)
        };
        assert_eq!(refused("projectPath=/a&path=b&token=x&arp_token=y"), None);
        assert!(refused("paht=b").unwrap().contains("\"paht\""));
        assert!(
            refused("project_path=/a&projectPath=/b")
                .unwrap()
                .contains("twice")
        );
        assert_eq!(
            Query::parse(Some("path=caf%e9")).bytes("path"),
            Some(&b"caf\xe9"[..])
        );
    }

    #[test]
    fn switches_and_numbers_are_checked() {
        let query = Query::parse(Some("a=1&b=maybe&c&d=-3&e=9999999999999999999999"));
        assert!(query.flag("a").unwrap() && query.flag("c").unwrap() && !query.flag("z").unwrap());
        assert!(query.flag("b").is_err());
        assert!(query.limit("d", 1, 10).is_err() && query.limit("e", 1, 10).is_err());
        assert_eq!(query.limit("a", 5, 10).unwrap(), 1);
    }
}
