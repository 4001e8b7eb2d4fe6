//! Who may ask: host, token, origin and edge key of a request, before anybody looks at what it wants.

use super::body::{self, Body};
use super::error::ApiError;
use super::request::{Call, header};
use super::{Answer, State, ok};
use crate::command::{CommandConfig, GUESS_WINDOW, LOGIN, PeerInfo, TooMany, Via};
use arp_common::cookies;
use arp_common::ids::Token;
use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, AUTHORIZATION,
    CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN, REFERER, SET_COOKIE,
    UPGRADE, VARY,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use subtle::ConstantTimeEq;

const TOKEN_HEADER: &str = "x-arp-token";
const STRICT_PARAM: &str = "arp_token=";
const TOKEN_COOKIE: &str = "arp_token";
/// Held the key itself, for whoever shared the origin. It is taken away and counts for nothing.
const OLD_KEY_COOKIE: &str = "arp_edge";
const FETCH_SITE: &str = "sec-fetch-site";

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
pub(crate) async fn check(state: &State, peer: PeerInfo, head: &mut Parts) -> Result<Pass, ApiError> {
    let config = &state.config;
    let mut pass = Pass::default();
    if peer.via == Via::Local {
        return Ok(pass);
    }
    check_host(config, peer, head)?;
    if matches!(peer.via, Via::Loopback | Via::Tunnel) {
        pass.answer = check_token(state, peer, head, &mut pass.finish)?;
    }
    check_origin(state, peer, head, &mut pass.finish)?;
    if pass.answer.is_none() && head.method != Method::OPTIONS {
        check_edge_key(state, peer, head).await?;
    }
    Ok(pass)
}

/// Are these the same? Takes as long whatever they are.
pub(crate) fn same_secret(given: &str, known: &str) -> bool {
    given.as_bytes().ct_eq(known.as_bytes()).into()
}

fn check_host(config: &CommandConfig, peer: PeerInfo, head: &Parts) -> Result<(), ApiError> {
    let mut authorities = head.headers.get_all(HOST).iter();
    let authority = match (authorities.next(), authorities.next()) {
        (Some(one), None) => one.to_str().ok(),
        (None, _) => head.uri.authority().map(|it| it.as_str()),
        // Whoever reads the other one sees another host.
        (Some(_), Some(_)) => None,
    };
    let host = authority.map(host_name).unwrap_or_default().to_ascii_lowercase();
    let loopback = is_loopback(&host);
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

/// Is this exactly a name of this machine? `127.evil.example` is a name of somebody else.
pub(super) fn is_loopback(host: &str) -> bool {
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host == "localhost"
        || host
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
        || v6.is_some_and(|host| {
            host.parse::<Ipv6Addr>()
                .is_ok_and(|address| address.is_loopback())
        })
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
    let (tokens, id_token) = state.names.of_console();
    let id = id_token.then_some(state.config.client_id.as_str());
    let known = |given: &str| {
        tokens
            .iter()
            .map(Token::as_str)
            .chain(id)
            .fold(false, |found, token| found | same_secret(given, token))
    };
    // What is unmistakably meant for us is strict, as at the relay: a wrong name in it is not made good by another.
    let mut token = take_strict_params(head, &known)?;
    let path = head.uri.path().to_owned();
    if let Some(rest) = path
        .strip_prefix("/t/")
        .filter(|rest| !rest.is_empty() && !rest.starts_with('/'))
    {
        let (given, inner) = rest
            .split_once('/')
            .map_or((rest, None), |(given, inner)| (given, Some(inner)));
        let given = percent_decode_str(given).decode_utf8_lossy().into_owned();
        if !known(&given) {
            return Err(token_required());
        }
        let Some(inner) = inner else {
            // Relative addresses of the page need the slash.
            return redirect(&format!("{path}/"), head.uri.query()).map(Some);
        };
        let inner = format!("/{inner}");
        set_path(head, &inner, head.uri.query().map(str::to_owned).as_deref())?;
        token = Some(given);
    }
    for given in head.headers.get_all(TOKEN_HEADER) {
        match given.to_str().ok().filter(|given| known(given)) {
            Some(given) => token = token.or(Some(given.to_owned())),
            None => return Err(token_required()),
        }
    }
    if let Some(given) = take_query_token(head, &known)? {
        token = token.or(Some(given));
    }
    if token.is_none() {
        let given = cookie(&head.headers, TOKEN_COOKIE).filter(|given| known(given));
        token = given.map(str::to_owned);
    }
    head.headers.remove(TOKEN_HEADER);
    // A preflight carries no token where it is a header; it tells nothing but what is allowed.
    if token.is_none() && head.method == Method::OPTIONS {
        return Ok(None);
    }
    let Some(token) = token else {
        return Err(token_required());
    };
    if is_navigation(head) {
        // Only a tunnel's front says truly how the visitor came.
        let secure = peer.via == Via::Tunnel && header(&head.headers, "x-forwarded-proto") == Some("https");
        let secure = if secure { "; Secure" } else { "" };
        // As at the relay: 90 days from the last page on.
        let value =
            format!("{TOKEN_COOKIE}={token}; Path=/; Max-Age=7776000; HttpOnly; SameSite=Lax{secure}");
        if let Ok(value) = HeaderValue::from_str(&value) {
            finish.0.push((SET_COOKIE, value));
        }
    }
    Ok(None)
}

fn token_required() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "token_required",
        "give the token of this machine: ?token=…, the header X-ARP-Token, or the path prefix /t/TOKEN/",
    )
}

