//! Several devices that hold the same model, and sums over them. No arithmetic of its own.

use std::path::Path;

use crate::device::{Address, Device, GpuError};
use crate::driver::Gpu;
use crate::nccl::Nccl;

/// What is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    F32,
    F64,
    U64,
}

impl Number {
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F64 | Self::U64 => 8,
        }
    }
}

/// Numbers in a row on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub address: Address,
    pub count: u64,
    pub number: Number,
}

/// Devices joined so that they can sum over each other.
pub trait Collective: Send {
    /// Puts into every device's queue that its numbers become the sums over all devices, the same bits on each.
    /// `parts[d]` lie on device d; all devices name the same kinds and counts in the same order.
    fn sum(&mut self, parts: &[Vec<Numbers>]) -> Result<(), GpuError>;
}

/// One device, or several that are joined.
pub struct Group {
    /// Goes before the devices whose queues it uses.
    pub collective: Option<Box<dyn Collective>>,
    pub devices: Vec<Box<dyn Device>>,
}

impl<D: Device + 'static> From<Box<D>> for Group {
    fn from(device: Box<D>) -> Self {
        Self { collective: None, devices: vec![device] }
    }
}

impl Group {
    /// The GPUs that this process sees, `most` of them at most, joined by NCCL if they are more than one; compiled
    /// kernels are kept in `cache`.
    pub fn open(cache: &Path, most: u32) -> Result<Self, GpuError> {
        match Gpu::count()?.min(most) {
            0 | 1 => Ok(Box::new(Gpu::open(0, cache)?).into()),
            count => Self::of(cache, &(0..count).collect::<Vec<_>>()),
        }
    }

    /// GPUs by their numbers among those that this process sees, joined even if that is one only: what NCCL does can be
    /// tried with one.
    pub fn of(cache: &Path, ordinals: &[u32]) -> Result<Self, GpuError> {
        let gpus: Vec<Gpu> = ordinals.iter().map(|ordinal| Gpu::open(*ordinal, cache)).collect::<Result<_, _>>()?;
        let collective = Nccl::join(&gpus)?;
        let devices = gpus.into_iter().map(|gpu| Box::new(gpu) as Box<dyn Device>).collect();
        Ok(Self { collective: Some(Box::new(collective)), devices })
    }
}
