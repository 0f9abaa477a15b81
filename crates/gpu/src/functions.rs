//! The functions of CUDA's libraries that are called. The bindings look for each at its first use and panic where it is
//! missing, so all are looked for before any work begins.

use crate::device::GpuError;
use crate::library::Library;
use crate::nccl;
use crate::panics::caught;

/// A driver of CUDA 11.4 has them all.
const DRIVER: &[&str] = &[
    "cuInit",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetUuid_v2",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuCtxSetCurrent",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemFreeHost",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphUpload",
];

const NVRTC: &[&str] = &[
    "nvrtcVersion",
    "nvrtcGetNumSupportedArchs",
    "nvrtcGetSupportedArchs",
    "nvrtcCreateProgram",
    "nvrtcCompileProgram",
    "nvrtcDestroyProgram",
    "nvrtcGetProgramLog",
    "nvrtcGetProgramLogSize",
    "nvrtcGetCUBIN",
    "nvrtcGetCUBINSize",
    "nvrtcGetPTX",
    "nvrtcGetPTXSize",
];

const CUBLASLT: &[&str] = &[
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmul",
];

const NCCL: &[&str] =
    &["ncclCommInitAll", "ncclCommDestroy", "ncclGetErrorString", "ncclGroupStart", "ncclGroupEnd", "ncclAllReduce"];

impl Library {
    /// Names as they are asked for.
    fn functions(self) -> &'static [&'static str] {
        match self {
            Self::Driver => DRIVER,
            Self::Nvrtc => NVRTC,
            Self::CublasLt => CUBLASLT,
            Self::Nccl => NCCL,
        }
    }

    /// The library, which is here, with all that is called; an error names the first function that it lacks.
    pub(crate) fn complete(self) -> Result<(), GpuError> {
        caught(self.name(), || match self.functions().iter().find(|name| !self.has(name)) {
            Some(name) => {
                let hint = format!("the one found lacks {name}; install a newer one");
                Err(GpuError::Missing { library: self.name(), hint })
            }
            None => Ok(()),
        })
    }

    #[expect(unsafe_code, reason = "looks a function up")]
    fn has(self, name: &str) -> bool {
        let name = name.as_bytes();
        // SAFETY: nothing is called; it is only asked whether it is there, in the very library that the bindings use.
        unsafe {
            match self {
                Self::Driver => cudarc::driver::sys::culib().get::<*const ()>(name).is_ok(),
                Self::Nvrtc => cudarc::nvrtc::sys::culib().get::<*const ()>(name).is_ok(),
                Self::CublasLt => cudarc::cublaslt::sys::culib().get::<*const ()>(name).is_ok(),
                Self::Nccl => nccl::load().is_ok_and(|nccl| nccl.get::<*const ()>(name).is_ok()),
            }
        }
    }
}
