//! Who may ask: host, token, origin and edge key of a request, before anybody looks at what it wants.

use super::body::{self, Body};
use super::error::ApiError;
use super::request::{Call, header};
use super::{Answer, ok};
use crate::command::{CommandConfig, PeerInfo, State, Via};
use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, AUTHORIZATION,
    CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN, SET_COOKIE, UPGRADE,
    VARY,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use subtle::ConstantTimeEq;

const TOKEN_HEADER: &str = "x-arp-token";
const TOKEN_COOKIE: &str = "arp_token";
const KEY_COOKIE: &str = "arp_edge";

/// A request that may go on.
#[derive(Default)]
pub(crate) struct Pass {
    /// It is answered already (a redirect).
    pub(crate) answer: Option<Response<Body>>,
    /// What its answer needs.
    pub(crate) finish: Finish,
}

/// Headers for the answer.
#[derive(Default)]
pub(crate) struct Finish(Vec<(HeaderName, HeaderValue)>);

impl Finish {
    pub(crate) fn apply(self, response: &mut Response<Body>) {
        for (name, value) in self.0 {
            response.headers_mut().append(name, value);
        }
        let headers = response.headers_mut();
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        if !headers.contains_key("referrer-policy") {
            headers.insert("referrer-policy", HeaderValue::from_static("same-origin"));
        }
    }
}

/// Lets a request pass, or says why not. Takes our token out of it.
pub(crate) fn check(state: &State, peer: PeerInfo, head: &mut Parts) -> Result<Pass, ApiError> {
    let config = &state.config;
    let mut pass = Pass::default();
    if peer.via == Via::Local {
        return Ok(pass);
    }
    check_host(config, peer, head)?;
    if matches!(peer.via, Via::Loopback | Via::Tunnel) {
        pass.answer = check_token(state, peer, head, &mut pass.finish)?;
    }
    check_origin(config, head, &mut pass.finish)?;
    if pass.answer.is_none() && head.method != Method::OPTIONS {
        check_edge_key(config, head)?;
    }
    Ok(pass)
}

/// Are these the same? Takes as long whatever they are.
pub(crate) fn same_secret(given: &str, known: &str) -> bool {
    given.as_bytes().ct_eq(known.as_bytes()).into()
}

fn check_host(config: &CommandConfig, peer: PeerInfo, head: &Parts) -> Result<(), ApiError> {
    let authority =
        header(&head.headers, HOST.as_str()).or_else(|| head.uri.authority().map(|it| it.as_str()));
    let host = authority.map(host_name).unwrap_or_default().to_ascii_lowercase();
    let loopback = matches!(host.as_str(), "localhost" | "[::1]") || host.starts_with("127.");
    let listed = config
        .allowed_hosts
        .iter()
        .any(|allowed| allowed.eq_ignore_ascii_case(&host));
    let any = matches!(peer.via, Via::Relay | Via::Tunnel) && config.allowed_hosts.is_empty();
    if loopback || listed || any {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "host_not_allowed",
        "requests for this host name are not allowed here; the owner can allow it with --allowed-hosts",
    ))
}

/// The host of `host:port`.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Where no relay has asked for the token, we do as it does, and take it out as it does.
fn check_token(
    state: &State,
    peer: PeerInfo,
    head: &mut Parts,
    finish: &mut Finish,
) -> Result<Option<Response<Body>>, ApiError> {
    let known = |given: &str| state.is_token(given, same_secret);
    let path = head.uri.path().to_owned();
    let mut token = None;
    if let Some(rest) = path.strip_prefix("/t/") {
        let (given, inner) = rest
            .split_once('/')
            .map_or((rest, None), |(given, inner)| (given, Some(inner)));
        let given = percent_decode_str(given).decode_utf8_lossy().into_owned();
        if known(&given) {
            let Some(inner) = inner else {
                // Relative addresses of the page need the slash.
                return redirect(&format!("{path}/"), head.uri.query()).map(Some);
            };
            let inner = format!("/{inner}");
            set_path(head, &inner, head.uri.query().map(str::to_owned).as_deref())?;
            token = Some((given, true));
        }
    }
    if token.is_none() {
        token = take_query_token(head, &known)?.map(|given| (given, true));
    }
    if token.is_none() {
        let given = header(&head.headers, TOKEN_HEADER).or_else(|| cookie(&head.headers, TOKEN_COOKIE));
        token = given
            .filter(|given| known(given))
            .map(|given| (given.to_owned(), false));
    }
    head.headers.remove(TOKEN_HEADER);
    // A preflight carries no token where it is a header; it tells nothing but what is allowed.
    if token.is_none() && head.method == Method::OPTIONS {
        return Ok(None);
    }
    let Some((token, from_address)) = token else {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "token_required",
            "give the token of this machine: ?token=…, the header X-ARP-Token, or the path prefix /t/TOKEN/",
        ));
    };
    if from_address && is_navigation(head) {
        // Only a tunnel's front says truly how the visitor came.
        let secure = peer.via == Via::Tunnel && header(&head.headers, "x-forwarded-proto") == Some("https");
        let secure = if secure { "; Secure" } else { "" };
        let value = format!("{TOKEN_COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax{secure}");
        if let Ok(value) = HeaderValue::from_str(&value) {
            finish.0.push((SET_COOKIE, value));
        }
    }
    Ok(None)
}

