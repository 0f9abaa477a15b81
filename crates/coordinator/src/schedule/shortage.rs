//! Too little room on the coordinator's disk: nothing new begins, so that what runs can still be recorded to its end.

use super::State;

/// What is free, and what is kept free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    pub free_bytes: u64,
    pub floor_bytes: u64,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "no run is granted: the coordinator's disk has {:.1} MiB left and keeps {:.1} MiB; it goes on by itself when \
             there is room",
            mib(self.free_bytes),
            mib(self.floor_bytes)
        )
    }
}

impl State {
    /// Why no run is granted to anybody, if that is so.
    pub fn shortage(&self) -> Option<Shortage> {
        self.shortage
    }
}
