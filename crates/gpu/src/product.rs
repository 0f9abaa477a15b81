//! A matrix product as data. All matrices are row-major.

use crate::device::Address;

/// How numbers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    F32,
    Bf16,
}

impl Kind {
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A matrix in memory. Elements of a row are neighbours; rows are `stride` elements apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrix {
    pub address: Address,
    pub stride: u64,
    pub kind: Kind,
    /// Whether the product reads its transpose.
    pub turned: bool,
}

impl Matrix {
    pub fn new(address: Address, stride: usize, kind: Kind) -> Self {
        Self { address, stride: stride as u64, kind, turned: false }
    }

    pub fn turned(self) -> Self {
        Self { turned: !self.turned, ..self }
    }
}

/// `to [m, n] = left [m, k] right [k, n]`, plus `onto` where there is one; sums in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    pub m: u64,
    pub n: u64,
    pub k: u64,
    pub left: Matrix,
    pub right: Matrix,
    pub to: Matrix,
    /// Address of a matrix of the shape, stride and kind of `to`; may be `to` itself.
    pub onto: Option<Address>,
    /// Whether f32 operands keep all their bits; else the device may read 10 bits of mantissa (TF32).
    pub exact: bool,
}
