//! Who is connected, by address: how many connections, and how many of strangers, which have not shown a token yet. One
//! address must not take every place, and strangers together must not take those of workers that are known here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Open connections of one address: workers behind one gateway share theirs.
const PER_PEER_MAX: usize = 3072;
/// Of them those of strangers. A client shows its token with the first request, so a crowd that comes at once stays below,
/// or comes again a moment later.
const STRANGERS_PER_PEER_MAX: usize = 256;
/// Strangers of all addresses together, those left out that are known here or stand on this machine: half of all places.
const STRANGERS_MAX: usize = 2048;
/// Addresses that are remembered. When there are more, all are forgotten: the next request makes each known again.
const KNOWN_MAX: usize = 4096;

/// Everybody who is connected.
#[derive(Debug, Clone, Default)]
pub(super) struct Guests(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    open: BTreeMap<IpAddr, Count>,
    /// Strangers of addresses that are neither known nor of this machine.
    strangers: usize,
    /// Addresses from which somebody has shown a token.
    known: BTreeSet<IpAddr>,
}

#[derive(Debug, Default)]
struct Count {
    all: usize,
    strangers: usize,
}

/// One connection; gone when dropped.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Guests,
    peer: IpAddr,
    is_stranger: AtomicBool,
    /// Whether it is one of the strangers of all addresses together.
    counts: bool,
}

impl Guests {
    /// `None` where there is no place for one more.
    pub(super) fn enter(&self, peer: IpAddr) -> Option<Guest> {
        let peer = neighbourhood(peer);
        let mut inner = self.inner();
        let counts = !peer.is_loopback() && !inner.known.contains(&peer);
        let here = inner.open.get(&peer).map_or((0, 0), |count| (count.all, count.strangers));
        let is_full = counts && inner.strangers >= STRANGERS_MAX;
        if here.0 >= PER_PEER_MAX || here.1 >= STRANGERS_PER_PEER_MAX || is_full {
            return None;
        }
        let count = inner.open.entry(peer).or_default();
        count.all += 1;
        count.strangers += 1;
        inner.strangers += usize::from(counts);
        Some(Guest { guests: self.clone(), peer, is_stranger: AtomicBool::new(true), counts })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// This one has shown a token that is good here.
    pub(super) fn is_known(&self) {
        if self.is_stranger.swap(false, Ordering::Relaxed) {
            let mut inner = self.guests.inner();
            if inner.known.len() >= KNOWN_MAX {
                inner.known.clear();
            }
            inner.known.insert(self.peer);
            self.no_longer_strange(&mut inner);
        }
    }

    fn no_longer_strange(&self, inner: &mut Inner) {
        inner.strangers -= usize::from(self.counts);
        if let Some(count) = inner.open.get_mut(&self.peer) {
            count.strangers -= 1;
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut inner = self.guests.inner();
        if *self.is_stranger.get_mut() {
            self.no_longer_strange(&mut inner);
        }
        if let Some(count) = inner.open.get_mut(&self.peer) {
            count.all -= 1;
            if count.all == 0 {
                inner.open.remove(&self.peer);
            }
        }
    }
}

/// The address that counts as one: of IPv6 a machine has the last 64 bits to itself.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_takes_neither_every_place_nor_many_as_a_stranger() {
        let guests = Guests::default();
        let (here, there) = (peer("192.0.2.1"), peer("192.0.2.2"));
        let mut inside: Vec<Guest> = Vec::new();
        for _ in 0..PER_PEER_MAX {
            let guest = guests.enter(here).unwrap();
            guest.is_known();
            inside.push(guest);
        }
        assert!(guests.enter(here).is_none() && guests.enter(there).is_some());
        inside.pop();
        assert!(guests.enter(here).is_some());
        let mut strangers: Vec<Guest> = (0..STRANGERS_PER_PEER_MAX).map(|_| guests.enter(there).unwrap()).collect();
        assert!(guests.enter(there).is_none() && guests.enter(peer("::ffff:192.0.2.2")).is_none());
        strangers[0].is_known();
        strangers[0].is_known();
        strangers.push(guests.enter(there).unwrap());
        assert!(guests.enter(there).is_none());
        drop((inside, strangers));
        let inner = guests.inner();
        assert!(inner.open.is_empty() && inner.strangers == 0);
    }

    #[test]
    fn strangers_of_many_addresses_leave_room_for_those_who_are_known() {
        let guests = Guests::default();
        let worker = peer("203.0.113.7");
        guests.enter(worker).unwrap().is_known();
        let of = |n: usize| IpAddr::from([10, 0, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250).unwrap()]);
        let crowd: Vec<Guest> = (0..STRANGERS_MAX).map(|n| guests.enter(of(n)).unwrap()).collect();
        assert!(guests.enter(peer("198.51.100.1")).is_none());
        let kept = [guests.enter(worker).unwrap(), guests.enter(peer("127.0.0.1")).unwrap()];
        drop(crowd);
        assert_eq!(guests.inner().strangers, 0);
        drop(kept);
        assert_eq!(guests.inner().strangers, 0);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one() {
        let guests = Guests::default();
        let one: Vec<Guest> =
            (0..STRANGERS_PER_PEER_MAX).map(|n| guests.enter(peer(&format!("2001:db8::{n:x}"))).unwrap()).collect();
        assert!(guests.enter(peer("2001:db8::ffff")).is_none());
        assert!(guests.enter(peer("2001:db8:0:1::1")).is_some());
        drop(one);
    }
}
