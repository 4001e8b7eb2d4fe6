//! Why a registration is refused, for the relay's log and for the edge.

use crate::defaults as d;
use arp_common::ids::Token;

/// Why a registration was refused. `Display` is for logs: it masks names. What the edge is told of its own names
/// is [`RegisterError::told`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Somebody else has this name.
    #[error("the name {0} belongs to another client")]
    Taken(Token),
    /// Another key has this name.
    #[error("the name {0} belongs to another client: it is bound to another key")]
    Bound(Token),
    /// The relay wants a shared secret, and this is not it.
    #[error(
        "this relay takes only edge agents that know its join key; give it with --join-key or ARPC_JOIN_KEY"
    )]
    JoinKey,
    /// The address has asked for too many names, or with too many keys, in vain.
    #[error("too many refused registrations from this address; wait a minute")]
    TooManyTries,
    /// The operator does not want it.
    #[error("the operator of this relay has banned this edge agent; ask them")]
    Banned,
    /// The bindings cannot be kept.
    #[error("the relay cannot write to its data directory, so it takes no new names; tell its operator")]
    Store,
    /// More tokens than allowed.
    #[error("too many tokens; at most {} further ones", d::MAX_EXTRA_TOKENS)]
    TooManyTokens,
    /// The relay has too many clients.
    #[error("this relay has no room for another client (--max-clients {0}); ask its operator")]
    Full(usize),
    /// The address has too many clients here.
    #[error(
        "this relay has no room for another edge agent from this address (--max-edges-per-ip {0}); ask its operator"
    )]
    AddressFull(usize),
    /// The address has bound too many names.
    #[error(
        "too many new names from this address within an hour (--max-new-names-per-ip {0}); wait, or ask the relay's \
         operator. Names that this machine has already are not affected"
    )]
    TooManyNames(usize),
    /// The key has too many names.
    #[error(
        "this machine's key has {0} names at this relay, and it takes no more of one key; use fewer --client-id and \
         --token, or ask the relay's operator to free some (arps clients forget)"
    )]
    KeyFull(usize),
    /// The relay has too many names.
    #[error(
        "this relay has no room for another name: {0} are bound, and all of them are in use; its operator can free \
         some (arps clients forget --older-than 30d)"
    )]
    NamesFull(usize),
}

impl RegisterError {
    /// Would trying again without a change by a person be of no use?
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Taken(_) | Self::Bound(_) | Self::JoinKey | Self::Banned | Self::TooManyTokens
        )
    }

    /// The reason in one word, for counting.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Taken(_) => "name_taken",
            Self::Bound(_) => "name_bound",
            Self::JoinKey => "join_key",
            Self::TooManyTries => "too_many_tries",
            Self::Banned => "banned",
            Self::Store => "store",
            Self::TooManyTokens => "too_many_tokens",
            Self::Full(_) => "relay_full",
            Self::AddressFull(_) => "address_full",
            Self::TooManyNames(_) => "too_many_names",
            Self::KeyFull(_) => "key_full",
            Self::NamesFull(_) => "names_full",
        }
    }

    /// What the edge is told. The name is one that it asked for itself.
    pub fn told(&self) -> String {
        match self {
            Self::Taken(name) => format!(
                "the name {} belongs to another client of this relay; choose another --client-id or --token",
                name.as_str()
            ),
            Self::Bound(name) => format!(
                "the name {0} belongs to another client of this relay: it is bound to another key. Choose another \
                 --client-id or --token; or, if it is yours and its key is lost, have the relay's operator free it:\n  \
                 arps clients forget {0}",
                name.as_str()
            ),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_mask_a_name_and_its_owner_sees_it() {
        let bound = RegisterError::Bound("a-secret-name".parse().unwrap());
        assert!(!bound.to_string().contains("secret"));
        assert!(bound.told().ends_with("\n  arps clients forget a-secret-name"));
    }
}
