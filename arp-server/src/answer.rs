//! The relay's own answers: errors as JSON for programs and a small page for people.

mod flood;

use crate::exchange::rewrite::hsts;
use crate::routing::redirect::Location;
use crate::routing::route::Unknown;
use crate::tunnels::checkout::CheckoutError;
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
    pub(crate) location: Option<Location>,
    /// Where a person may go on all the same.
    go_on: Option<(Location, &'static str)>,
    /// Cookies that are taken away: values of `Set-Cookie`.
    farewells: Vec<String>,
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
            go_on: None,
            farewells: Vec::new(),
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

    /// The request names a client that is not there.
    pub(crate) fn unknown_token(unknown: &Unknown) -> Self {
        let message = if unknown.given_up {
            "this token is no longer anybody's: it was revoked or has expired; ask its owner for another"
        } else {
            "no edge agent has registered this token: check it for typing errors. The owner of the machine adds a \
             name with `arpc tokens add NAME` (or arpc --token NAME)"
        };
        let mut answer = Self::new(Who::Visitor, 404, "unknown_token", message);
        let go_on = unknown.go_on.clone();
        answer.go_on = go_on.map(|there| (there, "Go on to the machine this browser opened last"));
        answer
    }

    /// The request names two clients.
    pub(crate) fn token_conflict() -> Self {
        let message = "the request names two different clients; name one, in one place";
        Self::new(Who::Visitor, 400, "token_conflict", message)
    }

    /// The host name is one client's, and the request names another.
    pub(crate) fn other_host() -> Self {
        let message =
            "this host name is another client's: on it only that one answers; use the token's own host name";
        Self::new(Who::Visitor, 404, "other_host", message)
    }

    /// To another place.
    pub(crate) fn redirect(status: u16, location: Location) -> Self {
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
            farewells: self.farewells.clone(),
            hsts: None,
            proxy_auth: false,
            body,
        }
    }

    fn json(&self) -> String {
        ErrorBody::new(self.code, &self.message).line()
    }

    fn page(&self) -> String {
        let template = if self.status == 401 { LANDING } else { ERROR_PAGE };
        let go_on = self.go_on.as_ref().map(|(there, text)| {
            let there = escape(there.as_str());
            format!("<p><a href=\"{there}\">{text}</a></p>")
        });
        // Without scripts a page that may go on is asked for anew as a whole.
        let refresh = self
            .retry_after
            .map(|secs| format!("<noscript><meta http-equiv=\"refresh\" content=\"{secs}\"></noscript>\n"));
        let retry = self.retry_after.map(|secs| secs.to_string());
        template
            .replace("{{refresh}}", &refresh.unwrap_or_default())
            .replace("{{retry}}", &retry.unwrap_or_default())
            .replace("{{code}}", self.code)
            .replace("{{go_on}}", &go_on.unwrap_or_default())
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
    pub(crate) location: Option<Location>,
    /// Cookies that are taken away: values of `Set-Cookie`.
    farewells: Vec<String>,
    /// Seconds for which a browser is to come by HTTPS only.
    pub hsts: Option<u64>,
    /// Asks a user of a proxy for what the edge's gate wants.
    pub(crate) proxy_auth: bool,
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
        fields.extend(self.location.iter().map(|l| ("location", l.as_str().to_owned())));
        if !self.farewells.is_empty() {
            // Takes all of them, where the browser trusts the connection.
            fields.push(("clear-site-data", "\"cookies\"".to_owned()));
        }
        fields.extend(self.farewells.iter().map(|f| ("set-cookie", f.clone())));
        fields.extend(self.proxy_auth.then(|| {
            (
                "proxy-authenticate",
                "Basic realm=\"arp\", charset=\"UTF-8\"".to_owned(),
            )
        }));
        fields.extend(self.hsts.map(|s| ("strict-transport-security", hsts(s))));
        fields
    }
}

/// As for the landing page; made by the same.
const PAGE_POLICY: &str = include_str!("pages/error.csp").trim_ascii();
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
