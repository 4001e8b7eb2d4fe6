//! The relay's own answers: errors as JSON for programs and a small page for people.

use crate::exchange::rewrite::hsts;
use crate::tunnels::pool::CheckoutError;
use arp_common::error_body::ErrorBody;
use bytes::Bytes;

/// Who failed. The status code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The one who asked.
    Visitor,
    /// The edge agent or the way to it.
    Edge,
    /// The service behind the edge agent.
    LocalService,
    /// We.
    Relay,
}

/// Why a request got no answer from its client.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// For programs: stable.
    pub code: &'static str,
    /// For people: what happened and what to do.
    pub message: String,
    /// Who failed.
    pub who: Who,
    /// Seconds after which another try may make sense.
    pub retry_after: Option<u32>,
    /// Where to go instead.
    pub location: Option<String>,
    /// A script that is the answer, in place of an error.
    script: Option<&'static str>,
}

impl Refusal {
    /// An answer without more to it.
    pub fn new(who: Who, status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            who,
            retry_after: None,
            location: None,
            script: None,
        }
    }

    /// The request names no client.
    pub fn no_token() -> Self {
        let message =
            "this address needs a token: add ?token=<client id> to the URL, or send it as X-ARP-Token";
        Self::new(Who::Visitor, 401, "token_required", message)
    }

    /// The request names no client and asks for a file of the landing page.
    pub fn landing_file(path: &str) -> Option<Self> {
        let mut answer = Self::new(Who::Visitor, 200, "", "");
        answer.script = Some(SCANNER);
        (path == SCANNER_PATH).then_some(answer)
    }

    /// The request names a client that the relay has not seen.
    pub fn unknown_token() -> Self {
        let message =
            "no edge agent has registered this token: check it for typing errors, and that arpc is running";
        Self::new(Who::Visitor, 404, "unknown_token", message)
    }

    /// To another place.
    pub fn redirect(status: u16, location: String) -> Self {
        let mut answer = Self::new(Who::Relay, status, "redirect", "go on at the given location");
        answer.location = Some(location);
        answer
    }

    /// No tunnel to the edge.
    pub fn no_tunnel(why: CheckoutError) -> Self {
        let (status, code, retry) = match why {
            CheckoutError::Offline => (503, "offline", 5),
            CheckoutError::Busy | CheckoutError::Share => (503, "busy", 1),
            CheckoutError::Timeout => (504, "tunnel_timeout", 1),
        };
        let mut answer = Self::new(Who::Edge, status, code, format!("{why}; try again in {retry} s"));
        answer.retry_after = Some(retry);
        answer
    }

    /// Head and body for a visitor. `page` says that it is a person.
    pub fn render(&self, page: bool) -> Rendered {
        let (content_type, body) = match (self.script, page) {
            (Some(script), _) => (
                "text/javascript; charset=utf-8",
                Bytes::from_static(script.as_bytes()),
            ),
            (None, true) => ("text/html; charset=utf-8", Bytes::from(self.page())),
            (None, false) => ("application/json", Bytes::from(self.json())),
        };
        Rendered {
            status: self.status,
            code: self.code,
            reason: reason(self.status),
            content_type,
            csp: (page && self.script.is_none()).then_some(if self.status == 401 {
                LANDING_POLICY
            } else {
                PAGE_POLICY
            }),
            retry_after: self.retry_after,
            location: self.location.clone(),
            hsts: None,
            body,
        }
    }

    fn json(&self) -> String {
        ErrorBody::new(self.code, &self.message).line()
    }

    fn page(&self) -> String {
        let template = if self.status == 401 { LANDING } else { ERROR_PAGE };
        template
            .replace("{{status}}", &self.status.to_string())
            .replace("{{reason}}", reason(self.status))
            .replace("{{message}}", &escape(&self.message))
    }
}

/// An answer ready to be framed.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// HTTP status.
    pub status: u16,
    /// See [`Refusal::code`].
    pub code: &'static str,
    /// Its phrase.
    pub reason: &'static str,
    /// Of the body.
    pub content_type: &'static str,
    /// Content security policy of a page.
    pub csp: Option<&'static str>,
    /// Seconds.
    pub retry_after: Option<u32>,
    /// For redirects.
    pub location: Option<String>,
    /// Seconds for which a browser is to come by HTTPS only.
    pub hsts: Option<u64>,
    /// The body.
    pub body: Bytes,
}

impl Rendered {
    /// Fields besides the framing.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("content-type", self.content_type.to_owned()),
            ("cache-control", "no-store".to_owned()),
        ];
        fields.extend((!self.code.is_empty()).then(|| ("x-arp-error", self.code.to_owned())));
        fields.extend(self.csp.map(|csp| ("content-security-policy", csp.to_owned())));
        fields.extend(self.csp.map(|_| ("referrer-policy", "no-referrer".to_owned())));
        fields.extend(self.retry_after.map(|s| ("retry-after", s.to_string())));
        fields.extend(self.location.clone().map(|l| ("location", l)));
        fields.extend(self.hsts.map(|s| ("strict-transport-security", hsts(s))));
        fields
    }
}

const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const LANDING: &str = include_str!("pages/landing.html");
/// Its one script and one style by their hashes; made by arp-client/console/scripts/landing.mjs.
const LANDING_POLICY: &str = include_str!("pages/landing.csp").trim_ascii();
/// Reads QR codes where the browser cannot; made by the same.
const SCANNER: &str = include_str!("pages/scan.js");
const SCANNER_PATH: &str = "/.well-known/arp/scan.js";
const ERROR_PAGE: &str = include_str!("pages/error.html");

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or("Error")
}
