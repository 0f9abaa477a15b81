//! CUDA's libraries, found at run time: which are here, where, and what to do about those that are not.
//!
//! A library that is loaded once is found again under its own name by whoever asks the loader for it, so loading it by
//! path makes it known to the bindings, which ask by name: by the plain one first, which a toolkit on the loader's path
//! has, and then by version.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::device::GpuError;

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
        self.looked().as_ref().ok().map(PathBuf::as_path)
    }

    fn looked(self) -> &'static Looked {
        static ALL: [OnceLock<Looked>; Library::ALL.len()] = [const { OnceLock::new() }; Library::ALL.len()];
        ALL[self as usize].get_or_init(|| look(self, &folders(Path::new("/"))))
    }

    /// Whether it is here with all that is called of it; an error says what to do.
    pub fn usable(self) -> Result<(), GpuError> {
        found(self)?;
        self.complete()
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

/// What was found of a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub library: Library,
    /// A path, or just a name where the system does not say which file that is.
    pub path: Option<PathBuf>,
    /// Why it is of no use although a file of its name is there: the loader's words, or a function that it lacks.
    pub wrong: Option<String>,
}

/// All libraries; see [`Library::path`].
pub fn find() -> Vec<Found> {
    let found = |library: Library| match library.looked() {
        Ok(path) => {
            let wrong = library.complete().err().map(|error| match error {
                GpuError::Missing { hint, .. } => hint,
                other => other.to_string(),
            });
            Found { library, path: Some(path.clone()), wrong }
        }
        Err(words) => Found { library, path: None, wrong: words.clone() },
    };
    Library::ALL.into_iter().map(found).collect()
}

/// Whether all that one GPU needs is here, or which is not.
pub(crate) fn needed() -> Result<(), GpuError> {
    Library::NEEDED.into_iter().try_for_each(Library::usable)
}

/// Where this one is.
pub(crate) fn found(library: Library) -> Result<&'static Path, GpuError> {
    library.looked().as_deref().map_err(|words| missing(library, words.as_deref()))
}

fn missing(library: Library, words: Option<&str>) -> GpuError {
    let hint = match words {
        Some(words) => format!("{words}; {}", library.hint()),
        None => library.hint().to_owned(),
    };
    GpuError::Missing { library: library.name(), hint }
}

/// Where a library is, or what the loader said of the first file of its name that it did not load, if there was one.
type Looked = Result<PathBuf, Option<String>>;

fn look(library: Library, folders: &[PathBuf]) -> Looked {
    let mut words = None;
    let mut loads = |path: &Path| match load(path) {
        Ok(()) => true,
        Err(said) => {
            words = words.take().or(said);
            false
        }
    };
    if let Some(plain) = library.plain().filter(|plain| loads(Path::new(plain))) {
        return Ok(loaded_from(plain).unwrap_or_else(|| plain.into()));
    }
    for files in library.files() {
        // By name first: the loader's own search path is the user's will.
        let main = files.last().expect("every library has a file");
        let by_name = loads(Path::new(main)).then(|| loaded_from(main).unwrap_or_else(|| main.into()));
        let beside = || {
            folders.iter().find_map(|folder| {
                let paths: Option<Vec<PathBuf>> = files.iter().map(|file| newest(folder, file)).collect();
                let paths = paths?;
                paths.iter().all(|path| loads(path)).then(|| paths.last().cloned()).flatten()
            })
        };
        if let Some(path) = by_name.or_else(beside) {
            return Ok(path);
        }
    }
    Err(words)
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

/// Loads a library for the rest of the process's life. Where it cannot be, what the loader said, if a file was there.
#[expect(unsafe_code, reason = "loading a library runs its initialisers; these are CUDA's")]
fn load(path: &Path) -> Result<(), Option<String>> {
    // SAFETY: the names are those of CUDA's own libraries, whose initialisers ask nothing of the process.
    match unsafe { libloading::Library::new(path) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => {
            let words = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            Err(of_a_file(&path.to_string_lossy(), &words))
        }
    }
}

/// What the loader's words say of a file that is there: nothing where it found none of the name. A library that the file
/// itself needs is missed in the same words, under another name.
fn of_a_file(name: &str, words: &str) -> Option<String> {
    let names_it = words.split([':', ' ']).any(|word| word == name);
    let is_absent = words.contains("No such file") && names_it && !words.contains("needed by");
    match (is_absent, Path::new(name).is_absolute()) {
        (false, _) => Some(format!("{name} does not load: {words}")),
        // Only files that are there are asked for by path: so the loader passes over those of other processors.
        (true, true) => Some(format!("{name} does not load: it is for another kind of processor")),
        (true, false) => None,
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
        let looked = look(Library::CublasLt, std::slice::from_ref(&package));
        if by_name.iter().any(|name| load(Path::new(name)).is_ok()) {
            assert!(looked.is_ok(), "{looked:?}");
            return;
        }
        let words = looked.unwrap_err().expect("a file is there");
        let file = package.join("libcublasLt.so.13");
        assert!(words.starts_with(&format!("{} does not load: ", file.display())), "{words}");
        let error = missing(Library::CublasLt, Some(&words)).to_string();
        assert!(error.contains(&words) && error.contains("install the CUDA toolkit"), "{error}");
    }

    #[test]
    fn a_name_that_no_file_has_is_told_apart_from_a_file_that_lacks_another() {
        assert_eq!(load(Path::new("libnone-of-this-name.so.1")), Err(None));
        let other = of_a_file("/x/y.so", "/x/y.so: cannot open shared object file: No such file or directory").unwrap();
        assert!(other.ends_with("another kind of processor"), "{other}");
        for (words, is_absent) in [
            ("libcuda.so.1: cannot open shared object file: No such file or directory", true),
            ("libdep.so.1: cannot open shared object file: No such file or directory", false),
            ("libcuda.so.11: cannot open shared object file: No such file or directory", false),
            ("/x/libcuda.so.1: file too short", false),
            ("Error loading shared library libcuda.so.1: No such file or directory", true),
            ("Error loading shared library libdep.so.1: No such file or directory (needed by /x/libcuda.so.1)", false),
        ] {
            let told = (!is_absent).then(|| format!("libcuda.so.1 does not load: {words}"));
            assert_eq!(of_a_file("libcuda.so.1", words), told);
        }
    }

    #[test]
    fn a_library_that_is_loaded_is_told_by_its_file() {
        assert_eq!(load(Path::new("libc.so.6")), Ok(()));
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
