//! The last lines that a program printed: without control characters, without secrets, never growing.

use crate::defaults as d;
use arp_common::protocol::Secret;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Shorter values are not looked for: they would blacken half of every line.
const SHORTEST_SECRET: usize = 6;

/// The last lines of a program.
#[derive(Debug, Default)]
pub struct Log {
    lines: Mutex<VecDeque<String>>,
    secrets: Mutex<Vec<Secret>>,
}

impl Log {
    /// Never shows this.
    pub fn hide(&self, secret: &Secret) {
        if secret.expose().len() < SHORTEST_SECRET {
            return;
        }
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if !secrets.contains(secret) {
            secrets.push(secret.clone());
        }
    }

    /// Adds a line, and gives it back as it may be shown.
    pub fn push(&self, line: &str) -> String {
        let line = self.shown(line);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= d::LOG_LINES {
            lines.pop_front();
        }
        lines.push_back(line.clone());
        line
    }

    /// A text as it may be shown.
    pub fn shown(&self, text: &str) -> String {
        let mut text = plain(text);
        for secret in self.secrets.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if text.contains(secret.expose()) {
                text = text.replace(secret.expose(), "[hidden]");
            }
        }
        text
    }

    /// All that is kept, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }

    /// The last line with something on it.
    pub(crate) fn last(&self) -> Option<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().find(|line| !line.trim().is_empty()).cloned()
    }
}

/// Takes terminal sequences and control characters out.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            match chars.next() {
                // CSI: parameters, then one letter.
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // OSC: up to BEL or ST.
                Some(']') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            }
        } else if c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_without_colours_and_secrets() {
        let log = Log::default();
        log.hide(&Secret::new("eyJhIjoiMTIz"));
        log.hide(&Secret::new("a"));
        for n in 0..300 {
            log.push(&format!("line {n}"));
        }
        log.push("\u{1b}[2m2026\u{1b}[0m token \u{1b}]0;title\u{7}eyJhIjoiMTIz ok\r");
        let lines = log.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (200, "line 101"));
        assert_eq!(lines[199], "2026 token [hidden] ok");
    }
}
