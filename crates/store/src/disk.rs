//! The few operations on one flat folder of files that the journal needs, behind a trait so that crashes can be
//! simulated. Names are plain file names. It does not interpret what is written.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

mod faulty;
pub mod sim;
mod single;

pub use faulty::Faulty;
pub use single::Single;

/// Mode of files that only their owner may read, whatever the umask: sweeps and results are his to show.
pub(crate) const PRIVATE: u32 = 0o600;

/// Makes a folder where it is missing that only its owner may look into.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// One folder of files. What `append` and `truncate` did is sure to survive a power cut only after `sync` of
/// the file, and a new name only after `sync_names`.
pub trait Disk: Send {
    /// `None` for a file that is not there.
    fn size(&self, name: &str) -> io::Result<Option<u64>>;
    /// Exactly `length` bytes from `offset`.
    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Adds at the end; creates the file where it is missing.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&mut self, name: &str, size: u64) -> io::Result<()>;
    /// Writes bytes that stand there already once more, so that the next sync makes them durable whatever became of an
    /// earlier one.
    fn rewrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the contents of one file durable.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Makes the list of names durable.
    fn sync_names(&mut self) -> io::Result<()>;
}

/// Makes the name of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// A folder of the operating system.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    open: HashMap<String, File>,
}

impl Folder {
    /// The folder at `path`, created where it is missing.
    pub fn open(path: &Path) -> io::Result<Self> {
        private_folder(path)?;
        sync_parent(path)?;
        Ok(Self { path: path.to_owned(), open: HashMap::new() })
    }

    /// A folder that is there, to be read; nothing is created for it.
    pub fn existing(path: &Path) -> Self {
        Self { path: path.to_owned(), open: HashMap::new() }
    }

    fn handle(&mut self, name: &str) -> io::Result<&mut File> {
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(self.path.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        Ok(self.open.get_mut(name).expect("it was just inserted"))
    }
}

impl Disk for Folder {
    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        match fs::metadata(self.path.join(name)) {
            Ok(data) => Ok(Some(data.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.handle(name)?.write_all(bytes)
    }

    fn truncate(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.handle(name)?.set_len(size)
    }

    fn rewrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // The handle that appends would write at the end whatever the offset.
        OpenOptions::new().write(true).open(self.path.join(name))?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.handle(name)?.sync_all()
    }

    fn sync_names(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
