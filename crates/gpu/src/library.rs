//! CUDA's libraries, found at run time: which are here, where, and what to do about those that are not.
//!
//! A library that is loaded once is found again under its own name by whoever asks the loader for it, so loading it by
//! path makes it known to the bindings, which ask by name: by the plain one first, which a toolkit on the loader's path
//! has, and then by version.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A library that the engine uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    Driver,
    Nvrtc,
    CublasLt,
    /// Wanted for several GPUs together only.
    Nccl,
}

impl Library {
    pub const ALL: [Self; 4] = [Self::Driver, Self::Nvrtc, Self::CublasLt, Self::Nccl];
    /// What one GPU needs.
    pub const NEEDED: [Self; 3] = [Self::Driver, Self::Nvrtc, Self::CublasLt];

    pub fn name(self) -> &'static str {
        match self {
            Self::Driver => "NVIDIA driver",
            Self::Nvrtc => "NVRTC",
            Self::CublasLt => "cuBLASLt",
            Self::Nccl => "NCCL",
        }
    }

    /// Names to look for, newest first; what it loads itself by name stands before it.
    fn files(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Driver => &[&["libcuda.so.1"]],
            Self::Nvrtc => {
                &[&["libnvrtc-builtins.so.13.*", "libnvrtc.so.13"], &["libnvrtc-builtins.so.12.*", "libnvrtc.so.12"]]
            }
            Self::CublasLt => &[&["libcublasLt.so.13"], &["libcublasLt.so.12"]],
            Self::Nccl => &[&["libnccl.so.2"]],
        }
    }

    /// What the bindings ask for before any version; ours of NCCL takes the path.
    fn plain(self) -> Option<&'static str> {
        match self {
            Self::Driver => Some("libcuda.so"),
            Self::Nvrtc => Some("libnvrtc.so"),
            Self::CublasLt => Some("libcublasLt.so"),
            Self::Nccl => None,
        }
    }

    /// Where it is. It is looked for where the loader looks and in the usual places, and loaded, once a process.
    pub fn path(self) -> Option<&'static Path> {
        static PATHS: [OnceLock<Option<PathBuf>>; Library::ALL.len()] = [const { OnceLock::new() }; Library::ALL.len()];
        PATHS[self as usize].get_or_init(|| look(self, &folders(Path::new("/")))).as_deref()
    }

    /// How to get it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Driver => {
                "install the NVIDIA driver (libcuda.so.1), or in a container start it with access to the GPU"
            }
            Self::Nvrtc => {
                "install the CUDA toolkit 12 or 13, or `pip install nvidia-cuda-nvrtc`, and name its folder in LD_LIBRARY_PATH"
            }
            Self::CublasLt => {
                "install the CUDA toolkit 12 or 13, or `pip install nvidia-cublas`, and name its folder in LD_LIBRARY_PATH"
            }
            Self::Nccl => {
                "install libnccl2, or `pip install nvidia-nccl-cu13` (or -cu12), and name its folder in LD_LIBRARY_PATH"
            }
        }
    }
}

/// Where a library was found: a path, or just a name where the system does not say which file that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub library: Library,
    pub path: Option<PathBuf>,
}

/// All libraries; see [`Library::path`].
pub fn find() -> Vec<Found> {
    Library::ALL.into_iter().map(|library| Found { library, path: library.path().map(Path::to_owned) }).collect()
}

/// Whether all that one GPU needs is here, or which is not.
pub(crate) fn needed() -> Result<(), crate::GpuError> {
    Library::NEEDED.into_iter().try_for_each(present)
}

/// Whether this one is here, with all that is called.
pub(crate) fn present(library: Library) -> Result<(), crate::GpuError> {
    found(library)?;
    library.complete()
}

/// Where this one is.
pub(crate) fn found(library: Library) -> Result<&'static Path, crate::GpuError> {
    library.path().ok_or_else(|| crate::GpuError::Missing { library: library.name(), hint: library.hint().to_owned() })
}

fn look(library: Library, folders: &[PathBuf]) -> Option<PathBuf> {
    if let Some(plain) = library.plain().filter(|plain| load(Path::new(plain))) {
        return Some(loaded_from(plain).unwrap_or_else(|| plain.into()));
    }
    for files in library.files() {
        // By name first: the loader's own search path is the user's will.
        let main = files.last().expect("every library has a file");
        let by_name = load(Path::new(main)).then(|| loaded_from(main).unwrap_or_else(|| main.into()));
        let beside = || {
            folders.iter().find_map(|folder| {
                let paths: Option<Vec<PathBuf>> = files.iter().map(|file| newest(folder, file)).collect();
                let paths = paths?;
                paths.iter().all(|path| load(path)).then(|| paths.last().cloned()).flatten()
            })
        };
        if let Some(path) = by_name.or_else(beside) {
            return Some(path);
        }
    }
    None
}

