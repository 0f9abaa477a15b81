//! A real GPU through the CUDA driver: context, stream, memory, kernels and graphs. Everything is freed on drop.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::Path;

use cudarc::driver::{result, sys};

use crate::command::{Command, Launch};
use crate::device::{Address, CAPABILITY_LEAST, Device, GpuError, Graph, Memory};
use crate::kept::Kept;
use crate::library::{self, Library};
use crate::lt::{Lt, WORKSPACE_BYTES};
use crate::nvrtc;
use crate::panics::caught;
use crate::program::Program;
use crate::staging::Staging;

/// One GPU with one stream. It is used from one thread at a time.
pub struct Gpu {
    ordinal: u32,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    name: String,
    /// As in 90 for `sm_90`.
    capability: u32,
    kept: Kept,
    modules: Vec<sys::CUmodule>,
    kernels: HashMap<&'static str, (sys::CUfunction, u32)>,
    memory: Vec<Address>,
    graphs: Vec<sys::CUgraphExec>,
    lt: Option<Lt>,
    staging: Option<Staging>,
}

#[expect(unsafe_code, reason = "raw handles of the driver")]
// SAFETY: the driver's handles may be used from any thread that has made the context current, as every method does.
unsafe impl Send for Gpu {}

pub(crate) fn failed(what: &'static str) -> impl Fn(result::DriverError) -> GpuError {
    move |error| GpuError::Driver { what: what.to_owned(), code: format!("{:?}", error.0) }
}

impl Gpu {
    /// How many GPUs this process may use, by the driver; an error says what is missing.
    pub fn count() -> Result<u32, GpuError> {
        library::needed()?;
        caught(Library::Driver.name(), visible)
    }

    /// Opens the GPU of this number among those that the process sees; compiled kernels are kept in `cache`.
    pub fn open(ordinal: u32, cache: &Path) -> Result<Self, GpuError> {
        let count = Self::count()?;
        caught("working NVIDIA driver and cuBLASLt", || Self::start(ordinal, count, cache))
    }

