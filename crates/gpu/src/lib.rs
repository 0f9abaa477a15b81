//! GPUs, found at run time, and what each is told to do: kernels, matrix products and copies, as plain data.
//!
//! A [`Device`] is a real GPU ([`Gpu`]: driver, NVRTC and cuBLASLt are loaded when it is opened; nothing of CUDA is needed
//! to build or to start) or an emulated one ([`Emulated`]: the same kernel sources, compiled by a C++ compiler, for
//! tests of arithmetic). It knows no model, no training and no run.

mod cards;
mod collective;
mod command;
mod device;
mod driver;
mod emulated;
mod fault;
mod functions;
mod kept;
mod library;
mod lt;
mod nccl;
mod nvrtc;
mod panics;
mod product;
mod program;
mod staging;

pub use cards::{Card, Unusable, cards};
pub use collective::{Collective, Group, Number, Numbers};
pub use command::{Argument, Command, Launch};
pub use device::{Address, CAPABILITY_LEAST, Device, GpuError, Graph, Memory};
pub use driver::Gpu;
pub use emulated::{Emulated, EmulatedSums};
pub use fault::Fault;
pub use library::{Found, Library, find};
pub use nvrtc::{compile, nvrtc_version};
pub use product::{Kind, Matrix, Product};
pub use program::Program;
