//! What a coordinator is told at its start, and the token it makes for this machine's users.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use isoloss_sweep::Digest;
use isoloss_sweep::plan::{Capabilities, Probe};

use crate::crash::Crash;

/// Everything a coordinator needs to know besides its listener.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Leave to listen on an address that is not loopback, without TLS.
    pub insecure_listen: bool,
    /// Further names by which clients may call this coordinator (Host header).
    pub hosts: Vec<String>,
    /// Engines that workers offer.
    pub capabilities: Capabilities,
    /// Measured speed of the workers.
    pub probe: Option<Probe>,
    /// A lease not renewed for this long is over.
    pub lease: Duration,
    /// For tests: where to die.
    pub crash: Option<Crash>,
}

impl Config {
    /// A coordinator on `data_dir`, all else by default.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            insecure_listen: false,
            hosts: Vec::new(),
            capabilities: Capabilities::reference(),
            probe: None,
            lease: Duration::from_secs(30),
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

    /// Files of trainers by digest.
    pub fn trainers_dir(&self) -> PathBuf {
        self.data_dir.join("trainers")
    }
}

/// The token of the coordinator on `data_dir`; made at the first call, readable by its owner alone.
pub fn token(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join("token");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(_) | Err(_) => {}
    }
    std::fs::create_dir_all(data_dir)?;
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let token = Digest::from_bytes(seed).to_string();
    let partial = data_dir.join(format!(".token.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    // Two processes that start together agree on the token that was there first.
    let linked = std::fs::hard_link(&partial, &path);
    std::fs::remove_file(&partial)?;
    match linked {
        Ok(()) => Ok(token),
        Err(_) => std::fs::read_to_string(&path).map(|text| text.trim().to_owned()),
    }
}
