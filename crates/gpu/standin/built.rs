//! The stand-ins of CUDA's libraries, built: for tests that start a process with them where the loader looks first.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder with the libraries, and what belongs to them.
#[derive(Debug, Clone)]
pub(crate) struct Standins {
    pub(crate) folder: PathBuf,
    /// For compiled kernels; another one when the sources of the stand-ins change.
    pub(crate) cache: PathBuf,
}

/// Builds them below `target`, without the functions that are named; `None`, told aloud, where there is no C++ compiler.
pub(crate) fn standins(sources: &Path, target: &Path, without: &[&str]) -> Option<Standins> {
    let compiler = Command::new("c++").arg("--version").output();
    if !compiler.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: the stand-ins of CUDA's libraries are built with `c++`; install g++ or clang++");
        return None;
    }
    let folder = target.join(["standins", &without.join("-")].concat());
    let built = Command::new("sh").arg(sources.join("build.sh")).arg(&folder).args(without).output().expect("sh runs");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "the stand-ins do not build:\n{said}");
    let digest = String::from_utf8(built.stdout).expect("digits");
    Some(Standins { folder, cache: target.join(format!("standins-cache-{}", digest.trim())) })
}

impl Standins {
    /// The command finds these libraries and no real ones, on a machine with so many GPUs.
    pub(crate) fn before(&self, command: &mut Command, gpus: u32) {
        command.env("LD_LIBRARY_PATH", &self.folder).env("XDG_CACHE_HOME", &self.cache);
        command.env("ISOLOSS_STANDIN_GPUS", gpus.to_string()).env_remove("CUDA_VISIBLE_DEVICES");
    }
}
