//! Pinned host memory through which bytes reach the GPU without anybody waiting: a ring of buffers, each free again once
//! its copy is done.

use cudarc::driver::{result, sys};

use crate::device::{Address, GpuError};
use crate::driver::failed;

/// Copies under way at most. More than a step writes.
const BUFFERS: usize = 8;

pub(crate) struct Staging {
    buffers: Vec<Buffer>,
    next: usize,
}

struct Buffer {
    memory: *mut u8,
    len: usize,
    done: sys::CUevent,
}

impl Staging {
    pub(crate) fn new() -> Result<Self, GpuError> {
        let mut buffers = Vec::with_capacity(BUFFERS);
        for _ in 0..BUFFERS {
            let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
            let done = result::event::create(flags).map_err(failed("cuEventCreate"))?;
            buffers.push(Buffer { memory: std::ptr::null_mut(), len: 0, done });
        }
        Ok(Self { buffers, next: 0 })
    }

    /// Takes the bytes and puts their copy into the queue.
    #[expect(unsafe_code, reason = "pinned memory and asynchronous copies")]
    pub(crate) fn send(&mut self, stream: sys::CUstream, to: Address, bytes: &[u8]) -> Result<(), GpuError> {
        let buffer = &mut self.buffers[self.next];
        self.next = (self.next + 1) % BUFFERS;
        // SAFETY: the buffer's last copy is over before it is written or freed, and it is as long as the bytes.
        unsafe {
            result::event::synchronize(buffer.done).map_err(failed("cuEventSynchronize"))?;
            if buffer.len < bytes.len() {
                buffer.release()?;
                let memory = result::malloc_host(bytes.len(), 0).map_err(failed("cuMemHostAlloc"))?;
                *buffer = Buffer { memory: memory.cast(), len: bytes.len(), done: buffer.done };
            }
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.memory, bytes.len());
            let source = std::slice::from_raw_parts(buffer.memory, bytes.len());
            result::memcpy_htod_async(to, source, stream).map_err(failed("cuMemcpyHtoDAsync"))?;
            result::event::record(buffer.done, stream).map_err(failed("cuEventRecord"))
        }
    }

    /// Frees everything; the queue must be empty.
    #[expect(unsafe_code, reason = "frees pinned memory and events")]
    pub(crate) fn end(&mut self) {
        for buffer in &mut self.buffers {
            // SAFETY: no copy is under way, and nobody uses the buffers after this.
            unsafe {
                let _freed = buffer.release();
                let _ended = result::event::destroy(buffer.done);
            }
        }
        self.buffers.clear();
    }
}

impl Buffer {
    /// # Safety
    /// No copy from it may be under way.
    #[expect(unsafe_code, reason = "frees pinned memory")]
    unsafe fn release(&mut self) -> Result<(), GpuError> {
        if !self.memory.is_null() {
            // SAFETY: given by `malloc_host` and freed once.
            unsafe { result::free_host(self.memory.cast()) }.map_err(failed("cuMemFreeHost"))?;
        }
        self.memory = std::ptr::null_mut();
        self.len = 0;
        Ok(())
    }
}