/// The first `token` parameter with a token of ours is taken out; any other stays.
fn take_query_token(head: &mut Parts, known: &dyn Fn(&str) -> bool) -> Result<Option<String>, ApiError> {
    let Some(query) = head.uri.query() else {
        return Ok(None);
    };
    let mut found = None;
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name == "token" && found.is_none() {
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            if known(&value) {
                found = Some(value);
                continue;
            }
        }
        rest.push(pair);
    }
    if found.is_some() {
        let (path, rest) = (head.uri.path().to_owned(), rest.join("&"));
        set_path(head, &path, Some(rest.as_str()).filter(|rest| !rest.is_empty()))?;
    }
    Ok(found)
}

fn set_path(head: &mut Parts, path: &str, query: Option<&str>) -> Result<(), ApiError> {
    let address = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    head.uri = Uri::try_from(address).map_err(|_| ApiError::bad_request("the address is malformed"))?;
    Ok(())
}

fn redirect(path: &str, query: Option<&str>) -> Answer {
    let address = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let address =
        HeaderValue::from_str(&address).map_err(|_| ApiError::bad_request("the address is malformed"))?;
    response.headers_mut().insert(LOCATION, address);
    Ok(response)
}

/// Is this a browser going to a page?
fn is_navigation(head: &Parts) -> bool {
    head.method == Method::GET
        && header(&head.headers, ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/html"))
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().split_once('=').filter(|(known, _)| *known == name))
        .map(|(_, value)| value)
}

/// Pages of other sites may not change anything here, and read only if they are listed.
fn check_origin(config: &CommandConfig, head: &Parts, finish: &mut Finish) -> Result<(), ApiError> {
    let Some(origin) = header(&head.headers, ORIGIN.as_str()) else {
        return Ok(());
    };
    let own_host = |name: &str| header(&head.headers, name).is_some_and(|host| is_at(origin, host));
    if own_host(HOST.as_str()) || own_host("x-forwarded-host") {
        return Ok(());
    }
    if config
        .allowed_origins
        .iter()
        .any(|allowed| allowed.trim_end_matches('/') == origin)
    {
        if let Ok(value) = HeaderValue::from_str(origin) {
            finish.0.push((ACCESS_CONTROL_ALLOW_ORIGIN, value));
        }
        for (name, value) in [
            (VARY, "Origin"),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
            (
                ACCESS_CONTROL_EXPOSE_HEADERS,
                "X-Session-Id, Location, Retry-After",
            ),
        ] {
            finish.0.push((name, HeaderValue::from_static(value)));
        }
        if head.method == Method::OPTIONS {
            for (name, value) in [
                (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PATCH, DELETE"),
                (
                    ACCESS_CONTROL_ALLOW_HEADERS,
                    "X-ARP-Token, Authorization, Content-Type, Last-Event-ID",
                ),
                (ACCESS_CONTROL_MAX_AGE, "600"),
            ] {
                finish.0.push((name, HeaderValue::from_static(value)));
            }
        }
        return Ok(());
    }
    let reads = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) && !wants_upgrade(head);
    if reads {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "origin_not_allowed",
        "pages of this origin may not do that; the owner can allow them with --allowed-origins",
    ))
}

/// Is this origin the one at that host (with its port)?
fn is_at(origin: &str, host: &str) -> bool {
    let bare = |text: &str, port: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    match origin.split_once("://") {
        Some(("http", at)) => bare(at, ":80") == bare(host, ":80"),
        Some(("https", at)) => bare(at, ":443") == bare(host, ":443"),
        _ => false,
    }
}

pub(super) fn wants_upgrade(head: &Parts) -> bool {
    head.headers.contains_key(UPGRADE)
        && header(&head.headers, CONNECTION.as_str())
            .is_some_and(|value| value.to_ascii_lowercase().contains("upgrade"))
}

fn check_edge_key(config: &CommandConfig, head: &Parts) -> Result<(), ApiError> {
    let Some(key) = &config.edge_key else {
        return Ok(());
    };
    let path = head.uri.path();
    if !super::is_api(path) || matches!(path, "/api/health" | "/api/login") {
        return Ok(());
    }
    let bearer = header(&head.headers, AUTHORIZATION.as_str()).and_then(bearer_of);
    let given = bearer.or_else(|| cookie(&head.headers, KEY_COOKIE));
    if given.is_some_and(|given| same_secret(given, key)) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNAUTHORIZED,
        "edge_key_required",
        "this machine asks for its edge key too: Authorization: Bearer KEY, or POST /api/login",
    ))
}

/// The secret of `Bearer SECRET`.
pub(crate) fn bearer_of(value: &str) -> Option<&str> {
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

#[derive(Deserialize)]
struct Login {
    edge_key: String,
}

/// `POST /api/login`.
pub(crate) async fn login(state: &Arc<State>, mut call: Call) -> Answer {
    let given: Login = call.json().await?;
    let right = state
        .config
        .edge_key
        .as_ref()
        .is_some_and(|key| same_secret(&given.edge_key, key));
    if !right {
        // Guessing takes its time.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "edge_key_wrong",
            "this is not the edge key of this machine; it is in the configuration of arpc",
        ));
    }
    let mut response = ok(&json!({"type": "logged_in"}))?;
    let secure = if call.header("x-forwarded-proto") == Some("https") {
        "; Secure"
    } else {
        ""
    };
    let value = format!(
        "{KEY_COOKIE}={}; Path=/; HttpOnly; SameSite=Lax{secure}",
        given.edge_key
    );
    let value = HeaderValue::from_str(&value)
        .map_err(|_| ApiError::internal("the edge key has characters that fit in no header"))?;
    response.headers_mut().insert(SET_COOKIE, value);
    Ok(response)
}

/// The answer to `OPTIONS`.
pub(crate) fn options(allow: &str) -> Answer {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    Ok(response)
}
