//! Whose fault an error of the driver is, as far as its code tells. It decides nothing.

use crate::device::GpuError;

/// What an error says beyond itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The GPU, or the service (MPS) between it and this process, was not to be had. Nothing this process did.
    Service,
    /// A kernel or the hardware under it broke, and with it all work of the context. Under MPS every process on that GPU
    /// hears the same code, and none says whose kernel it was (NVIDIA, "Multi-Process Service", error containment).
    Context,
    /// Anything else: this process alone.
    Own,
}

/// Codes that say that there is no such GPU, now: it fell off the bus, another process holds it for itself, or the driver is
/// not ready or just being replaced.
const OF_GPU: [&str; 5] = [
    "CUDA_ERROR_NO_DEVICE",
    "CUDA_ERROR_INVALID_DEVICE",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
    "CUDA_ERROR_SYSTEM_NOT_READY",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
];
/// What a process calls before it has a context: whatever fails there, it has done nothing yet.
const OPENING: [&str; 3] = ["cuInit", "cuDeviceGetCount", "cuDevicePrimaryCtxRetain"];
/// Codes of the driver (`CUresult`) that end all work of a context; each of them is answered to every later call.
const OF_CONTEXT: [&str; 11] = [
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_CONTAINED",
];

impl GpuError {
    /// By the driver's code, and by what failed.
    pub fn fault(&self) -> Fault {
        let Self::Driver { what, code } = self else { return Fault::Own };
        match code.as_str() {
            code if code.starts_with("CUDA_ERROR_MPS_") || OF_GPU.contains(&code) => Fault::Service,
            code if OF_CONTEXT.contains(&code) => Fault::Context,
            _ if OPENING.contains(&what.as_str()) => Fault::Service,
            _ => Fault::Own,
        }
    }
}

#[cfg(test)]
mod tests {
    use cudarc::driver::{result::DriverError, sys::CUresult};

    use super::*;
    use crate::driver::failed;

    #[test]
    fn the_driver_s_own_codes_are_told_apart() {
        let fault = |code| failed("cuLaunchKernel")(DriverError(code)).fault();
        for code in [
            CUresult::CUDA_ERROR_MPS_CONNECTION_FAILED,
            CUresult::CUDA_ERROR_MPS_RPC_FAILURE,
            CUresult::CUDA_ERROR_MPS_SERVER_NOT_READY,
            CUresult::CUDA_ERROR_MPS_MAX_CLIENTS_REACHED,
            CUresult::CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED,
            CUresult::CUDA_ERROR_MPS_CLIENT_TERMINATED,
            CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE,
            CUresult::CUDA_ERROR_NO_DEVICE,
            CUresult::CUDA_ERROR_INVALID_DEVICE,
            CUresult::CUDA_ERROR_SYSTEM_NOT_READY,
            CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
        ] {
            assert_eq!(fault(code), Fault::Service, "{code:?}");
        }
        for code in [
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
            CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
            CUresult::CUDA_ERROR_ASSERT,
            CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
            CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
            CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
            CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE,
            CUresult::CUDA_ERROR_INVALID_PC,
            CUresult::CUDA_ERROR_LAUNCH_FAILED,
            CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
        ] {
            assert_eq!(fault(code), Fault::Context, "{code:?}");
        }
        assert_eq!(fault(CUresult::CUDA_ERROR_INVALID_VALUE), Fault::Own);
        for code in [CUresult::CUDA_ERROR_UNKNOWN, CUresult::CUDA_ERROR_OUT_OF_MEMORY] {
            assert_eq!(fault(code), Fault::Own, "{code:?}");
            let opening = failed("cuDevicePrimaryCtxRetain")(DriverError(code));
            assert_eq!(opening.fault(), Fault::Service, "nothing was done yet: {code:?}");
        }
        let full = GpuError::OutOfMemory { what: "weights".to_owned(), wanted: 2, free: 1 };
        assert_eq!(full.fault(), Fault::Own);
    }
}
