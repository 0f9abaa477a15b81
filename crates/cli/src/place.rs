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
        let path = named(place)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|e| {
            Exit::failure(format!(
                "cannot create the data directory {}: {e}; choose another with --data-dir",
                path.display()
            ))
        })?;
        let path = path.canonicalize()?;
        Ok(Self(path))
    }

    /// The same for who only looks: nothing is created where there is none.
    pub(crate) fn as_it_is(place: &args::Place) -> Result<Self, Exit> {
        let path = named(place)?;
        Ok(Self(path.canonicalize().unwrap_or(path)))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// What other users of this machine can see here that is not for them, with the way to end it. One that was made by
    /// hand, or by an isoloss that did not close it, stays as its owner left it.
    pub(crate) fn leak(&self) -> Option<String> {
        let others =
            |path: &Path| Some(fs::metadata(path).ok()?.permissions().mode() & 0o777).filter(|m| m & 0o077 != 0);
        let tokens = [self.token(), self.0.join("tokens.json"), self.0.join("lease-keys.json")];
        if let Some((token, mode)) = tokens.iter().find_map(|token| Some((token, others(token)?))) {
            let token = token.display();
            return Some(format!(
                "{token} is for its owner alone, and its mode {mode:o} lets others in: `chmod 600 {token}`, and if somebody \
                 may have read it, remove it and start again"
            ));
        }
        let mode = others(&self.0).filter(|_| tokens.iter().any(|token| token.exists()))?;
        let root = self.0.display();
        Some(format!(
            "the data directory {root} holds access tokens and results, and its mode {mode:o} lets other users look into \
             it: `chmod 700 {root}` where that is not meant"
        ))
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

fn named(place: &args::Place) -> Result<PathBuf, Exit> {
    match &place.data_dir {
        Some(path) => Ok(path.clone()),
        None => directories::ProjectDirs::from("", "", "isoloss")
            .map(|dirs| dirs.data_dir().to_owned())
            .ok_or_else(|| Exit::usage("no home directory; say where data may lie with --data-dir DIR")),
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