    fn start(ordinal: u32, count: u32, cache: &Path) -> Result<Self, GpuError> {
        if ordinal >= count {
            let what =
                format!("opening GPU {ordinal} where {count} are visible (see CUDA_VISIBLE_DEVICES and nvidia-smi)");
            let code = if count == 0 { "CUDA_ERROR_NO_DEVICE" } else { "CUDA_ERROR_INVALID_DEVICE" };
            return Err(GpuError::Driver { what, code: code.to_owned() });
        }
        let device = result::device::get(ordinal.cast_signed()).map_err(failed("cuDeviceGet"))?;
        let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
        let capability = capability(device)?;
        let context = retain(device)?;
        let mut gpu = Self {
            ordinal,
            device,
            context,
            stream: std::ptr::null_mut(),
            name,
            capability,
            kept: Kept::new(cache),
            modules: Vec::new(),
            kernels: HashMap::new(),
            memory: Vec::new(),
            graphs: Vec::new(),
            lt: None,
            staging: None,
        };
        gpu.enter()?;
        gpu.stream =
            result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed("cuStreamCreate"))?;
        let workspace = gpu.allocate("the products' workspace", WORKSPACE_BYTES)?;
        gpu.lt = Some(Lt::new(workspace)?);
        gpu.staging = Some(Staging::new()?);
        Ok(gpu)
    }

    /// Its number among the GPUs that the process sees.
    pub(crate) fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// For libraries that put work into the same queue.
    pub(crate) fn handles(&self) -> (sys::CUcontext, sys::CUstream) {
        (self.context, self.stream)
    }

    /// Makes the context current on this thread.
    #[expect(unsafe_code, reason = "calls into the driver")]
    fn enter(&self) -> Result<(), GpuError> {
        // SAFETY: the context is retained until drop.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("cuCtxSetCurrent"))
    }

    /// Machine code of the program for this GPU, from the cache or compiled now.
    fn image(&self, program: &Program) -> Result<Vec<u8>, GpuError> {
        let (major, minor) = caught(Library::Nvrtc.name(), nvrtc::version)?;
        let key = program.key("", &format!("nvrtc {major}.{minor} sm_{}", self.capability));
        if let Some(image) = self.kept.get(&key) {
            return Ok(image);
        }
        let image = caught(Library::Nvrtc.name(), || nvrtc::compile(program, self.capability))?.image;
        self.kept.put(&key, &image)?;
        Ok(image)
    }

    #[expect(unsafe_code, reason = "calls into the driver")]
    fn function(&mut self, kernel: &'static str, shared: u32) -> Result<sys::CUfunction, GpuError> {
        let known = self.kernels.get(kernel).copied();
        let (function, allowed) = match known {
            Some(known) => known,
            // How much it may have without asking hangs on what it holds besides, so all is asked for.
            None => (self.find(kernel)?, 0),
        };
        if shared > allowed {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to a module that is loaded until drop.
            unsafe { result::function::set_function_attribute(function, attribute, shared.cast_signed()) }.map_err(
                |error| GpuError::Driver {
                    what: format!("{shared} bytes of shared memory for kernel {kernel}"),
                    code: format!("{:?}", error.0),
                },
            )?;
        }
        self.kernels.insert(kernel, (function, allowed.max(shared)));
        Ok(function)
    }

    #[expect(unsafe_code, reason = "calls into the driver")]
    fn find(&self, kernel: &str) -> Result<sys::CUfunction, GpuError> {
        let name = CString::new(kernel).expect("names of kernels hold no zero byte");
        // SAFETY: modules are loaded until drop.
        let mut found = self
            .modules
            .iter()
            .filter_map(|&module| unsafe { result::module::get_function(module, name.clone()) }.ok());
        found.next().ok_or_else(|| GpuError::NoKernel(kernel.to_owned()))
    }

    #[expect(unsafe_code, reason = "calls into the driver")]
    fn launch(&mut self, launch: &Launch) -> Result<(), GpuError> {
        let function = self.function(launch.kernel, launch.shared)?;
        let mut values: Vec<u64> = launch.arguments.iter().map(|argument| argument.bytes()).collect();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let [x, y, z] = launch.grid;
        // SAFETY: arguments are copied before it returns; addresses are as good as the command's.
        unsafe {
            result::launch_kernel(function, (x, y, z), (launch.block, 1, 1), launch.shared, self.stream, &mut pointers)
        }
        .map_err(|error| GpuError::Driver {
            what: format!("kernel {} on a grid of {x} x {y} x {z} blocks of {}", launch.kernel, launch.block),
            code: format!("{:?}", error.0),
        })
    }

    fn queue(&mut self, commands: &[Command]) -> Result<(), GpuError> {
        for command in commands {
            match command {
                Command::Launch(launch) => self.launch(launch)?,
                Command::Product(product) => {
                    self.lt.as_mut().expect("made when opened").multiply(product, self.stream)?;
                }
            }
        }
        Ok(())
    }
}

/// GPUs that this process may use.
pub(crate) fn visible() -> Result<u32, GpuError> {
    Library::Driver.usable()?;
    match result::init() {
        // Also what the driver says where `CUDA_VISIBLE_DEVICES` hides all that are there.
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => return Ok(0),
        begun => begun.map_err(failed("cuInit"))?,
    }
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    Ok(count.max(0).cast_unsigned())
}

/// As in 90 for 9.0; an error where it is less than kernels are written for.
#[expect(unsafe_code, reason = "calls into the driver")]
pub(crate) fn capability(device: sys::CUdevice) -> Result<u32, GpuError> {
    use sys::CUdevice_attribute as Attribute;
    // SAFETY: the device was given by the driver.
    let get = |attribute| unsafe { result::device::get_attribute(device, attribute) };
    let major = get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR).map_err(failed("cuDeviceGetAttribute"))?;
    let minor = get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR).map_err(failed("cuDeviceGetAttribute"))?;
    enough((major * 10 + minor).cast_unsigned())
}

fn enough(capability: u32) -> Result<u32, GpuError> {
    if capability < CAPABILITY_LEAST { Err(GpuError::TooOld { capability }) } else { Ok(capability) }
}

#[expect(unsafe_code, reason = "calls into the driver")]
pub(crate) fn retain(device: sys::CUdevice) -> Result<sys::CUcontext, GpuError> {
    // SAFETY: the device was given by the driver; released on drop.
    unsafe { result::primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))
}

impl Device for Gpu {
    fn name(&self) -> String {
        format!("{} (sm_{})", self.name, self.capability)
    }

    fn memory(&self) -> Result<Memory, GpuError> {
        self.enter()?;
        let (free, total) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
        Ok(Memory { free: free as u64, total: total as u64 })
    }

