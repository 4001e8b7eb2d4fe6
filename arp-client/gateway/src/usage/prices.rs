//! What tokens cost: a table of list prices, which a person's own in `gateway.toml` go before.

use super::Tokens;
use crate::files::routes::fits;
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};

/// When the table was last compared.
pub const DATED: &str = "2026-11-28";
/// Where its figures come from, and how far they were compared.
pub const SOURCE: &str = "Claude 4 and later: a stored copy of Anthropic's price page; GPT-5.4, GPT-5.5 and Gemini 3: \
    what others have copied from OpenAI's and Google's price pages in June and October 2026; all older models: not \
    compared again. A relay site charges what it says itself";

/// Dollars for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Read anew.
    pub input: f64,
    /// Written by the model, reasoning included.
    pub output: f64,
    /// Read from the prompt cache; a tenth of `input` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<f64>,
    /// Written to the prompt cache; as `input` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
}

impl Price {
    const fn new(input: f64, output: f64, cache_read: f64, cache_write: f64) -> Self {
        Self {
            input,
            output,
            cache_read: Some(cache_read),
            cache_write: Some(cache_write),
        }
    }

    /// What is wrong with it, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let all = [
            Some(self.input),
            Some(self.output),
            self.cache_read,
            self.cache_write,
        ];
        let good = all.into_iter().flatten().all(|n| n.is_finite() && n >= 0.0);
        (!good).then_some("prices are numbers from 0 up")
    }

    /// Dollars for these tokens.
    #[must_use]
    pub fn of(&self, tokens: &Tokens) -> f64 {
        #[allow(clippy::cast_precision_loss)] // Beyond 2^53 tokens nobody counts cents.
        let million = |n: u64| n as f64 / 1e6;
        million(tokens.input) * self.input
            + million(tokens.output) * self.output
            + million(tokens.cache_read) * self.cache_read.unwrap_or(self.input / 10.0)
            + million(tokens.cache_write) * self.cache_write.unwrap_or(self.input)
    }
}

/// By pattern of the model's name; the first that fits counts. Prices for long prompts are not in it.
const TABLE: &[(&str, Price)] = &[
    ("claude-fable-5-1*", Price::new(10.0, 50.0, 0.25, 12.5)),
    ("claude-mythos-5-1*", Price::new(10.0, 50.0, 0.25, 12.5)),
    ("claude-fable-5*", Price::new(10.0, 50.0, 1.0, 12.5)),
    ("claude-mythos-5*", Price::new(10.0, 50.0, 1.0, 12.5)),
    ("claude-opus-5-5*", Price::new(4.0, 20.0, 0.2, 5.0)),
    ("claude-opus-5", Price::new(5.0, 25.0, 0.5, 6.25)),
    ("claude-opus-5-20*", Price::new(5.0, 25.0, 0.5, 6.25)),
    ("claude-opus-4-5*", Price::new(5.0, 25.0, 0.5, 6.25)),
    ("claude-opus-4-6*", Price::new(5.0, 25.0, 0.5, 6.25)),
    ("claude-opus-4-7*", Price::new(5.0, 25.0, 0.5, 6.25)),
    ("claude-opus-4-8*", Price::new(5.0, 25.0, 0.5, 6.25)),
    ("claude-opus-4*", Price::new(15.0, 75.0, 1.5, 18.75)),
    ("claude-3-opus*", Price::new(15.0, 75.0, 1.5, 18.75)),
    ("claude-sonnet-5-5*", Price::new(2.0, 10.0, 0.1, 2.5)),
    ("claude-sonnet-5", Price::new(2.0, 10.0, 0.2, 2.5)),
    ("claude-sonnet-5-20*", Price::new(2.0, 10.0, 0.2, 2.5)),
    ("claude-sonnet-4*", Price::new(3.0, 15.0, 0.3, 3.75)),
    ("claude-3-?-sonnet*", Price::new(3.0, 15.0, 0.3, 3.75)),
    // Of prompts up to 100,000 tokens.
    ("claude-haiku-5-5*", Price::new(0.1, 0.5, 0.01, 0.125)),
    ("claude-haiku-4-5*", Price::new(1.0, 5.0, 0.1, 1.25)),
    ("claude-3-5-haiku*", Price::new(0.8, 4.0, 0.08, 1.0)),
    ("claude-3-haiku*", Price::new(0.25, 1.25, 0.03, 0.3)),
    ("gpt-5.5-pro*", Price::new(30.0, 180.0, 30.0, 30.0)),
    ("gpt-5.5", Price::new(5.0, 30.0, 0.5, 5.0)),
    ("gpt-5.5-20*", Price::new(5.0, 30.0, 0.5, 5.0)),
    ("gpt-5.4-pro*", Price::new(30.0, 180.0, 30.0, 30.0)),
    ("gpt-5.4-mini*", Price::new(0.75, 4.5, 0.075, 0.75)),
    ("gpt-5.4-nano*", Price::new(0.2, 1.25, 0.02, 0.2)),
    ("gpt-5.4", Price::new(2.5, 15.0, 0.25, 2.5)),
    ("gpt-5.4-20*", Price::new(2.5, 15.0, 0.25, 2.5)),
    ("gpt-5-nano*", Price::new(0.05, 0.4, 0.005, 0.05)),
    ("gpt-5-mini*", Price::new(0.25, 2.0, 0.025, 0.25)),
    ("gpt-5.1-codex-mini*", Price::new(0.25, 2.0, 0.025, 0.25)),
    ("gpt-5-pro*", Price::new(15.0, 120.0, 15.0, 15.0)),
    ("gpt-5", Price::new(1.25, 10.0, 0.125, 1.25)),
    ("gpt-5-codex*", Price::new(1.25, 10.0, 0.125, 1.25)),
    ("gpt-5.1*", Price::new(1.25, 10.0, 0.125, 1.25)),
    ("gpt-4.1-nano*", Price::new(0.1, 0.4, 0.025, 0.1)),
    ("gpt-4.1-mini*", Price::new(0.4, 1.6, 0.1, 0.4)),
    ("gpt-4.1*", Price::new(2.0, 8.0, 0.5, 2.0)),
    ("gpt-4o-mini*", Price::new(0.15, 0.6, 0.075, 0.15)),
    ("gpt-4o*", Price::new(2.5, 10.0, 1.25, 2.5)),
    ("o4-mini*", Price::new(1.1, 4.4, 0.275, 1.1)),
    ("o3", Price::new(2.0, 8.0, 0.5, 2.0)),
    // Until the end of 2026; twice that from then on.
    ("gemini-3.8-flash", Price::new(0.75, 3.75, 0.075, 0.75)),
    ("gemini-3.5-flash-lite*", Price::new(0.3, 2.5, 0.03, 0.3)),
    ("gemini-3.5-flash", Price::new(1.5, 9.0, 0.15, 1.5)),
    ("gemini-3.1-pro*", Price::new(2.0, 12.0, 0.2, 2.0)),
    ("gemini-3-pro*", Price::new(2.0, 12.0, 0.2, 2.0)),
    ("gemini-2.5-pro*", Price::new(1.25, 10.0, 0.125, 1.25)),
    ("gemini-2.5-flash-lite*", Price::new(0.1, 0.4, 0.01, 0.1)),
    ("gemini-2.5-flash*", Price::new(0.3, 2.5, 0.03, 0.3)),
];

