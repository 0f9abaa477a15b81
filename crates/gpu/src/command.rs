//! What a device is told to do, as data: so that a step can be built, looked at and tested without a device.

use crate::device::Address;
use crate::product::Product;

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    Address(Address),
    Int(i32),
    Long(u64),
    Float(f32),
}

impl Argument {
    /// A null pointer: what a kernel takes for "none".
    pub const NONE: Self = Self::Address(0);

    /// Its bytes as the kernel reads them, from the start of eight.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Address(value) | Self::Long(value) => value,
            Self::Int(value) => u64::from(value.cast_unsigned()),
            Self::Float(value) => u64::from(value.to_bits()),
        }
    }
}

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

/// A kernel on a grid of blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    pub kernel: &'static str,
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared: u32,
    pub arguments: Vec<Argument>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Launch(Launch),
    Product(Product),
}
