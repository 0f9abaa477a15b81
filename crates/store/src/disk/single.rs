//! One file anywhere, under whatever name the journal asks for: backups, and journals that are being written anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Disk;

/// One open file.
#[derive(Debug)]
pub struct Single {
    path: PathBuf,
    file: File,
}

impl Single {
    /// A file that is there, to be read.
    pub fn existing(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: File::open(path)? })
    }

    /// A new file; one that is there is an error.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create_new(true).mode(super::PRIVATE).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }
}

impl Disk for Single {
    fn size(&self, _name: &str) -> io::Result<Option<u64>> {
        Ok(Some(self.file.metadata()?.len()))
    }

    fn read(&self, _name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn append(&mut self, _name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn truncate(&mut self, _name: &str, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn rewrite(&mut self, _name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // The handle that appends would write at the end whatever the offset.
        OpenOptions::new().write(true).open(&self.path)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, _name: &str) -> io::Result<()> {
        self.file.sync_all()
    }

    fn sync_names(&mut self) -> io::Result<()> {
        super::sync_parent(&self.path)
    }
}
