//! Where a daemon of the worker's own has its sockets and logs: private, and short enough for a socket's path.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A socket's path with the zero byte at its end (unix(7)).
const SOCKET_PATH_BYTES: usize = 108;
/// The daemon's longest name in its folder, with room: `nvidia-cuda-mps-control.pid` has 27 bytes.
const NAME_BYTES: usize = 40;

/// A folder for each of both.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) pipes: PathBuf,
    pub(super) logs: PathBuf,
}

/// A folder that never holds a daemon.
pub(super) fn nowhere(data_dir: &Path) -> PathBuf {
    std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned()).join("mps").join("none")
}

impl Folder {
    /// In the data directory, or under `temp` where that is too deep. The same each time for a data directory, so that
    /// what an earlier life of the worker left is found.
    pub(super) fn of(data_dir: &Path, temp: &Path) -> io::Result<Self> {
        let data_dir = fs::canonicalize(data_dir)?;
        let home = data_dir.join("mps");
        let pipes = home.join("pipe");
        private(&home)?;
        let pipes = if fits(&pipes) {
            pipes
        } else {
            let digest = blake3::hash(data_dir.as_os_str().as_bytes()).to_hex();
            let short = std::path::absolute(temp)?.join(format!("isoloss-mps-{}", &digest[..16]));
            private(&short)?;
            short.join("pipe")
        };
        if !fits(&pipes) {
            let why = format!("{} is too long for the path of a socket", pipes.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(Self { pipes, logs: home.join("log") })
    }

    /// Both, the one for sockets empty.
    pub(super) fn make(&self) -> io::Result<()> {
        self.remove_pipes()?;
        for folder in [&self.pipes, &self.logs] {
            private(folder)?;
        }
        Ok(())
    }

    /// What a daemon that is gone leaves, but for its logs.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.remove_pipes()?;
        let parent = |folder: &Path| folder.parent().map(Path::to_owned);
        match parent(&self.pipes) {
            // Nobody would find it again once the data directory is gone.
            Some(short) if Some(&short) != parent(&self.logs).as_ref() => fs::remove_dir(short),
            _ => Ok(()),
        }
    }

    /// Sockets of a daemon that is gone.
    fn remove_pipes(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.pipes) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn fits(pipes: &Path) -> bool {
    pipes.as_os_str().len() + 1 + NAME_BYTES < SOCKET_PATH_BYTES
}

/// Makes a folder that is this user's alone. In a place where anybody may write, somebody else's is refused.
fn private(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    let me = fs::metadata("/proc/self").map_or(found.uid(), |process| process.uid());
    if !found.is_dir() || found.uid() != me {
        let why = format!("{} is not a folder of this user", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_data_directory_gets_a_short_folder_of_its_own() {
        let (data, temp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let near = Folder::of(data.path(), temp.path()).unwrap();
        assert!(near.pipes.starts_with(data.path().canonicalize().unwrap()), "{near:?}");
        let deep = data.path().join("d".repeat(90));
        fs::create_dir(&deep).unwrap();
        let far = Folder::of(&deep, temp.path()).unwrap();
        assert!(far.pipes.starts_with(temp.path()) && fits(&far.pipes), "{far:?}");
        assert_eq!(Folder::of(&deep, temp.path()).unwrap().pipes, far.pipes, "found again");
        far.make().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([&far.pipes, &far.logs, &far.pipes.parent().unwrap().to_owned()].map(|path| mode(path)), [0o700; 3]);
    }

    #[test]
    fn a_folder_that_was_laid_for_it_is_refused() {
        let (data, temp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deep = data.path().join("d".repeat(90));
        fs::create_dir(&deep).unwrap();
        let short = Folder::of(&deep, temp.path()).unwrap().pipes.parent().unwrap().to_owned();
        fs::remove_dir(&short).unwrap();
        std::os::unix::fs::symlink(data.path(), &short).unwrap();
        let refused = Folder::of(&deep, temp.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
    }

    #[test]
    fn what_an_earlier_daemon_left_is_cleared_away() {
        let (data, temp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = Folder::of(data.path(), temp.path()).unwrap();
        folder.make().unwrap();
        fs::write(folder.pipes.join("control"), "").unwrap();
        folder.make().unwrap();
        assert_eq!(fs::read_dir(&folder.pipes).unwrap().count(), 0);
        folder.clear().unwrap();
        assert!(!folder.pipes.exists() && folder.logs.exists());
    }

    #[test]
    fn nothing_of_a_daemon_stays_outside_of_the_data_directory() {
        let (data, temp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let deep = data.path().join("d".repeat(90));
        fs::create_dir(&deep).unwrap();
        let folder = Folder::of(&deep, temp.path()).unwrap();
        folder.make().unwrap();
        folder.clear().unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        Folder::of(&deep, temp.path()).unwrap().make().unwrap();
        assert!(folder.pipes.exists(), "the next one makes it again");
    }
}
