//! Compiled kernels on disk, each with a digest of itself behind it: what was cut short or changed is compiled again, and
//! never reaches the driver, which takes an image at its word.

use std::path::{Path, PathBuf};

use crate::device::GpuError;

const DIGEST: usize = blake3::OUT_LEN;

/// A folder of images by name.
pub(crate) struct Kept {
    folder: PathBuf,
}

impl Kept {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.cubin"))
    }

    /// The image as it was stored; none where it is missing or not whole.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let mut bytes = std::fs::read(self.path(key)).ok()?;
        let image = bytes.len().checked_sub(DIGEST)?;
        let whole = blake3::hash(&bytes[..image]).as_bytes()[..] == bytes[image..];
        bytes.truncate(image);
        (whole && image > 0).then_some(bytes)
    }

    pub(crate) fn put(&self, key: &str, image: &[u8]) -> Result<(), GpuError> {
        let path = self.path(key);
        let io = |source| GpuError::Io { path: path.clone(), source };
        std::fs::create_dir_all(&self.folder).map_err(io)?;
        // Renamed whole: another run may be reading or writing the same.
        let thread = std::thread::current().id();
        let partial = self.folder.join(format!("{key}.{}.{thread:?}", std::process::id()));
        let bytes = [image, blake3::hash(image).as_bytes()].concat();
        std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, &path)).map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(&folder.path().join("kernels"));
        assert_eq!(kept.get("a"), None);
        kept.put("a", b"image").unwrap();
        assert_eq!(kept.get("a").as_deref(), Some(&b"image"[..]));
        let whole = std::fs::read(kept.path("a")).unwrap();
        for len in 0..whole.len() {
            std::fs::write(kept.path("a"), &whole[..len]).unwrap();
            assert_eq!(kept.get("a"), None, "{len} bytes");
            let mut changed = whole.clone();
            changed[len] ^= 1;
            std::fs::write(kept.path("a"), changed).unwrap();
            assert_eq!(kept.get("a"), None, "byte {len}");
        }
    }
}
