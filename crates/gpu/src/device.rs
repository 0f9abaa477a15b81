//! What a device can do, whichever it is, and what can go wrong. No arithmetic here.

use crate::command::Command;
use crate::program::Program;

/// A place in a device's memory, in bytes.
pub type Address = u64;

/// Commands that were made ready to run many times, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graph(pub(crate) usize);

/// A device's memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub free: u64,
    pub total: u64,
}

/// The least compute capability that kernels are written for, as in 80 for 8.0: before it there are neither asynchronous
/// copies into shared memory nor tensor cores that take bf16.
pub const CAPABILITY_LEAST: u32 = 80;

/// What a device can break on. Out of memory is told apart, because a smaller batch at a time may go.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    #[error("no {library}: {hint}")]
    Missing { library: &'static str, hint: String },
    #[error("{what} failed: {code}")]
    Driver { what: String, code: String },
    #[error(
        "compute capability {}.{} is too old, {}.{} or newer is needed",
        .capability / 10, .capability % 10, CAPABILITY_LEAST / 10, CAPABILITY_LEAST % 10
    )]
    TooOld { capability: u32 },
    #[error("out of GPU memory: {what} wants {wanted} bytes more, {free} are free")]
    OutOfMemory { what: String, wanted: u64, free: u64 },
    #[error("kernels for {architecture} do not compile:\n{log}")]
    Compile { architecture: String, log: String },
    #[error("no kernel {0} among those loaded")]
    NoKernel(String),
    #[error("no matrix product for {0}")]
    NoProduct(String),
    #[error("{path}: {source}")]
    Io { path: std::path::PathBuf, source: std::io::Error },
}

/// One device with one queue: whatever it is told happens in that order. Memory is given back when it is dropped.
pub trait Device: Send {
    /// For people: the GPU's name and architecture, or that it is emulated.
    fn name(&self) -> String;
    fn memory(&self) -> Result<Memory, GpuError>;
    /// `bytes` of memory, on 256 bytes, with what was there before; `what` is for the error.
    fn allocate(&mut self, what: &str, bytes: u64) -> Result<Address, GpuError>;
    /// Compiles a program, or finds it compiled, and makes its kernels known.
    fn load(&mut self, program: &Program) -> Result<(), GpuError>;
    /// Host to device. The bytes are taken before it returns; the copy itself waits its turn.
    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), GpuError>;
    /// Device to host, after all that was asked before.
    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), GpuError>;
    /// Starts the commands now.
    fn run(&mut self, commands: &[Command]) -> Result<(), GpuError>;
    /// Makes the commands ready to be replayed as one.
    fn graph(&mut self, commands: &[Command]) -> Result<Graph, GpuError>;
    fn replay(&mut self, graph: Graph) -> Result<(), GpuError>;
}