    #[expect(unsafe_code, reason = "calls into the driver")]
    fn allocate(&mut self, what: &str, bytes: u64) -> Result<Address, GpuError> {
        self.enter()?;
        // SAFETY: freed on drop; uninitialised memory is read only by kernels that were told to write it first.
        match unsafe { result::malloc_sync(bytes.max(1) as usize) } {
            Ok(address) => {
                self.memory.push(address);
                Ok(address)
            }
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Err(GpuError::OutOfMemory { what: what.to_owned(), wanted: bytes, free: self.memory()?.free })
            }
            Err(error) => Err(failed("cuMemAlloc")(error)),
        }
    }

    #[expect(unsafe_code, reason = "calls into the driver")]
    fn load(&mut self, program: &Program) -> Result<(), GpuError> {
        self.enter()?;
        let mut image = self.image(program)?;
        // PTX is a text that ends in a zero byte; behind a cubin it does no harm.
        image.push(0);
        // SAFETY: the image is what the compiler made, and is copied before it returns.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(failed("cuModuleLoadData"))?;
        self.modules.push(module);
        Ok(())
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), GpuError> {
        self.enter()?;
        self.staging.as_mut().expect("made when opened").send(self.stream, to, bytes)
    }

    #[expect(unsafe_code, reason = "calls into the driver")]
    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: callers read from what `allocate` gave them; the copy is over before it returns.
        unsafe {
            result::memcpy_dtoh_async(bytes, from, self.stream).map_err(failed("cuMemcpyDtoHAsync"))?;
            result::stream::synchronize(self.stream).map_err(failed("cuStreamSynchronize"))
        }
    }

    fn run(&mut self, commands: &[Command]) -> Result<(), GpuError> {
        self.enter()?;
        self.queue(commands)
    }

    #[expect(unsafe_code, reason = "calls into the driver")]
    fn graph(&mut self, commands: &[Command]) -> Result<Graph, GpuError> {
        self.enter()?;
        // SAFETY: the stream is alive; what is captured is only recorded, and the graph is destroyed once it is made ready.
        unsafe {
            // Relaxed: the libraries load their own kernels at their first use, which may be now.
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
            result::stream::begin_capture(self.stream, mode).map_err(failed("cuStreamBeginCapture"))?;
            let queued = self.queue(commands);
            // Capturing ends whatever happened, or the stream stays unusable.
            let graph = result::stream::end_capture(self.stream);
            if let (Err(_), Ok(graph)) = (&queued, graph) {
                let _ended = result::graph::destroy(graph);
            }
            queued?;
            let graph = graph.map_err(failed("cuStreamEndCapture"))?;
            let ready = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ended = result::graph::destroy(graph);
            let ready = ready.map_err(failed("cuGraphInstantiate"))?;
            result::graph::upload(ready, self.stream).map_err(failed("cuGraphUpload"))?;
            self.graphs.push(ready);
        }
        Ok(Graph(self.graphs.len() - 1))
    }

    #[expect(unsafe_code, reason = "calls into the driver")]
    fn replay(&mut self, graph: Graph) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: graphs live until drop.
        unsafe { result::graph::launch(self.graphs[graph.0], self.stream) }.map_err(failed("cuGraphLaunch"))
    }
}

impl Drop for Gpu {
    #[expect(unsafe_code, reason = "frees what the driver gave")]
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // SAFETY: each is freed once, after the queue has run dry; errors at the end have nobody to tell.
        unsafe {
            if !self.stream.is_null() {
                let _dry = result::stream::synchronize(self.stream);
            }
            for graph in self.graphs.drain(..) {
                let _ended = result::graph::exec_destroy(graph);
            }
            if let Some(staging) = &mut self.staging {
                staging.end();
            }
            if let Some(lt) = &mut self.lt {
                lt.end();
            }
            for address in self.memory.drain(..) {
                let _freed = result::free_sync(address);
            }
            for module in self.modules.drain(..) {
                let _ended = result::module::unload(module);
            }
            if !self.stream.is_null() {
                let _ended = result::stream::destroy(self.stream);
            }
            let _released = result::primary_ctx::release(self.device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_for_compute_capability_8_0_and_newer() {
        for capability in [80, 90, 121] {
            assert_eq!(enough(capability).unwrap(), capability);
        }
        let error = enough(75).unwrap_err().to_string();
        assert_eq!(error, "compute capability 7.5 is too old, 8.0 or newer is needed");
    }
}