/// Every `arp_token` parameter is ours and taken out; each must hold a token of ours.
fn take_strict_params(head: &mut Parts, known: &dyn Fn(&str) -> bool) -> Result<Option<String>, ApiError> {
    let Some(query) = head.uri.query().filter(|query| query.contains(STRICT_PARAM)) else {
        return Ok(None);
    };
    let mut found = None;
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let Some(value) = pair.strip_prefix(STRICT_PARAM) else {
            rest.push(pair);
            continue;
        };
        let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
        if !known(&value) {
            return Err(token_required());
        }
        found = Some(value);
    }
    let (path, rest) = (head.uri.path().to_owned(), rest.join("&"));
    set_path(head, &path, Some(rest.as_str()).filter(|rest| !rest.is_empty()))?;
    Ok(found)
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

/// Is a page of this origin our own? First by the host that was asked, as the visitor's browser or a proxy that
/// the relay trusts calls it; then by the URL that the relay told us. A proxy that hides the host leaves what the
/// browser says: no page can make it say `same-origin` of another's. Of a WebSocket some browsers do not say it;
/// for that they are given a voucher before.
fn is_own_page(state: &State, head: &Parts, origin: &str) -> bool {
    let own_host = |name: &str| header(&head.headers, name).is_some_and(|host| is_at(origin, host));
    if own_host(HOST.as_str()) || own_host("x-forwarded-host") || state.is_public_origin(origin) {
        return true;
    }
    match header(&head.headers, FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => cookie(&head.headers, &cookies::edge_origin(&state.client))
            .is_some_and(|shown| state.logins.vouched(origin, shown)),
    }
}

/// Gives the browser a voucher for the origin of its page, where only its own word tells that it is ours.
fn vouch(state: &State, head: &Parts, finish: &mut Finish) {
    if header(&head.headers, FETCH_SITE) != Some("same-origin") {
        return;
    }
    let page = header(&head.headers, ORIGIN.as_str()).or_else(|| header(&head.headers, REFERER.as_str()));
    // Other schemes may not set cookies that no neighbour can forge, and the host is not hidden there.
    let Some(rest) = page.and_then(|page| page.strip_prefix("https://")) else {
        return;
    };
    let origin = format!(
        "https://{}",
        rest.split(['/', '?', '#']).next().unwrap_or_default()
    );
    let hosts = [HOST.as_str(), "x-forwarded-host"];
    let named = |name: &&str| header(&head.headers, name).is_some_and(|host| is_at(&origin, host));
    let name = cookies::edge_origin(&state.client);
    let has = cookie(&head.headers, &name).is_some_and(|shown| state.logins.vouched(&origin, shown));
    if hosts.iter().any(named) || state.is_public_origin(&origin) || has {
        return;
    }
    let value = state.logins.vouch(&origin);
    let age = LOGIN.as_secs();
    let value = format!("{name}={value}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Strict");
    if let Ok(value) = HeaderValue::from_str(&value) {
        finish.0.push((SET_COOKIE, value));
    }
}

