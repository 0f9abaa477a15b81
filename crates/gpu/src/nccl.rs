//! Sums over GPUs of one machine by NCCL, loaded at run time: one process, one communicator for each GPU.
//!
//! The bindings of the other libraries ask for `libnccl.so`, which Python packages do not have, so the few functions that
//! are used are bound here. Their types are those of `nccl.h`, unchanged since NCCL 2.4.

use std::ffi::{CStr, c_char, c_int, c_void};

use cudarc::driver::{result, sys};
use libloading::Symbol;

use crate::collective::{Collective, Number, Numbers};
use crate::device::GpuError;
use crate::driver::{Gpu, failed};
use crate::library::{self, Library};

type Communicator = *mut c_void;
/// 0 is success.
type Status = c_int;
type InitAll = unsafe extern "C" fn(*mut Communicator, c_int, *const c_int) -> Status;
type Destroy = unsafe extern "C" fn(Communicator) -> Status;
type Boundary = unsafe extern "C" fn() -> Status;
type AllReduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    c_int,
    Communicator,
    *mut c_void, // the stream
) -> Status;
type ErrorString = unsafe extern "C" fn(Status) -> *const c_char;

/// `ncclSum`.
const SUM: c_int = 0;

/// `ncclDataType_t`.
fn data_type(number: Number) -> c_int {
    match number {
        Number::U64 => 5,
        Number::F32 => 7,
        Number::F64 => 8,
    }
}

/// A GPU's part in the group.
struct Member {
    communicator: Communicator,
    context: sys::CUcontext,
    stream: sys::CUstream,
}

/// See the module. It is dropped before the GPUs whose streams it uses.
pub(crate) struct Nccl {
    library: libloading::Library,
    members: Vec<Member>,
}

#[expect(unsafe_code, reason = "raw handles of NCCL and the driver")]
// SAFETY: communicators may be used from any one thread at a time; contexts are made current before each call.
unsafe impl Send for Nccl {}

impl Nccl {
    /// Joins these GPUs.
    pub(crate) fn join(gpus: &[Gpu]) -> Result<Self, GpuError> {
        Library::Nccl.usable()?;
        let mut joined = Self { library: load()?, members: Vec::new() };
        let ordinals: Vec<c_int> = gpus.iter().map(|gpu| gpu.ordinal().cast_signed()).collect();
        let mut communicators: Vec<Communicator> = vec![std::ptr::null_mut(); gpus.len()];
        let count = c_int::try_from(gpus.len()).expect("a machine has few GPUs");
        #[expect(unsafe_code, reason = "calls into NCCL")]
        // SAFETY: both arrays hold `count` elements.
        let status = unsafe {
            joined.function::<InitAll>("ncclCommInitAll")?(communicators.as_mut_ptr(), count, ordinals.as_ptr())
        };
        joined.done("ncclCommInitAll", status)?;
        let member = |(communicator, gpu): (Communicator, &Gpu)| {
            let (context, stream) = gpu.handles();
            Member { communicator, context, stream }
        };
        joined.members = communicators.into_iter().zip(gpus).map(member).collect();
        Ok(joined)
    }

    #[expect(unsafe_code, reason = "functions of a loaded library")]
    fn function<F>(&self, name: &'static str) -> Result<Symbol<'_, F>, GpuError> {
        // SAFETY: callers name the type that `nccl.h` gives the function.
        unsafe { self.library.get(name.as_bytes()) }.map_err(|error| GpuError::Missing {
            library: "working NCCL",
            hint: format!("{error}; install NCCL 2.4 or newer"),
        })
    }

    #[expect(unsafe_code, reason = "a text that NCCL owns")]
    fn done(&self, what: &str, status: Status) -> Result<(), GpuError> {
        if status == 0 {
            return Ok(());
        }
        let code = match self.function::<ErrorString>("ncclGetErrorString") {
            // SAFETY: a constant text that ends in zero.
            Ok(words) => unsafe { CStr::from_ptr(words(status)) }.to_string_lossy().into_owned(),
            Err(_) => format!("error {status}"),
        };
        Err(GpuError::Driver { what: what.to_owned(), code })
    }

    /// What comes between is one operation of all members.
    #[expect(unsafe_code, reason = "calls into NCCL and the driver")]
    fn reduce(&self, parts: &[Vec<Numbers>]) -> Result<(), GpuError> {
        let reduce = self.function::<AllReduce>("ncclAllReduce")?;
        for (member, parts) in self.members.iter().zip(parts) {
            // SAFETY: the context is retained by its GPU, which outlives this.
            unsafe { result::ctx::set_current(member.context) }.map_err(failed("cuCtxSetCurrent"))?;
            for numbers in parts {
                let Numbers { address, count, number } = *numbers;
                // SAFETY: the numbers lie in memory of the member's GPU; sums may go where their parts are.
                let status = unsafe {
                    let memory = address as *mut c_void;
                    let stream = member.stream.cast();
                    reduce(memory, memory, count as usize, data_type(number), SUM, member.communicator, stream)
                };
                self.done("ncclAllReduce", status)?;
            }
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "calls into NCCL")]
    fn boundary(&self, name: &'static str) -> Result<(), GpuError> {
        // SAFETY: it takes nothing.
        let status = unsafe { self.function::<Boundary>(name)?() };
        self.done(name, status)
    }
}

/// The library where it was found.
#[expect(unsafe_code, reason = "loading a library runs its initialisers; these are NCCL's")]
pub(crate) fn load() -> Result<libloading::Library, GpuError> {
    let path = library::found(Library::Nccl)?;
    // SAFETY: it was loaded once already, when it was looked for.
    unsafe { libloading::Library::new(path) }
        .map_err(|error| GpuError::Missing { library: Library::Nccl.name(), hint: error.to_string() })
}

impl Collective for Nccl {
    fn sum(&mut self, parts: &[Vec<Numbers>]) -> Result<(), GpuError> {
        self.boundary("ncclGroupStart")?;
        let asked = self.reduce(parts);
        // A group that was begun is ended whatever happened.
        let ended = self.boundary("ncclGroupEnd");
        asked.and(ended)
    }
}

impl Drop for Nccl {
    #[expect(unsafe_code, reason = "frees what NCCL gave")]
    fn drop(&mut self) {
        for member in &self.members {
            let Ok(destroy) = self.function::<Destroy>("ncclCommDestroy") else { return };
            // SAFETY: each is destroyed once, after its queue has run dry; errors at the end have nobody to tell.
            unsafe {
                let _entered = result::ctx::set_current(member.context);
                let _dry = result::stream::synchronize(member.stream);
                let _ended = destroy(member.communicator);
            }
        }
    }
}
