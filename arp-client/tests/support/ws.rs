//! A WebSocket of a session or of the inbox.

use super::{Edge, PATIENCE, TOKEN};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// A socket, and the frames since the last one sent that were not what was waited for: replies and events come in no
/// promised order.
pub(crate) struct Ws(WebSocketStream<TcpStream>, Vec<Value>);

impl Ws {
    pub(crate) async fn open(edge: &Edge, path: &str) -> Self {
        let address = edge.base.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let join = if path.contains('?') { '&' } else { '?' };
        let url = format!("ws://{address}{path}{join}token={TOKEN}");
        Self(
            tokio_tungstenite::client_async(url, stream).await.unwrap().0,
            Vec::new(),
        )
    }

    pub(crate) async fn next(&mut self) -> Value {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
            {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn until(&mut self, like: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.1.iter().position(&like) {
            return self.1.remove(at);
        }
        loop {
            let frame = self.next().await;
            if like(&frame) {
                return frame;
            }
            self.1.push(frame);
        }
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.1.clear();
        self.0
            .send(Message::Text(frame.to_string().into()))
            .await
            .unwrap();
    }
}
