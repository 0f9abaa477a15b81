//! Who is connected, by address: how many connections, and how many of strangers, which have not shown a token yet. One
//! address must not take every place, and strangers together must not take those of workers that are known here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Open connections of one address: workers behind one gateway share theirs.
const PER_PEER_MAX: usize = 3072;
/// Of them those of strangers, which on loopback may read without a token.
const STRANGERS_PER_PEER_MAX: usize = 1024;
/// Of them those without a request under way. When one more comes, the one that has said nothing for the longest goes:
/// whoever speaks at once gets through, however many others of the same address do not.
const IDLE_PER_PEER_MAX: usize = 256;
/// Idle strangers of all addresses together, those left out that are known here or stand on this machine: half of all
/// places. Here too the longest silent one goes.
const IDLE_MAX: usize = 2048;
/// Addresses that are remembered. When there are more, all are forgotten: the next request makes each known again.
const KNOWN_MAX: usize = 4096;

/// Everybody who is connected.
#[derive(Debug, Clone, Default)]
pub(super) struct Guests(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    open: BTreeMap<IpAddr, Count>,
    /// Strangers that wait or are silent, by address and since when.
    idle: BTreeMap<(IpAddr, u64), Arc<Notify>>,
    /// Those of them whose addresses are neither known nor of this machine, the longest silent first.
    foreign: BTreeSet<(u64, IpAddr)>,
    /// Addresses from which somebody has shown a token.
    known: BTreeSet<IpAddr>,
    /// Counts what happens, as a clock of its own.
    now: u64,
}

#[derive(Debug, Default)]
struct Count {
    all: usize,
    strangers: usize,
    idle: usize,
}

/// One connection; gone when dropped.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Guests,
    peer: IpAddr,
    is_stranger: AtomicBool,
    /// Whether it is one of the foreign.
    is_foreign: bool,
    /// Since when it is idle. Changed with `Inner` held.
    since: AtomicU64,
    /// Whether a request of it is under way.
    is_asking: AtomicBool,
    /// Whether it stayed once already although it was to go, since its last request.
    was_spared: AtomicBool,
    leave: Arc<Notify>,
}

impl Guests {
    /// `None` where there is no place for one more.
    pub(super) fn enter(&self, peer: IpAddr) -> Option<Guest> {
        let peer = neighbourhood(peer);
        let mut inner = self.inner();
        let is_foreign = !peer.is_loopback() && !inner.known.contains(&peer);
        let count = inner.open.entry(peer).or_default();
        if count.all >= PER_PEER_MAX || count.strangers >= STRANGERS_PER_PEER_MAX {
            return None;
        }
        count.all += 1;
        count.strangers += 1;
        let (is_stranger, since) = (AtomicBool::new(true), AtomicU64::new(0));
        let guest = Guest {
            guests: self.clone(),
            peer,
            is_stranger,
            is_foreign,
            since,
            is_asking: AtomicBool::new(false),
            was_spared: AtomicBool::new(false),
            leave: Arc::default(),
        };
        inner.sit(&guest);
        drop(inner);
        Some(guest)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The guest is idle from now on; who has been so for the longest goes where there are too many.
    fn sit(&mut self, guest: &Guest) {
        self.now += 1;
        guest.since.store(self.now, Ordering::Relaxed);
        self.idle.insert((guest.peer, self.now), guest.leave.clone());
        let idle = self.open.get_mut(&guest.peer).map_or(0, |count| {
            count.idle += 1;
            count.idle
        });
        if guest.is_foreign {
            self.foreign.insert((self.now, guest.peer));
        }
        if idle > IDLE_PER_PEER_MAX {
            let of_peer = self.idle.range((guest.peer, 0)..).next().map(|(place, _)| *place);
            self.send_away(of_peer);
        }
        if self.foreign.len() > IDLE_MAX {
            let longest = self.foreign.first().map(|(since, peer)| (*peer, *since));
            self.send_away(longest);
        }
    }

    fn send_away(&mut self, place: Option<(IpAddr, u64)>) {
        if let Some(leave) = place.and_then(|(peer, since)| self.rise(peer, since)) {
            leave.notify_one();
        }
    }

    /// What was idle is no longer; `None` where it was not.
    fn rise(&mut self, peer: IpAddr, since: u64) -> Option<Arc<Notify>> {
        let leave = self.idle.remove(&(peer, since))?;
        self.foreign.remove(&(since, peer));
        if let Some(count) = self.open.get_mut(&peer) {
            count.idle -= 1;
        }
        Some(leave)
    }
}

impl Guest {
    /// A request of this one is under way.
    pub(super) fn asks(&self) {
        self.is_asking.store(true, Ordering::Relaxed);
        self.was_spared.store(false, Ordering::Relaxed);
        if self.is_stranger.load(Ordering::Relaxed) {
            self.guests.inner().rise(self.peer, self.since.load(Ordering::Relaxed));
        }
    }

    /// And has its answer.
    pub(super) fn rests(&self) {
        self.is_asking.store(false, Ordering::Relaxed);
        if self.is_stranger.load(Ordering::Relaxed) {
            self.guests.inner().sit(self);
        }
    }

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

    /// Ends when this one was told to go; see [`Self::may_stay`].
    pub(super) async fn sent_away(&self) {
        self.leave.notified().await;
    }

