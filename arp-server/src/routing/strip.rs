//! What was ours in a request, and the request without it. What is taken out is what [`route`](crate::routing::route())
//! read as ours; nothing is looked up for it again.

use crate::http::RequestHead;
use crate::routing::route::Site;
use crate::routing::source::{self, Pair};
use smallvec::SmallVec;
use std::ops::Range;

/// Where in a target (path and query) something of ours stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ours {
    /// Length of `/t/<token>` at its front.
    prefix: usize,
    pairs: SmallVec<[Range<usize>; 1]>,
    /// What `token=NAME/path?query` says of the path, and the pair that it stands in.
    rest: Option<(String, usize)>,
}

impl Ours {
    pub(crate) fn take_prefix(&mut self, len: usize) {
        self.prefix = len;
    }

    pub(crate) fn take_pair(&mut self, pair: &Pair<'_>) {
        if let (Some(rest), None) = (&pair.rest, &self.rest) {
            self.rest = Some((rest.clone(), pair.span.start));
        }
        self.pairs.push(pair.span.clone());
    }

    fn is_empty(&self) -> bool {
        self.prefix == 0 && self.pairs.is_empty()
    }

    /// The target without it. It begins with a slash (or is the `*` of OPTIONS).
    pub(crate) fn out_of(&self, target: &str) -> String {
        if self.is_empty() {
            return rooted(target);
        }
        let path_end = target.find('?').unwrap_or(target.len());
        let (more, own_query) = match &self.rest {
            Some((rest, _)) => match rest.split_once('?') {
                Some((more, query)) => (more, query),
                None => (rest.as_str(), ""),
            },
            None => ("", ""),
        };
        let path = &target[self.prefix..path_end];
        let path = if more.is_empty() {
            path
        } else {
            path.trim_end_matches('/')
        };
        let mut out = String::with_capacity(target.len() + more.len() + own_query.len() + 2);
        if !(path.starts_with('/')
            || path.is_empty() && more.starts_with('/')
            || path == "*" && more.is_empty())
        {
            out.push('/');
        }
        out.push_str(path);
        out.push_str(more);
        let mut joint = '?';
        let mut at = path_end + 1;
        for pair in target.get(at..).unwrap_or_default().split('&') {
            let start = at;
            at += pair.len() + 1;
            let kept = if !self.pairs.iter().any(|ours| ours.start == start) {
                pair
            } else if self.rest.as_ref().is_some_and(|(_, there)| *there == start) {
                own_query
            } else {
                ""
            };
            if !kept.is_empty() {
                out.push(joint);
                out.push_str(kept);
                joint = '&';
            }
        }
        out
    }
}

/// A Referer of our own origin as the service may see it, if that differs: without all that is in the place of a
/// name. Whether somebody has that name makes no difference, or it would tell who has.
pub(crate) fn referer(head: &RequestHead, site: &Site<'_>) -> Option<String> {
    let (origin, target) = source::own_referer(head, site)?;
    let mut ours = Ours::default();
    if let Some((_, len)) = source::prefix(target) {
        ours.take_prefix(len);
    }
    for pair in source::pairs(target) {
        ours.take_pair(&pair);
    }
    (!ours.is_empty()).then(|| format!("{origin}{}", ours.out_of(target)))
}

fn rooted(target: &str) -> String {
    if target.starts_with('/') || target == "*" {
        target.to_owned()
    } else {
        format!("/{target}")
    }
}
