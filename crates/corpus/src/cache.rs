//! Whether a survey was made before of the same input. It trusts size, inode and times of a file, as build tools do,
//! and never those of a file that changed a moment ago.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use isoloss_sweep::{CorpusSpec, Digest};
use serde::Serialize;

use crate::dataset::FORMAT_VERSION;
use crate::language::LANGUAGE_VERSION;

/// A file written within the granularity of its time stamp could change again without a trace. Two seconds is the
/// coarsest granularity in use (FAT).
const SETTLED_SECS: Duration = Duration::from_secs(2);
const FOLDER: &str = ".surveys";

/// What a survey depends on. Equal keys, equal corpora.
#[derive(Serialize)]
struct Key<'a> {
    format: u32,
    language: u32,
    spec: &'a CorpusSpec,
    context: u32,
    files: Vec<Stamp>,
}

/// A file as it was found. Numbers are text: canonical JSON keeps 53 bits of a number only.
#[derive(Serialize)]
struct Stamp {
    path: PathBuf,
    inode: String,
    bytes: String,
    modified_nanos: String,
    changed_nanos: String,
}

/// The place where a survey is remembered.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    /// Whether every file has been as it is for long enough.
    settled: bool,
}

impl Memory {
    /// `files` are all that the survey will read. `None` if one of them cannot be looked at: reading will say why.
    pub(crate) fn of(corpora_dir: &Path, spec: &CorpusSpec, context: u32, files: &[PathBuf]) -> Option<Self> {
        let mut settled = true;
        let mut stamps = Vec::with_capacity(files.len());
        for path in files {
            let meta = fs::metadata(path).ok()?;
            let changed = Duration::new(meta.ctime().try_into().ok()?, meta.ctime_nsec().try_into().ok()?);
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
            settled &= now.checked_sub(changed).is_some_and(|age| age > SETTLED_SECS);
            stamps.push(Stamp {
                path: fs::canonicalize(path).ok()?,
                inode: format!("{}:{}", meta.dev(), meta.ino()),
                bytes: meta.len().to_string(),
                modified_nanos: format!("{}.{}", meta.mtime(), meta.mtime_nsec()),
                changed_nanos: format!("{}.{}", meta.ctime(), meta.ctime_nsec()),
            });
        }
        let key = Key { format: FORMAT_VERSION, language: LANGUAGE_VERSION, spec, context, files: stamps };
        let name = Digest::of_json(&key).to_string();
        Some(Self { path: corpora_dir.join(FOLDER).join(name), settled })
    }

    /// The corpus that this survey gave.
    pub(crate) fn recall(&self) -> Option<Digest> {
        let text = fs::read_to_string(&self.path).ok()?;
        text.trim().parse().ok().filter(|_| self.settled)
    }

    /// Remembers what it gave. A memory that cannot be written costs the next survey its time, and nothing else.
    pub(crate) fn keep(&self, digest: Digest) {
        if self.settled && self.path.parent().is_some_and(|folder| fs::create_dir_all(folder).is_ok()) {
            let draft = self.path.with_extension(format!("{:016x}", rand::random::<u64>()));
            let written = fs::write(&draft, digest.to_string()).and_then(|()| fs::rename(&draft, &self.path));
            drop(written);
        }
    }
}
