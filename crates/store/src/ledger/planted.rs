//! Bugs that a test plants to see that the simulation finds them. Without the feature `planted-bugs`, which only tests of
//! other crates turn on, no rule can be broken and nothing of this is compiled.

/// A rule that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A stale attempt counts as the newest.
    NoFencing,
    /// An outcome is taken though one was taken before.
    NoDedupe,
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Breaks one rule on this thread, or none any more.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(feature = "planted-bugs")]
pub(super) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(feature = "planted-bugs"))]
pub(super) fn is_planted(_: Bug) -> bool {
    false
}
