//! Requests that wait for a tunnel of one client, and what each visitor address has of its tunnels.
//!
//! Nobody takes more than he leaves: an address may take another tunnel only while more are left for the
//! others than it holds, and the same goes for places in the queue. Of those that wait, the address that holds the
//! least is served first, and of one address whoever has waited longest.

use super::lease::Leased;
use super::tunnel::Need;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::oneshot;

/// Everybody who has or wants a tunnel of one client.
#[derive(Debug, Default)]
pub(super) struct Queue {
    shares: HashMap<IpAddr, Share>,
    waiting: usize,
    tickets: u64,
}

/// One visitor address.
#[derive(Debug, Default)]
struct Share {
    held: Arc<AtomicUsize>,
    waiting: VecDeque<Waiter>,
}

/// One request that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    /// What it needs.
    pub(super) want: Need,
    /// Where its tunnel goes.
    pub(super) tx: oneshot::Sender<Leased>,
    ticket: u64,
}

/// May an address that holds `held` of `max` take one more, when `used` are used by all?
pub(super) fn within_share(held: usize, used: usize, max: usize) -> bool {
    let left = max.saturating_sub(used);
    left > 0 && (held < left || held == 0)
}

impl Queue {
    /// Tunnels that an address holds, as a count that stays true.
    pub(super) fn held(&mut self, address: IpAddr) -> Arc<AtomicUsize> {
        self.shares.entry(address).or_default().held.clone()
    }

    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Puts a request at the end of its address's line; `None` when `max` do not let it.
    pub(super) fn push(
        &mut self,
        address: IpAddr,
        want: impl Into<Need>,
        max: usize,
    ) -> Option<(u64, oneshot::Receiver<Leased>)> {
        let share = self.shares.entry(address).or_default();
        if !within_share(share.waiting.len(), self.waiting, max) {
            return None;
        }
        let (tx, rx) = oneshot::channel();
        let ticket = self.tickets;
        self.tickets += 1;
        self.waiting += 1;
        let want = want.into();
        share.waiting.push_back(Waiter { want, tx, ticket });
        Some((ticket, rx))
    }

    /// Takes a request out that no longer wants to wait. False if it was served already.
    pub(super) fn leave(&mut self, address: IpAddr, ticket: u64) -> bool {
        let Some(share) = self.shares.get_mut(&address) else {
            return false;
        };
        let at = share.waiting.iter().position(|w| w.ticket == ticket);
        let left = at.and_then(|at| share.waiting.remove(at)).is_some();
        self.waiting -= usize::from(left);
        left
    }

    /// Takes out the request whose turn it is, of those that `fits` says something to; `used` of `max`
    /// tunnels are in use.
    pub(super) fn next<T>(
        &mut self,
        used: usize,
        max: usize,
        mut fits: impl FnMut(Need) -> Option<T>,
    ) -> Option<(Waiter, Arc<AtomicUsize>, T)> {
        if self.waiting == 0 {
            return None;
        }
        let mut turns: Vec<_> = self
            .shares
            .iter()
            .filter_map(|(address, share)| {
                let (first, held) = (share.waiting.front()?, share.held.load(Relaxed));
                within_share(held, used, max).then_some((held, first.ticket, *address))
            })
            .collect();
        turns.sort_unstable();
        for (_, _, address) in turns {
            let Some(share) = self.shares.get_mut(&address) else {
                continue;
            };
            for at in 0..share.waiting.len() {
                let Some(fit) = fits(share.waiting[at].want) else {
                    continue;
                };
                let waiter = share.waiting.remove(at)?;
                self.waiting -= 1;
                return Some((waiter, share.held.clone(), fit));
            }
        }
        None
    }

    /// How many of those that wait could take a tunnel now, were there enough.
    pub(super) fn could_be_served(&self, used: usize, max: usize) -> usize {
        if self.waiting == 0 {
            return 0;
        }
        let left = max.saturating_sub(used);
        let could = self
            .shares
            .values()
            .filter(|s| !s.waiting.is_empty())
            .map(|share| {
                let held = share.held.load(Relaxed);
                // Each tunnel taken is one more held and one less left.
                let most = left.saturating_sub(held).div_ceil(2).max(usize::from(held == 0));
                share.waiting.len().min(most)
            });
        could.sum::<usize>().min(left)
    }

    /// Sends everybody away.
    pub(super) fn clear(&mut self) {
        self.waiting = 0;
        for share in self.shares.values_mut() {
            share.waiting.clear();
        }
    }

    /// Forgets addresses that neither have nor want anything.
    pub(super) fn sweep(&mut self) {
        self.shares
            .retain(|_, share| !share.waiting.is_empty() || Arc::strong_count(&share.held) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tunnel::Want;
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn one_address_leaves_half_to_the_others() {
        let take = |held: &mut usize, used: &mut usize, max| {
            while within_share(*held, *used, max) {
                *held += 1;
                *used += 1;
            }
        };
        let (mut used, mut all) = (0, vec![0; 8]);
        for held in &mut all {
            take(held, &mut used, 1024);
        }
        assert_eq!(all, [512, 256, 128, 64, 32, 16, 8, 4]);
        let (mut one, mut used) = (0, 0);
        take(&mut one, &mut used, 1);
        assert_eq!(one, 1, "who is alone with one tunnel has it");
        assert!(!within_share(0, 0, 0));
    }

    #[test]
    fn who_holds_least_is_served_first_and_then_who_came_first() {
        let mut queue = Queue::default();
        let (hog, guest) = (address(1), address(2));
        queue.held(hog).store(3, Relaxed);
        let mut kept = Vec::new();
        for who in [hog, hog, guest, guest] {
            kept.push(queue.push(who, Want::Any, 100).unwrap());
        }
        let mut served = Vec::new();
        while let Some((waiter, held, ())) = queue.next(3, 100, |_| Some(())) {
            served.push(waiter.ticket);
            held.fetch_add(1, Relaxed);
        }
        assert_eq!(served, [2, 3, 0, 1]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn who_leaves_is_not_served_and_makes_room() {
        let mut queue = Queue::default();
        let (ticket, _rx) = queue.push(address(1), Want::Any, 1).unwrap();
        assert!(queue.push(address(2), Want::Any, 1).is_none());
        assert!(queue.leave(address(1), ticket));
        assert!(!queue.leave(address(1), ticket));
        assert!(queue.push(address(2), Want::Any, 1).is_some());
        queue.clear();
        queue.sweep();
        assert_eq!(queue.shares.len(), 0);
    }

    #[test]
    fn only_a_request_that_a_tunnel_fits_is_served() {
        let mut queue = Queue::default();
        let _first = queue.push(address(1), Want::Fresh, 9).unwrap();
        let (second, _rx) = queue.push(address(1), Want::Any, 9).unwrap();
        let fits = |need: Need| (need.want == Want::Any).then_some(());
        assert_eq!(queue.next(0, 9, fits).unwrap().0.ticket, second);
        assert!(queue.next(0, 9, fits).is_none());
        assert_eq!(queue.could_be_served(0, 9), 1);
    }
}
