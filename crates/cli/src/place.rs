//! Where things lie on this machine: the data directory and its parts. It creates folders, nothing else.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
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

/// Where compiled GPU kernels are kept: a folder of this user's cache that nobody else may write, because what lies there is
/// run; or one in `beside`, which is this user's too, where there is no home or the cache cannot be made.
pub(crate) fn kernels(beside: &Path) -> PathBuf {
    let cache = directories::ProjectDirs::from("", "", "isoloss").map(|dirs| dirs.cache_dir().join("kernels"));
    cache.filter(|cache| private(cache)).unwrap_or_else(|| beside.join("kernels"))
}

/// Makes the folder where it is missing; whether it is this user's alone now.
fn private(folder: &Path) -> bool {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_kernels_is_made_private() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/kernels");
        assert!(private(&folder) && private(&folder));
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(!private(&dir.path().join("file/kernels")));
    }
}
