//! What is told of a tunnel, in JSON: to `arpc tunnel status`, to the API.

use arp_tunnels::{Backend, Front, Log, Snapshot, TunnelStatus};
use serde_json::{Value, json};
use std::sync::Arc;

/// What does not change while an instance runs.
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) backend: Backend,
    pub(crate) local_host: String,
    pub(crate) local_port: u16,
    pub(crate) guarded: bool,
    pub(crate) query: Option<String>,
    pub(crate) front: Front,
    pub(crate) log: Arc<Log>,
}

impl About {
    /// Where visitors go, with the token if they need one.
    pub(crate) fn visitors_url(&self, public_url: &str) -> String {
        match &self.query {
            Some(query) if !public_url.contains('?') => {
                format!("{}/?{query}", public_url.trim_end_matches('/'))
            }
            _ => public_url.to_owned(),
        }
    }

    /// What is exposed, for people.
    pub(crate) fn local(&self) -> String {
        if self.guarded {
            return "the agents of this machine".into();
        }
        let host = match self.local_host.as_str() {
            "127.0.0.1" | "::1" => "localhost",
            other => other,
        };
        format!("{host}:{}", self.local_port)
    }

    /// Everything, for the owner of the machine alone.
    pub(crate) fn report(&self, view: &Snapshot) -> Value {
        let mut report = public(view);
        report["name"] = json!(self.name);
        report["pid"] = json!(self.pid);
        report["backend"] = json!(self.backend);
        report["local"] = json!(self.local());
        report["local_port"] = json!(self.local_port);
        report["front_port"] = json!(self.front.address().port());
        report["requests"] = json!(self.front.requests());
        report["log"] = json!(self.log.lines());
        if let TunnelStatus::Connected(info) = &view.status {
            report["visitors_url"] = json!(self.visitors_url(&info.public_url));
        }
        report
    }
}

/// How a tunnel stands, for those who may use the API.
pub(crate) fn public(view: &Snapshot) -> Value {
    let mut report = serde_json::to_value(view).unwrap_or_default();
    report["type"] = json!("tunnel");
    report
}