/// A person's own prices, in the order in which they are asked.
pub type Own = Vec<(String, Price)>;

/// The price of a model, if anybody has said it.
#[must_use]
pub fn price(own: &Own, model: &str) -> Option<Price> {
    // Relay sites put a vendor in front, Claude Code the size of the context behind.
    let name = model.rsplit('/').next().unwrap_or(model);
    let name = name.split('[').next().unwrap_or(name);
    let own = own
        .iter()
        .find(|(pattern, _)| fits(pattern, model) || fits(pattern, name));
    own.map(|(_, price)| *price).or_else(|| listed(name))
}

/// The price in the table.
fn listed(name: &str) -> Option<Price> {
    // Requests after each other are mostly for the same model.
    static LAST: Mutex<(String, Option<Price>)> = Mutex::new((String::new(), None));
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.0 != name {
        // Each line of the table begins with a name of which the first letter at least is given.
        let first = name.as_bytes().first();
        let mut lines = TABLE
            .iter()
            .filter(|(pattern, _)| pattern.as_bytes().first() == first);
        let price = lines.find(|(pattern, _)| fits(pattern, name));
        *last = (name.to_owned(), price.map(|(_, price)| *price));
    }
    last.1
}

/// All prices, a person's own first: pattern, price, and whether it is their own.
pub fn all(own: &Own) -> impl Iterator<Item = (&str, Price, bool)> {
    own.iter()
        .map(|(pattern, price)| (pattern.as_str(), *price, true))
        .chain(TABLE.iter().map(|(pattern, price)| (*pattern, *price, false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_prices_go_before_and_names_are_taken_as_they_come() {
        let price_of = |name| price(&Vec::new(), name).map(|p| p.input);
        assert_eq!(price_of("claude-opus-4-5-20251101"), Some(5.0));
        assert_eq!(price_of("claude-opus-4-1"), Some(15.0));
        assert_eq!(price_of("claude-opus-4-20250514"), Some(15.0));
        assert_eq!(price_of("claude-opus-4-8"), Some(5.0));
        assert_eq!(price_of("claude-opus-5-5"), Some(4.0));
        // What was not there when the table was made has no price, rather than another one's.
        assert_eq!(price_of("claude-opus-5-9"), None);
        assert_eq!(price_of("gpt-5.5-codex"), None);
        assert_eq!(price_of("anthropic/claude-sonnet-4-5[1m]"), Some(3.0));
        assert_eq!(price_of("gpt-5-mini"), Some(0.25));
        assert_eq!(price_of("glm-5"), None);
        let own = vec![(
            "glm-*".to_owned(),
            Price {
                input: 1.0,
                output: 2.0,
                cache_read: None,
                cache_write: None,
            },
        )];
        let tokens = Tokens {
            input: 1_000_000,
            cache_write: 1_000_000,
            cache_read: 1_000_000,
            output: 500_000,
            reasoning: 9,
        };
        let cost = price(&own, "glm-5").unwrap().of(&tokens);
        assert!((cost - 3.1).abs() < 1e-9, "{cost}");
    }
}
