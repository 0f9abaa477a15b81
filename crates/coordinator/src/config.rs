//! What a coordinator is told at its start, and the token it makes for this machine's users.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use isoloss_sweep::plan::{Capabilities, Probe};

use crate::crash::Crash;
use crate::tls::Tls;
use crate::tokens;

/// For over a GiB of text with one token a byte.
const SURVEY_MEMORY_BYTES: u64 = 4 << 30;

/// Everything a coordinator needs to know besides its listener.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// With it the coordinator speaks TLS only.
    pub tls: Option<Tls>,
    /// Leave to listen on an address that is not loopback, without TLS.
    pub insecure_listen: bool,
    /// Folders below which the corpora of submissions must lie, the owner's own on this machine excepted.
    pub corpus_roots: Vec<PathBuf>,
    /// Further names by which clients may call this coordinator (Host header).
    pub hosts: Vec<String>,
    /// Engines that workers offer.
    pub capabilities: Capabilities,
    /// Measured speed of the workers.
    pub probe: Option<Probe>,
    /// A lease not renewed for this long is over.
    pub lease: Duration,
    /// A live run that made no step for this long loses its attempt; without it such a run is only told of.
    pub stall_end: Option<Duration>,
    /// The command that surveys a corpus in a process of its own, told on its input; without one this process does it.
    pub surveyor: Option<Vec<OsString>>,
    /// Memory that the survey of a corpus may take.
    pub survey_memory_bytes: u64,
    /// Bytes that stay free on the disk of the data directory: with less no run is granted. Missing: what suits the disk.
    pub disk_floor_bytes: Option<u64>,
    /// For tests: where to die.
    pub crash: Option<Crash>,
}

impl Config {
    /// A coordinator on `data_dir`, all else by default.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            tls: None,
            insecure_listen: false,
            corpus_roots: Vec::new(),
            hosts: Vec::new(),
            capabilities: Capabilities::reference(),
            probe: None,
            lease: Duration::from_secs(30),
            stall_end: None,
            surveyor: None,
            survey_memory_bytes: SURVEY_MEMORY_BYTES,
            disk_floor_bytes: None,
            crash: None,
        }
    }

    /// Journal and index.
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// Last log lines of runs.
    pub fn logs_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }

    /// Corpora by digest.
    pub fn corpora_dir(&self) -> PathBuf {
        self.data_dir.join("corpora")
    }

    /// Makes the folders in which files of several kinds are written later.
    pub(crate) fn make_folders(&self) -> io::Result<()> {
        for folder in [&self.data_dir, &self.corpora_dir(), &self.logs_dir(), &self.trainers_dir()] {
            private_folder(folder)?;
        }
        Ok(())
    }

    /// Files of trainers by digest.
    pub fn trainers_dir(&self) -> PathBuf {
        self.data_dir.join("trainers")
    }
}

/// Makes a folder where it is missing that only its owner may look into, whatever the umask.
fn private_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The token of the coordinator on `data_dir`; made at the first call, readable by its owner alone.
pub fn token(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join("token");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(_) | Err(_) => {}
    }
    private_folder(data_dir)?;
    let token = tokens::random()?;
    let partial = data_dir.join(format!(".token.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    if let Err(error) = file.write_all(token.as_bytes()).and_then(|()| file.sync_all()) {
        // The first error is the one to tell; on a full disk nothing is to be left behind.
        let _ = std::fs::remove_file(&partial);
        return Err(error);
    }
    // Two processes that start together agree on the token that was there first.
    let linked = std::fs::hard_link(&partial, &path);
    std::fs::remove_file(&partial)?;
    match linked {
        Ok(()) => Ok(token),
        Err(_) => std::fs::read_to_string(&path).map(|text| text.trim().to_owned()),
    }
}
