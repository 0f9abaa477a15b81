//! Where things lie on this machine: the data directory and its parts. It creates folders, nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use crate::args;
use crate::exit::Exit;

/// The data directory and the folders in it.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Flag or environment, else the user's data directory (XDG on Linux); created when missing.
    pub(crate) fn of(place: &args::Place) -> Result<Self, Exit> {
        let path = match &place.data_dir {
            Some(path) => path.clone(),
            None => directories::ProjectDirs::from("", "", "isoloss")
                .map(|dirs| dirs.data_dir().to_owned())
                .ok_or_else(|| Exit::usage("no home directory; say where data may lie with --data-dir DIR"))?,
        };
        fs::create_dir_all(&path).map_err(|e| {
            Exit::failure(format!(
                "cannot create the data directory {}: {e}; choose another with --data-dir",
                path.display()
            ))
        })?;
        let path = path.canonicalize()?;
        Ok(Self(path))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn reports(&self) -> PathBuf {
        self.0.join("reports")
    }

    pub(crate) fn corpora(&self) -> PathBuf {
        self.0.join("corpora")
    }

    pub(crate) fn trainers(&self) -> PathBuf {
        self.0.join("trainers")
    }

    /// The token that the coordinator leaves for the command line of the same user.
    pub(crate) fn token(&self) -> PathBuf {
        self.0.join("token")
    }
}
