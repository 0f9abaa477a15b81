//! Named points at which a coordinator can be told to die, so that a test can kill it exactly there. Off by default;
//! it decides nothing else.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a coordinator can die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// An ending has arrived; nothing of it is durable.
    SettleArrived,
    /// The ending is durable; nobody has been told.
    SettleRecorded,
    /// The disk refuses an fsync: the coordinator has to end by itself.
    FsyncFails,
}

/// Dies at the n-th passage of a point.
#[derive(Debug, Clone)]
pub struct Crash {
    point: Point,
    left: Arc<AtomicU64>,
}

/// The text names no point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected settle-arrived:N, settle-recorded:N or fsync-fails:N with N from 1 on, got {0:?}")]
pub struct NotACrash(String);

impl FromStr for Crash {
    type Err = NotACrash;

    fn from_str(text: &str) -> Result<Self, NotACrash> {
        let not = || NotACrash(text.to_owned());
        let (point, count) = text.split_once(':').ok_or_else(not)?;
        let point = match point {
            "settle-arrived" => Point::SettleArrived,
            "settle-recorded" => Point::SettleRecorded,
            "fsync-fails" => Point::FsyncFails,
            _ => return Err(not()),
        };
        let left: u64 = count.parse().ok().filter(|n| *n > 0).ok_or_else(not)?;
        Ok(Self { point, left: Arc::new(AtomicU64::new(left)) })
    }
}

impl Crash {
    /// Which fsync of the journal is to fail, the first being 1.
    pub(crate) fn fsync(&self) -> Option<u64> {
        (self.point == Point::FsyncFails).then(|| self.left.load(Ordering::SeqCst))
    }

    /// Ends the process without any last word when it is this point's turn.
    pub(crate) fn pass(&self, point: Point) {
        if point == self.point && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_and_passed() {
        let crash: Crash = "settle-recorded:2".parse().unwrap();
        crash.pass(Point::SettleArrived);
        crash.pass(Point::SettleRecorded);
        assert_eq!(crash.left.load(Ordering::SeqCst), 1);
        assert_eq!((crash.fsync(), "fsync-fails:4".parse::<Crash>().unwrap().fsync()), (None, Some(4)));
        for wrong in ["settle-recorded", "settle-recorded:0", "sett:1"] {
            assert!(wrong.parse::<Crash>().is_err());
        }
    }
}
