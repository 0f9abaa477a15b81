//! Room on the disk of the data directory: looked at from time to time, on a thread where nobody waits for it. Below the
//! floor no run is granted; what runs goes on and is recorded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use crate::authority::{Authority, Gone};
use crate::meters;
use crate::schedule::Shortage;

/// How often. Records of a thousand endings take a few MiB.
const LOOK: Duration = Duration::from_secs(1);
/// Kept free where nobody said how much: room for the endings of all that runs, and of small disks only this part of them.
const FLOOR_BYTES: u64 = 256 << 20;
const FLOOR_PART: u64 = 20;

/// Room on a disk in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) free: u64,
    pub(crate) total: u64,
}

impl Room {
    fn of(folder: &Path) -> Option<Self> {
        let found = statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Some(Self { free: bytes(found.blocks_available()), total: bytes(found.blocks()) })
    }

    /// Whether there is too little, given whether there was. It takes a quarter more than the floor to go on, so that one
    /// file more or less changes nothing.
    fn shortage(self, floor: Option<u64>, was_short: bool) -> Option<Shortage> {
        let floor_bytes = floor.unwrap_or(FLOOR_BYTES.min(self.total / FLOOR_PART));
        let wanted = if was_short { floor_bytes.saturating_add(floor_bytes / 4) } else { floor_bytes };
        (self.free < wanted).then_some(Shortage { free_bytes: self.free, floor_bytes })
    }
}

/// Watches until the coordinator ends.
pub(crate) async fn watch(authority: Authority, folder: PathBuf, floor: Option<u64>) -> Result<(), Gone> {
    let folder: Arc<Path> = folder.into();
    let mut told = None;
    loop {
        let at = folder.clone();
        // A disk that hangs holds up this look alone.
        let room = tokio::task::spawn_blocking(move || Room::of(&at)).await.ok().flatten();
        if let Some(room) = room {
            let shortage = room.shortage(floor, told.is_some());
            meters::disk(room.free, shortage.is_some());
            match (shortage, told.is_some()) {
                (Some(shortage), false) => tracing::warn!("{shortage}"),
                (None, true) => tracing::info!(free_bytes = room.free, "the disk has room again: runs are granted"),
                _ => {}
            }
            if shortage != told {
                authority.room(shortage).await?;
                told = shortage;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_suits_the_disk_and_is_left_with_some_room_more() {
        let short = |free, total, floor, was| Room { free, total }.shortage(floor, was).is_some();
        let (mib, gib) = (1 << 20, 1 << 30);
        // A test's tmpfs of 96 MiB, and a disk of 1 TiB.
        assert!(!short(60 * mib, 96 * mib, None, false) && short(4 * mib, 96 * mib, None, false));
        assert!(!short(gib, 1024 * gib, None, false) && short(200 * mib, 1024 * gib, None, false));
        assert!(!short(11 * mib, gib, Some(10 * mib), false) && short(11 * mib, gib, Some(10 * mib), true));
        assert!(!short(13 * mib, gib, Some(10 * mib), true));
        assert!(!short(0, gib, Some(0), false), "0 keeps nothing");
        assert!(Room::of(Path::new("/")).is_some_and(|room| room.total >= room.free && room.total > 0));
    }
}
