//! What can go wrong with a tunnel, with what to do about it.

use std::fmt;
use std::time::Duration;

/// Why a tunnel does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelError {
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub fix: Option<String>,
    /// Does another try make sense?
    pub retry: Retry,
}

/// Whether and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Nothing will change until somebody does something.
    Never,
    /// After the usual pause.
    Soon,
    /// Not before this long.
    After(Duration),
}

impl TunnelError {
    /// Something that another try may overcome.
    pub fn passing(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fix: None,
            retry: Retry::Soon,
        }
    }

    /// Something that no further try will change.
    pub fn fatal(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            fix: Some(fix.into()),
            retry: Retry::Never,
        }
    }

    /// The same with a way out.
    #[must_use]
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The same, with a longer pause before the next try.
    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        self.retry = Retry::After(pause);
        self
    }

    /// The same with what a program said last, if it said anything.
    #[must_use]
    pub(crate) fn saying(mut self, last: Option<String>) -> Self {
        if let Some(last) = last {
            self.message = format!("{}; it said: {last}", self.message);
        }
        self
    }
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.fix {
            Some(fix) => write!(f, "\n  -> {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TunnelError {}