    /// Whether it stays although it was told to go: it has asked in between, or it `has_words` that nobody has read yet. Where
    /// many come at once those who were quick to speak are the longest silent to all appearance. Words that never become a
    /// request count once.
    pub(super) fn may_stay(&self, has_words: bool) -> bool {
        if self.is_asking.load(Ordering::Relaxed) || !self.is_stranger.load(Ordering::Relaxed) {
            return true;
        }
        let mut inner = self.guests.inner();
        if inner.idle.contains_key(&(self.peer, self.since.load(Ordering::Relaxed))) {
            // It has asked since it was told, and rests anew.
            return true;
        }
        let is_spared = has_words && !self.was_spared.swap(true, Ordering::Relaxed);
        if is_spared {
            inner.sit(self);
        }
        is_spared
    }

    fn no_longer_strange(&self, inner: &mut Inner) {
        inner.rise(self.peer, self.since.load(Ordering::Relaxed));
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

/// The address that counts as one: of IPv6 a machine has the last 64 bits to itself, and this one all of 127/8.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address if address.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Whether it was sent away; told once.
    fn must_go(guest: &Guest) -> bool {
        use std::task::{Context, Poll, Waker};

        let leaving = std::pin::pin!(guest.leave.notified());
        leaving.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    fn is_empty(guests: &Guests) -> bool {
        let inner = guests.inner();
        inner.open.is_empty() && inner.idle.is_empty() && inner.foreign.is_empty()
    }

    #[test]
    fn the_longest_silent_of_an_address_goes_and_who_speaks_stays() {
        let guests = Guests::default();
        let here = peer("127.0.0.1");
        let mut inside: Vec<Guest> = (0..IDLE_PER_PEER_MAX).map(|_| guests.enter(here).unwrap()).collect();
        inside[0].asks();
        inside[1].is_known();
        inside[2].asks();
        inside[2].rests();
        let flood: Vec<Guest> = (0..10).map(|_| guests.enter(peer("127.9.9.9")).unwrap()).collect();
        assert!(!flood.iter().any(must_go), "who comes has a moment to speak");
        // Two places were free: eight of the silent went, the longest silent first.
        let gone: Vec<usize> = (0..inside.len()).filter(|n| must_go(&inside[*n])).collect();
        assert_eq!(gone, (3..11).collect::<Vec<_>>());
        inside[0].rests();
        assert!(must_go(&inside[11]) && !must_go(&inside[0]));
        inside.truncate(5);
        drop((flood, inside));
        assert!(is_empty(&guests));
    }

    #[test]
    fn who_was_told_to_go_and_speaks_stays_and_unfinished_words_count_once() {
        let guests = Guests::default();
        let here = peer("127.0.0.1");
        let inside: Vec<Guest> = (0..IDLE_PER_PEER_MAX + 4).map(|_| guests.enter(here).unwrap()).collect();
        let [asking, known, talking, silent] = [0, 1, 2, 3].map(|n| &inside[n]);
        assert!([asking, known, talking, silent].into_iter().all(must_go));
        asking.asks();
        known.is_known();
        assert!(asking.may_stay(false) && known.may_stay(false) && !silent.may_stay(false));
        assert!(talking.may_stay(true));
        // It sits again, so that there was one too many.
        assert!(must_go(&inside[4]) && !must_go(talking));
        silent.asks();
        silent.rests();
        assert!(silent.may_stay(false), "what it was told is old by now");
        let later: Vec<Guest> = (0..IDLE_PER_PEER_MAX).map(|_| guests.enter(here).unwrap()).collect();
        assert!(must_go(talking) && !talking.may_stay(true), "its words never became a request");
        drop((inside, later));
        assert!(is_empty(&guests));
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
        let come = |_| {
            let guest = guests.enter(there).unwrap();
            guest.asks();
            guest
        };
        let mut strangers: Vec<Guest> = (0..STRANGERS_PER_PEER_MAX).map(come).collect();
        assert!(guests.enter(there).is_none() && guests.enter(peer("::ffff:192.0.2.2")).is_none());
        strangers[0].is_known();
        strangers[0].is_known();
        strangers.push(guests.enter(there).unwrap());
        assert!(guests.enter(there).is_none());
        drop((inside, strangers));
        assert!(is_empty(&guests));
    }

    #[test]
    fn strangers_of_many_addresses_leave_room_for_those_who_are_known() {
        let guests = Guests::default();
        let worker = peer("203.0.113.7");
        guests.enter(worker).unwrap().is_known();
        let kept = [guests.enter(worker).unwrap(), guests.enter(peer("127.0.0.1")).unwrap()];
        let of = |n: usize| IpAddr::from([10, 0, u8::try_from(n / 250).unwrap(), u8::try_from(n % 250).unwrap()]);
        let crowd: Vec<Guest> = (0..IDLE_MAX + 7).map(|n| guests.enter(of(n)).unwrap()).collect();
        let gone: Vec<usize> = (0..crowd.len()).filter(|n| must_go(&crowd[*n])).collect();
        assert_eq!(gone, (0..7).collect::<Vec<_>>());
        assert!(!kept.iter().any(must_go));
        drop((crowd, kept));
        assert!(is_empty(&guests));
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one() {
        let guests = Guests::default();
        let one: Vec<Guest> =
            (0..=IDLE_PER_PEER_MAX).map(|n| guests.enter(peer(&format!("2001:db8::{n:x}"))).unwrap()).collect();
        let other = guests.enter(peer("2001:db8:0:1::1")).unwrap();
        assert!(must_go(&one[0]) && !must_go(&one[1]) && !must_go(&other));
    }
}
