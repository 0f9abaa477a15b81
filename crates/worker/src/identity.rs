//! Who this worker is: a name alone does not tell two processes apart. A lock gives the data directory to one process at a
//! time, and a file in it says which start this is, so that the coordinator knows a restarted worker from a second one.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use isoloss_wire::api::Instance;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::disk::write_json;

const LOCK: &str = "worker.lock";
const FILE: &str = "identity.json";

/// What the data directory remembers of its worker.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    home: String,
    starts: u64,
}

/// The lock of a data directory, as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "it is held, not read")] Flock<File>);

impl Lock {
    /// `None` where another process holds the directory; then `holder` is what it wrote about itself.
    pub(crate) fn take(dir: &Path) -> io::Result<Result<Self, String>> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(dir.join(LOCK))?;
        let mut holder = String::new();
        // What stands there may be anything.
        let _ = (&file).take(100).read_to_string(&mut holder);
        file.rewind()?;
        let Ok(mut lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            return Ok(Err(holder.trim().to_owned()));
        };
        lock.set_len(0)?;
        write!(lock, "process {}", std::process::id())?;
        Ok(Ok(Self(lock)))
    }
}

/// The next start on a data directory that this process has locked.
pub(crate) fn begin(dir: &Path) -> io::Result<Instance> {
    let path = dir.join(FILE);
    let known = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "this worker does not know any more who it was");
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(serde_json::Error::io(error)),
        Err(error) => return Err(error),
    };
    let identity: Identity = known.unwrap_or_else(|_| Identity { home: random(), starts: 0 });
    let identity = Identity { starts: identity.starts + 1, ..identity };
    write_json(&path, &identity)?;
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let place = format!("process {} with the data directory {}", std::process::id(), dir.display());
    Ok(Instance { id: random(), home: identity.home, start: identity.starts, place })
}

/// 128 bits that nobody else draws: the standard library seeds every hasher anew from the system's randomness.
fn random() -> String {
    let half = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_counts_its_starts_and_a_copy_is_told_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = [begin(dir.path()).unwrap(), begin(dir.path()).unwrap()];
        assert_eq!((&first.home, first.start, second.start), (&second.home, 1, 2));
        assert!(first.id != second.id && second.place.contains(dir.path().to_str().unwrap()));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let third = begin(dir.path()).unwrap();
        assert!(third.home != first.home && third.start == 1, "a new worker, rather than none");
    }

    #[test]
    fn a_lock_says_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = Lock::take(dir.path()).unwrap().unwrap();
        let refused = Lock::take(dir.path()).unwrap().unwrap_err();
        assert_eq!(refused, format!("process {}", std::process::id()));
        drop(held);
        assert!(Lock::take(dir.path()).unwrap().is_ok());
    }
}
