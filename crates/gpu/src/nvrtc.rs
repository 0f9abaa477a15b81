//! Kernel sources to machine code for one architecture, by the run-time compiler. Needs no GPU.

use std::ffi::{CString, c_char, c_int};

use cudarc::nvrtc::{result, sys};

use crate::device::GpuError;
use crate::library::Library;
use crate::panics::caught;
use crate::program::Program;

/// Machine code, and what the compiler said beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// A cubin; or PTX where the compiler is older than the device.
    pub image: Vec<u8>,
    /// Empty where there is nothing to say.
    pub log: String,
}

/// Compiles for an architecture such as `sm_90`, or for the newest below it that the compiler knows.
pub fn compile(program: &Program, capability: u32) -> Result<Compiled, GpuError> {
    Library::Nvrtc.usable()?;
    let target = target(capability, &known()?);
    let text = CString::new(program.text("")).expect("kernel sources hold no zero byte");
    let mut options = vec![format!("--gpu-architecture={target}"), "--std=c++17".to_owned()];
    options.extend(program.defines.iter().map(|define| format!("-D{define}")));
    let made = result::create_program(&text, Some(c"kernels.cu")).map_err(failed("nvrtcCreateProgram"))?;
    let compiled = build(made, &options, &target);
    destroy(made);
    compiled
}

#[expect(unsafe_code, reason = "calls into NVRTC")]
fn build(made: sys::nvrtcProgram, options: &[String], target: &str) -> Result<Compiled, GpuError> {
    // SAFETY: `made` is alive; sizes are asked for before each buffer is filled.
    unsafe {
        let done = result::compile_program(made, options);
        let log = result::get_program_log(made).map_err(failed("nvrtcGetProgramLog"))?;
        let log = log.iter().map(|&byte| byte.cast_unsigned()).take_while(|&byte| byte != 0).collect::<Vec<u8>>();
        let log = String::from_utf8_lossy(&log).trim().to_owned();
        if let Err(error) = done {
            let log = if log.is_empty() { format!("{error:?}") } else { log };
            return Err(GpuError::Compile { architecture: target.to_owned(), log });
        }
        if target.starts_with("compute") {
            let ptx = result::get_ptx(made).map_err(failed("nvrtcGetPTX"))?;
            return Ok(Compiled { image: ptx.iter().map(|&byte| byte.cast_unsigned()).collect(), log });
        }
        let mut len = 0;
        sys::nvrtcGetCUBINSize(made, &raw mut len).result().map_err(failed("nvrtcGetCUBINSize"))?;
        let mut image = vec![0u8; len];
        sys::nvrtcGetCUBIN(made, image.as_mut_ptr().cast::<c_char>()).result().map_err(failed("nvrtcGetCUBIN"))?;
        Ok(Compiled { image, log })
    }
}

#[expect(unsafe_code, reason = "calls into NVRTC")]
fn destroy(made: sys::nvrtcProgram) {
    // SAFETY: made by this module, destroyed once. There is nothing to do about an error.
    let _ended = unsafe { result::destroy_program(made) };
}

/// The compiler's version, as in 13.0.
pub(crate) fn version() -> Result<(i32, i32), GpuError> {
    Library::Nvrtc.usable()?;
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    #[expect(unsafe_code, reason = "calls into NVRTC")]
    // SAFETY: two integers are filled.
    unsafe {
        sys::nvrtcVersion(&raw mut major, &raw mut minor).result().map_err(failed("nvrtcVersion"))?;
    }
    Ok((major, minor))
}

/// The same for people, from a library that may be missing or broken.
pub fn nvrtc_version() -> Result<String, GpuError> {
    let (major, minor) = caught(Library::Nvrtc.name(), version)?;
    Ok(format!("{major}.{minor}"))
}

/// Capabilities that the compiler knows, ascending.
fn known() -> Result<Vec<u32>, GpuError> {
    let mut count: c_int = 0;
    #[expect(unsafe_code, reason = "calls into NVRTC")]
    // SAFETY: the buffer has the length that was asked for.
    let all = unsafe {
        sys::nvrtcGetNumSupportedArchs(&raw mut count).result().map_err(failed("nvrtcGetNumSupportedArchs"))?;
        let mut all: Vec<c_int> = vec![0; count.max(0) as usize];
        sys::nvrtcGetSupportedArchs(all.as_mut_ptr()).result().map_err(failed("nvrtcGetSupportedArchs"))?;
        all
    };
    Ok(all.into_iter().map(i32::cast_unsigned).collect())
}

/// Machine code where the compiler knows the device, else portable code that the driver finishes.
fn target(capability: u32, known: &[u32]) -> String {
    match known.iter().rev().find(|&&arch| arch <= capability) {
        Some(&arch) if arch == capability => format!("sm_{arch}"),
        Some(&arch) => format!("compute_{arch}"),
        None => format!("sm_{capability}"),
    }
}

fn failed(what: &'static str) -> impl Fn(result::NvrtcError) -> GpuError {
    move |error| GpuError::Driver { what: what.to_owned(), code: format!("{error:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_newer_than_the_compiler_gets_portable_code() {
        assert_eq!(target(90, &[80, 90, 100]), "sm_90");
        assert_eq!(target(103, &[80, 90, 100]), "compute_100");
        assert_eq!(target(75, &[80, 90]), "sm_75");
    }
}
