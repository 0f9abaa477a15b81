//! The suite is held against bugs that are planted: each must be found within 200 seeds, by the promise that it breaks.

use isoloss_store::ledger::planted::{self, Bug as Rule};

use super::*;

/// What goes wrong in the code on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// Answers leave before the commit.
    AckBeforeFsync,
    /// A failed fsync is tried again and believed.
    RetryFsync,
    /// Leases are held by the time of day.
    WrongClock,
    /// Workers do not say which process they are.
    Nameless,
    /// A rule of the ledger is broken.
    Rule(Rule),
}

impl Bug {
    /// Breaks the rule on this thread while the world runs.
    pub(super) fn around<T>(bug: Option<Self>, run: impl FnOnce() -> T) -> T {
        planted::plant(match bug {
            Some(Self::Rule(rule)) => Some(rule),
            _ => None,
        });
        let result = run();
        planted::plant(None);
        result
    }
}

const WITHIN: u64 = 200;

#[test]
fn every_planted_bug_is_found() {
    let bugs = [
        (Bug::Rule(Rule::NoFencing), &["fencing"][..]),
        (Bug::AckBeforeFsync, &["lost", "token"]),
        (Bug::RetryFsync, &["lost"]),
        (Bug::Rule(Rule::NoDedupe), &["double"]),
        (Bug::WrongClock, &["clock"]),
        (Bug::Nameless, &["token"]),
    ];
    for (bug, promises) in bugs {
        let found = (0..WITHIN).find_map(|seed| Some((seed, simulate(seed, Some(bug)).err()?)));
        let (seed, why) = found.unwrap_or_else(|| panic!("{bug:?} is not found within {WITHIN} seeds"));
        eprintln!("{bug:?} is found by seed {seed}: {why}");
        assert!(promises.iter().any(|promise| why.starts_with(promise)), "{bug:?} breaks another promise: {why}");
    }
}
