//! States and health of a tunnel, as they are shown and sent.

use crate::Backend;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A tunnel that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TunnelInfo {
    /// Where visitors go.
    pub public_url: String,
    /// Through what.
    pub backend: Backend,
    /// The local port that they reach.
    pub local_port: u16,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    pub started_at: OffsetDateTime,
    /// Do requests come through our own front? Where a service was told elsewhere to go to another port, we can
    /// neither prove, count nor check them.
    pub through_front: bool,
    /// What else its owner should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl TunnelInfo {
    /// A tunnel that came up now.
    #[must_use]
    pub fn new(backend: Backend, public_url: impl Into<String>, local_port: u16) -> Self {
        Self {
            public_url: public_url.into(),
            backend,
            local_port,
            started_at: OffsetDateTime::now_utc(),
            through_front: true,
            note: None,
        }
    }
}

/// How a tunnel stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TunnelStatus {
    /// Not started yet.
    #[default]
    Idle,
    /// On the way up.
    Connecting,
    /// Up.
    Connected(TunnelInfo),
    /// It was lost, or did not come up; this is the try after so many failures.
    Reconnecting {
        /// Counted from 1; begins anew after a healthy minute.
        attempt: u32,
    },
    /// It was ended on purpose.
    Stopped,
    /// It was given up.
    Error {
        /// Why, and what to do.
        message: String,
    },
}

impl TunnelStatus {
    /// In one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Connected(_) => "connected",
            Self::Reconnecting { .. } => "reconnecting",
            Self::Stopped => "stopped",
            Self::Error { .. } => "error",
        }
    }
}

/// What one look at something told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", content = "detail", rename_all = "snake_case")]
pub enum Check {
    /// It is good.
    Good(String),
    /// It is bad.
    Bad(String),
    /// It cannot be told from here.
    Unknown(String),
}

impl Check {
    /// Is it bad?
    #[must_use]
    pub fn is_bad(&self) -> bool {
        matches!(self, Self::Bad(_))
    }
}

/// The health of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TunnelHealth {
    /// Nothing is bad.
    pub healthy: bool,
    /// A request to the public URL came back to us.
    pub proven: bool,
    /// The backend's process.
    pub process: Check,
    /// What the backend says of itself.
    pub backend: Check,
    /// What the public URL says.
    pub public: Check,
    /// When this was looked at.
    #[serde(serialize_with = "rfc3339")]
    pub checked_at: OffsetDateTime,
}

impl TunnelHealth {
    /// Health as the backend sees it; the public URL is not asked yet.
    #[must_use]
    pub fn of(process: Check, backend: Check) -> Self {
        Self {
            healthy: !process.is_bad() && !backend.is_bad(),
            proven: false,
            process,
            backend,
            public: Check::Unknown("not asked yet".into()),
            checked_at: OffsetDateTime::now_utc(),
        }
    }

    /// What is bad, in words.
    #[must_use]
    pub fn complaint(&self) -> String {
        let all = [
            ("process", &self.process),
            ("backend", &self.backend),
            ("public URL", &self.public),
        ];
        let bad: Vec<String> = all
            .iter()
            .filter_map(|(name, check)| match check {
                Check::Bad(why) => Some(format!("{name}: {why}")),
                Check::Good(_) | Check::Unknown(_) => None,
            })
            .collect();
        bad.join("; ")
    }
}

pub(crate) fn rfc3339<S: Serializer>(at: &OffsetDateTime, to: S) -> Result<S::Ok, S::Error> {
    let text = at.format(&Rfc3339).map_err(serde::ser::Error::custom)?;
    to.serialize_str(&text)
}
