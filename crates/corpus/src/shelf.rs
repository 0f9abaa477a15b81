//! The folder of surveyed corpora: a corpus appears in it whole or not at all. It does not know how one is made.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use isoloss_sweep::{Digest, Manifest};

use crate::dataset::{MANIFEST, check_size, read_manifest};

/// The folder cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}; check that the folder is writable and has space")]
pub struct ShelfError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A file's name in the folder of its corpus, and its content.
pub(crate) type NamedFile = (String, Vec<u8>);

/// Name of a corpus that is being written, before its random part.
const DRAFT: &str = ".draft-";
/// A draft this old belongs to a process that was killed: writing takes minutes.
const DRAFT_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A folder of corpora, each in a folder named by its digest.
#[derive(Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where the corpus `digest` is or would be.
    pub(crate) fn place(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    /// The manifest of a corpus that is there with all of its files.
    pub(crate) fn get(&self, digest: Digest) -> Option<Manifest> {
        let place = self.place(digest);
        let manifest = read_manifest(&place).ok().filter(|manifest| manifest.digest == digest)?;
        let whole = manifest.artifacts.iter().all(|artifact| check_size(&place, artifact).is_ok());
        whole.then_some(manifest)
    }

    /// Puts a corpus in its place: written beside it, synced, renamed. What is whole and there already stays.
    pub(crate) fn put(&self, manifest: &Manifest, files: &[NamedFile]) -> Result<(), ShelfError> {
        if self.get(manifest.digest).is_some() {
            return Ok(());
        }
        let place = self.place(manifest.digest);
        // The texts of all sweeps: for their owner alone, until he says otherwise.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(failed("create", &self.dir))?;
        self.discard_stale();
        // The folder may be shared by machines, where process ids repeat.
        let draft = self.dir.join(format!("{DRAFT}{:016x}", rand::random::<u64>()));
        if let Err(error) = write_draft(&draft, manifest, files) {
            // On a full disk half a corpus takes the room that is wanted; failing to remove it changes nothing.
            drop(fs::remove_dir_all(&draft));
            return Err(error);
        }
        if fs::rename(&draft, &place).is_err() {
            // Another process has put the same corpus there in the meantime, or what is there is not whole.
            if self.get(manifest.digest).is_some() {
                return clear(&draft);
            }
            clear(&place)?;
            fs::rename(&draft, &place).map_err(failed("rename a draft to", &place))?;
        }
        sync_dir(&self.dir).map_err(failed("sync", &self.dir))
    }

    /// Removes what killed processes left. Failing to is no reason to stop.
    fn discard_stale(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
            let is_draft = entry.file_name().to_string_lossy().starts_with(DRAFT);
            if is_draft && age.is_some_and(|age| age > DRAFT_AGE_MAX) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }
}

/// Writes all files of a corpus into a new folder and waits until they are on the disk.
fn write_draft(draft: &Path, manifest: &Manifest, files: &[NamedFile]) -> Result<(), ShelfError> {
    fs::create_dir(draft).map_err(failed("create", draft))?;
    let json = serde_json::to_vec_pretty(manifest).expect("a manifest has string keys and finite numbers");
    let manifest_file = (MANIFEST.to_owned(), json);
    for (name, content) in files.iter().chain(std::iter::once(&manifest_file)) {
        let path = draft.join(name);
        write_synced(&path, content).map_err(failed("write", &path))?;
    }
    sync_dir(draft).map_err(failed("sync", draft))
}

/// Removes a folder if it is there.
fn clear(dir: &Path) -> Result<(), ShelfError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("remove", dir)(source)),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ShelfError {
    let path = path.to_owned();
    move |source| ShelfError { action, path, source }
}

/// Writes a file and waits until it is on the disk.
fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