/// The last file of the folder, by name, that the pattern names: a name that may end in `*`.
fn newest(folder: &Path, pattern: &str) -> Option<PathBuf> {
    let Some(start) = pattern.strip_suffix('*') else {
        return Some(folder.join(pattern)).filter(|path| path.exists());
    };
    let entries = std::fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(start)).max().map(|name| folder.join(name))
}

/// Folders of toolkits and of Python packages under `root`.
fn folders(root: &Path) -> Vec<PathBuf> {
    let fixed = ["usr/local/cuda/lib64", "usr/local/cuda-13/lib64", "usr/local/cuda-12/lib64", "opt/cuda/lib64"];
    let mut folders: Vec<PathBuf> = fixed.iter().map(|folder| root.join(folder)).collect();
    let mut libs = vec![root.join("usr/local/lib"), root.join("usr/lib")];
    // Containers keep their environments there, or a program with its own beside it.
    for program in children(&root.join("opt")) {
        libs.extend(["lib", "venv/lib", ".venv/lib"].map(|lib| program.join(lib)));
    }
    for lib in libs {
        for python in children(&lib) {
            let named = python.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"));
            for packages in ["site-packages", "dist-packages"].iter().filter(|_| named) {
                let nvidia = python.join(packages).join("nvidia");
                folders.extend(children(&nvidia).into_iter().map(|package| package.join("lib")));
            }
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// The file that this process has mapped whose name begins so.
fn loaded_from(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let mut named = paths.filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)));
    named.next().map(Path::to_owned)
}

/// Loads a library for the rest of the process's life; false where it cannot be.
#[expect(unsafe_code, reason = "loading a library runs its initialisers; these are CUDA's")]
fn load(path: &Path) -> bool {
    // SAFETY: the names are those of CUDA's own libraries, whose initialisers ask nothing of the process.
    match unsafe { libloading::Library::new(path) } {
        Ok(library) => {
            std::mem::forget(library);
            true
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolkits_and_python_packages_are_looked_through_and_the_newest_file_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let package = root.path().join("usr/lib/python3.11/dist-packages/nvidia/cu13/lib");
        let toolkit = root.path().join("usr/local/cuda/lib64");
        let beside = root.path().join("opt/torch/.venv/lib/python3.12/site-packages/nvidia/cublas/lib");
        for folder in [&package, &toolkit, &beside] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::create_dir_all(root.path().join("usr/lib/perl/site-packages/nvidia/x/lib")).unwrap();
        assert_eq!(folders(root.path()), [toolkit, package.clone(), beside]);
        for name in ["libnvrtc-builtins.so.13.0", "libnvrtc-builtins.so.13.1", "libnvrtc-builtins.alt.so.13.2"] {
            std::fs::write(package.join(name), "").unwrap();
        }
        assert_eq!(newest(&package, "libnvrtc-builtins.so.13.*"), Some(package.join("libnvrtc-builtins.so.13.1")));
        assert_eq!(newest(&package, "libnvrtc.so.13"), None);
        // A file that is no library is not one that was found.
        std::fs::write(package.join("libcublasLt.so.13"), "text").unwrap();
        let by_name = ["libcublasLt.so", "libcublasLt.so.13", "libcublasLt.so.12"];
        assert_eq!(look(Library::CublasLt, &[package]).is_some(), by_name.iter().any(|name| load(Path::new(name))));
    }

    #[test]
    fn a_library_that_is_loaded_is_told_by_its_file() {
        assert!(load(Path::new("libc.so.6")));
        // It may be a link to a file of another name.
        let file = loaded_from("libc.so").or_else(|| loaded_from("libc-")).unwrap();
        assert!(file.is_absolute() && file.exists(), "{}", file.display());
        assert_eq!(loaded_from("libnone.so"), None);
    }

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        for library in Library::ALL {
            assert!(library.hint().contains("install"), "{}", library.name());
        }
        if Library::Driver.path().is_none() {
            let error = needed().unwrap_err().to_string();
            assert!(error.starts_with("no NVIDIA driver: install"), "{error}");
        }
    }
}
