//! The GPUs that the driver shows this process, for people and for workers that offer them.

use std::fmt;

use cudarc::driver::{result, sys};

use crate::device::{GpuError, Memory};
use crate::driver::{capability, failed, retain, visible};
use crate::library::Library;
use crate::panics::caught;

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its number among the GPUs that the process sees, as CUDA counts them.
    pub ordinal: u32,
    /// As `CUDA_VISIBLE_DEVICES` takes it: `GPU-` and five groups of hexadecimal digits.
    pub uuid: String,
    pub name: String,
    /// As in 90 for 9.0.
    pub capability: u32,
    pub memory: Memory,
}

/// A GPU that is broken or too old, and what is known of it.
#[derive(Debug)]
pub struct Unusable {
    /// Its number among the GPUs that the process sees, as CUDA counts them.
    pub ordinal: u32,
    pub name: Option<String>,
    pub uuid: Option<String>,
    pub error: GpuError,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPU {}", self.ordinal)?;
        for known in [&self.name, &self.uuid].into_iter().flatten() {
            write!(f, ", {known}")?;
        }
        write!(f, ": {}", self.error)
    }
}

/// All of them, each opened for a moment: one that is broken takes none of the others with it. A missing driver is an
/// error; the libraries that only training needs are not asked for.
pub fn cards() -> Result<Vec<Result<Card, Unusable>>, GpuError> {
    caught(Library::Driver.name(), || Ok((0..visible()?).map(card).collect()))
}

fn card(ordinal: u32) -> Result<Card, Unusable> {
    let unusable = |name, uuid| move |error| Unusable { ordinal, name, uuid, error };
    let device = result::device::get(ordinal.cast_signed()).map_err(failed("cuDeviceGet"));
    let device = device.map_err(unusable(None, None))?;
    let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"));
    let uuid = result::device::get_uuid(device).map_err(failed("cuDeviceGetUuid"));
    let uuid = uuid.map(|uuid| written(uuid.bytes.map(std::ffi::c_char::cast_unsigned)));
    let known = unusable(name.as_ref().ok().cloned(), uuid.as_ref().ok().cloned());
    let whole = || -> Result<Card, GpuError> {
        Ok(Card { ordinal, name: name?, uuid: uuid?, capability: capability(device)?, memory: memory(device)? })
    };
    whole().map_err(known)
}

#[expect(unsafe_code, reason = "calls into the driver")]
fn memory(device: sys::CUdevice) -> Result<Memory, GpuError> {
    // Free memory is told to a context only.
    let context = retain(device)?;
    // SAFETY: the context is retained until after the question, and released once.
    unsafe {
        let entered = result::ctx::set_current(context).map_err(failed("cuCtxSetCurrent"));
        let found = entered.and_then(|()| result::mem_get_info().map_err(failed("cuMemGetInfo")));
        let _left = result::ctx::set_current(std::ptr::null_mut());
        let _released = result::primary_ctx::release(device);
        found.map(|(free, total)| Memory { free: free as u64, total: total as u64 })
    }
}

fn written(bytes: [u8; 16]) -> String {
    let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let groups = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]].map(hex);
    format!("GPU-{}", groups.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_as_the_driver_s_tools_write_it() {
        let bytes = std::array::from_fn(|i| 0x10 * (i as u8 % 16) + 1);
        assert_eq!(written(bytes), "GPU-01112131-4151-6171-8191-a1b1c1d1e1f1");
    }

    #[test]
    fn an_unusable_one_is_told_with_what_is_known_of_it() {
        let error = || GpuError::TooOld { capability: 70 };
        let bare = Unusable { ordinal: 3, name: None, uuid: None, error: error() };
        assert!(bare.to_string().starts_with("GPU 3: compute capability 7.0"), "{bare}");
        let known = Unusable { name: Some("V100".to_owned()), uuid: Some("GPU-1".to_owned()), ..bare };
        assert!(known.to_string().starts_with("GPU 3, V100, GPU-1: compute capability 7.0"), "{known}");
    }

    #[test]
    fn without_a_driver_it_is_an_error_and_no_panic() {
        if let Err(error) = cards() {
            assert!(error.to_string().contains("NVIDIA driver") || matches!(error, GpuError::Driver { .. }), "{error}");
        }
    }
}
