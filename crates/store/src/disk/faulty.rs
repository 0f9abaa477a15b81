//! A real folder whose fsync fails once, as a dying disk's does, so that a test can see what a daemon makes of it.

use std::io;

use super::{Disk, Folder};

/// The folder, and how many syncs of files it still does.
#[derive(Debug)]
pub struct Faulty {
    folder: Folder,
    left: u64,
}

impl Faulty {
    /// The `at`-th sync of a file fails, the first being 1. Later ones succeed: that is what makes a second try so
    /// dangerous.
    pub fn new(folder: Folder, at: u64) -> Self {
        Self { folder, left: at }
    }
}

impl Disk for Faulty {
    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        self.folder.size(name)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.folder.read(name, offset, length)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.folder.append(name, bytes)
    }

    fn truncate(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.folder.truncate(name, size)
    }

    fn rewrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.folder.rewrite(name, offset, bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        if self.left == 1 {
            self.left = 0;
            return Err(io::Error::other("input/output error, made for a test"));
        }
        self.left = self.left.saturating_sub(1);
        self.folder.sync(name)
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.folder.sync_names()
    }
}
