//! Reading what children wrote, and writing small files so that a crash leaves the old or the new one, never half of either.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use isoloss_sweep::Digest;
use nix::fcntl::OFlag;
use serde::Serialize;

/// The digest of a plain file as long as it is now. A child may have put anything there: a link, or a pipe that never
/// ends, is refused and not waited for.
pub(crate) fn digest_of(path: &Path) -> io::Result<Digest> {
    let careful = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let file = File::options().read(true).custom_flags(careful.bits()).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.take(about.len()))?;
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

/// Writes `value` as JSON beside `path`, makes it durable, and moves it into place.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    sync_parent(path)
}

/// Makes a created, renamed or removed name durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
