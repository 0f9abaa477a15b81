//! Endings of attempts, kept on this machine's disk until the coordinator has acknowledged them. It does not send.

use std::io;
use std::path::{Path, PathBuf};

use isoloss_wire::api::Settle;

use crate::disk;

/// The folder of endings not yet acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    dir: PathBuf,
    refused: PathBuf,
}

impl Outbox {
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let (dir, refused) = (data_dir.join("outbox"), data_dir.join("refused"));
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir, refused })
    }

    fn path(&self, settle: &Settle) -> PathBuf {
        self.dir.join(format!("{}-{}.json", settle.run_id, settle.attempt))
    }

    /// Durable when it returns.
    pub(crate) fn put(&self, settle: &Settle) -> io::Result<()> {
        disk::write_json(&self.path(settle), settle)
    }

    /// After the acknowledgement. Gone already is as good, and one that comes back after a crash is sent again, which
    /// changes nothing: so nobody waits for the disk.
    pub(crate) fn remove(&self, settle: &Settle) -> io::Result<()> {
        match std::fs::remove_file(self.path(settle)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Out of the way, but not lost: the coordinator will never take it as it is.
    pub(crate) fn set_aside(&self, settle: &Settle) -> io::Result<()> {
        std::fs::create_dir_all(&self.refused)?;
        let path = self.path(settle);
        let name = path.file_name().expect("the path was made of a folder and a name");
        std::fs::rename(&path, self.refused.join(name))?;
        disk::sync_parent(&path)
    }

    /// What an earlier life of this worker left. A file that cannot be read is reported and left alone.
    pub(crate) fn left_over(&self) -> io::Result<Vec<Settle>> {
        let mut left = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match serde_json::from_slice(&std::fs::read(&path)?) {
                Ok(settle) => left.push(settle),
                Err(error) => tracing::error!(path = %path.display(), %error, "an unsent ending cannot be read"),
            }
        }
        Ok(left)
    }
}