/// Pages of other sites may not change anything here, and read only if they are listed.
fn check_origin(state: &State, peer: PeerInfo, head: &Parts, finish: &mut Finish) -> Result<(), ApiError> {
    let config = &state.config;
    if peer.via == Via::Relay {
        vouch(state, head, finish);
    }
    let Some(origin) = header(&head.headers, ORIGIN.as_str()) else {
        return Ok(());
    };
    if is_own_page(state, head, origin) {
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
                    "X-ARP-Token, X-ARP-Edge, Authorization, Content-Type, Last-Event-ID",
                ),
                (ACCESS_CONTROL_MAX_AGE, "600"),
            ] {
                finish.0.push((name, HeaderValue::from_static(value)));
            }
        }
        return Ok(());
    }
    let reads = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) && !wants_upgrade(head);
    // A page of a local service is in a sandbox, and may do with its service what it likes.
    let own_service = head.uri.path().starts_with("/proxy/") && super::proxy::is_opaque(head);
    if reads || own_service {
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

async fn check_edge_key(state: &State, peer: PeerInfo, head: &Parts) -> Result<(), ApiError> {
    let Some(key) = &state.config.edge_key else {
        return Ok(());
    };
    let path = head.uri.path();
    if !super::is_api(path) || matches!(path, "/api/health" | "/api/login") {
        return Ok(());
    }
    let bearer = header(&head.headers, AUTHORIZATION.as_str()).and_then(bearer_of);
    if let Some(given) = bearer {
        if state.guesses.fits(peer.addr, given, key).await? {
            return Ok(());
        }
    } else if login_of(state, &head.headers).is_some_and(|login| state.logins.holds(login)) {
        // A random number of 128 bits: nobody finds one by trying.
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNAUTHORIZED,
        "edge_key_required",
        "this machine asks for its edge key too: Authorization: Bearer KEY, or POST /api/login",
    ))
}

/// What a browser shows of its login.
fn login_of<'a>(state: &State, headers: &'a HeaderMap) -> Option<&'a str> {
    cookie(headers, &cookies::edge_login(&state.client))
}

/// The secret of `Bearer SECRET`.
pub(crate) fn bearer_of(value: &str) -> Option<&str> {
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

impl From<TooMany> for ApiError {
    fn from(_: TooMany) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_guesses",
            "too many wrong keys came from your address; wait a few seconds, then give the right one",
        )
        .retry_after(GUESS_WINDOW)
    }
}

#[derive(Deserialize)]
struct Login {
    edge_key: String,
}

/// `POST /api/login`.
pub(crate) async fn login(state: &Arc<State>, mut call: Call) -> Answer {
    let given: Login = call.json().await?;
    let right = match &state.config.edge_key {
        Some(key) => state.guesses.fits(call.peer.addr, &given.edge_key, key).await?,
        None => false,
    };
    if !right {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "edge_key_wrong",
            "this is not the edge key of this machine; it is in the configuration of arpc",
        ));
    }
    let began = tokio::task::spawn_blocking({
        let state = Arc::clone(state);
        move || state.logins.begin()
    });
    let login = match began.await {
        Ok(Ok(login)) => login,
        Ok(Err(error)) => return Err(ApiError::internal(format!("the login cannot be kept: {error}"))),
        Err(error) => return Err(ApiError::internal(error.to_string())),
    };
    let response = ok(&json!({"type": "logged_in"}))?;
    with_login(state, &call, response, &login, LOGIN.as_secs())
}

/// `POST /api/logout`: the cookie counts no more, and is taken away.
pub(crate) async fn logout(state: &Arc<State>, call: Call) -> Answer {
    if let Some(login) = login_of(state, &call.head.headers).map(str::to_owned) {
        let state = Arc::clone(state);
        let ended = tokio::task::spawn_blocking(move || state.logins.end(&login));
        if let Ok(Err(error)) = ended.await {
            return Err(ApiError::internal(format!(
                "the login cannot be ended on disk: {error}"
            )));
        }
    }
    let response = ok(&json!({"type": "logged_out"}))?;
    with_login(state, &call, response, "", 0)
}

/// Sets the cookie of a login for so many seconds, and takes away the one that held the key.
fn with_login(state: &State, call: &Call, mut response: Response<Body>, login: &str, age: u64) -> Answer {
    let https = call.header("x-forwarded-proto") == Some("https");
    let secure = if https { "; Secure" } else { "" };
    let name = cookies::edge_login(&state.client);
    for cookie in [
        format!("{name}={login}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"),
        format!("{OLD_KEY_COOKIE}=; Path=/; Max-Age=0"),
    ] {
        let value = HeaderValue::from_str(&cookie).map_err(|e| ApiError::internal(e.to_string()))?;
        response.headers_mut().append(SET_COOKIE, value);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_of_this_machine_are_loopback() {
        for own in [
            "localhost",
            "127.0.0.1:9020",
            "127.8.9.1",
            "[::1]:80",
            "localhost:1",
        ] {
            assert!(is_loopback(host_name(own)), "{own}");
        }
        for other in [
            "127.evil.example",
            "127.0.0.1.evil.example:80",
            "127.0.0.1@evil.example",
            "127.0.0.1:80@evil.example",
            "127.0.0.1:80@evil.example:80",
            "localhost.evil.example",
            "[::1].evil.example",
            "[::2]",
            "::1",
            "127.1",
            "",
        ] {
            assert!(!is_loopback(host_name(other)), "{other}");
        }
    }
}
