//! A small web service to expose: a page, and a clock that ticks by server-sent events.
//!
//! `arp-demo [PORT]` listens on loopback and prints the port.
#![allow(clippy::expect_used)]

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::time::Duration;

const PAGE: &str = r#"<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>arp works</title>
<style>:root{color-scheme:light dark}body{font:18px/1.6 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1.2rem}
output{font-variant-numeric:tabular-nums;font-weight:600}</style>
<h1>It works.</h1>
<p>This page comes from a service on loopback, through an edge agent and a relay.
Its clock ticks by server-sent events: <output>&hellip;</output></p>
<p lang="zh">这个页面来自本机服务，经由边缘代理和中继到达您的浏览器。</p>
<script src="clock.js"></script></html>"#;
const SCRIPT: &str =
    "new EventSource('clock').onmessage = e => document.querySelector('output').textContent = e.data + ' s';";

#[tokio::main]
async fn main() {
    let port = std::env::args()
        .nth(1)
        .map_or(0, |p| p.parse().expect("a port number"));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("the port is free");
    println!("{}", listener.local_addr().expect("it has an address").port());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer)),
        );
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let fixed = |kind: &str, text: &'static str| {
        Response::builder()
            .header("content-type", kind)
            .body(Full::new(Bytes::from(text)).boxed())
    };
    let response = match request.uri().path() {
        "/clock" => {
            let ticks = stream::unfold(0u64, |n| async move {
                tokio::time::sleep(Duration::from_secs(u64::from(n > 0))).await;
                Some((Ok(Frame::data(Bytes::from(format!("data: {n}\n\n")))), n + 1))
            });
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(BodyExt::boxed(StreamBody::new(ticks)))
        }
        "/clock.js" => fixed("text/javascript", SCRIPT),
        _ => fixed("text/html; charset=utf-8", PAGE),
    };
    Ok(response.expect("sound parts"))
}
