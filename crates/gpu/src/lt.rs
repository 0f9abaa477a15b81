//! Matrix products by cuBLASLt: one description and one algorithm for each shape, found once.
//!
//! The library counts by columns, so a row-major product is asked for transposed: `to^T = right^T left^T`. Only
//! algorithms with a fixed order of sums are taken, so that the same inputs give the same bits.

use std::collections::HashMap;
use std::ffi::c_void;

use cudarc::cublaslt::{result, sys};
use cudarc::driver::sys::CUstream;

use crate::device::{Address, GpuError};
use crate::product::{Kind, Matrix, Product};

/// Room for partial sums; what the library's manual asks for on Hopper.
pub(crate) const WORKSPACE_BYTES: u64 = 32 << 20;

pub(crate) struct Lt {
    handle: sys::cublasLtHandle_t,
    workspace: Address,
    plans: HashMap<Shape, Plan>,
}

/// What an algorithm is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    extent: [u64; 3],
    left: Side,
    right: Side,
    to: Side,
    adds: bool,
    exact: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Side {
    stride: u64,
    kind: Kind,
    turned: bool,
    /// Bytes that every row starts on.
    alignment: u32,
}

impl Side {
    fn of(matrix: Matrix) -> Self {
        let Matrix { address, stride, kind, turned } = matrix;
        Self { stride, kind, turned, alignment: alignment(address | (stride * kind.bytes())) }
    }
}

/// The largest power of two up to 256 that divides it.
fn alignment(bytes: u64) -> u32 {
    1 << bytes.trailing_zeros().min(8)
}

/// Its handles are never given back: they are few, some for each shape of each engine.
#[derive(Clone, Copy)]
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    left: sys::cublasLtMatrixLayout_t,
    right: sys::cublasLtMatrixLayout_t,
    to: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

fn failed(what: &'static str) -> impl Fn(result::CublasError) -> GpuError {
    move |error| GpuError::Driver { what: what.to_owned(), code: format!("{:?}", error.0) }
}

impl Lt {
    pub(crate) fn new(workspace: Address) -> Result<Self, GpuError> {
        let handle = result::create_handle().map_err(failed("cublasLtCreate"))?;
        Ok(Self { handle, workspace, plans: HashMap::new() })
    }

    #[expect(unsafe_code, reason = "calls into cuBLASLt")]
    pub(crate) fn end(&mut self) {
        // SAFETY: nobody uses the handle after this.
        let _ended = unsafe { result::destroy_handle(self.handle) };
    }

    /// Puts the product into the queue.
    #[expect(unsafe_code, reason = "calls into cuBLASLt")]
    pub(crate) fn multiply(&mut self, product: &Product, stream: CUstream) -> Result<(), GpuError> {
        let plan = self.plan(product)?;
        let (one, beta) = (1f32, if product.onto.is_some() { 1f32 } else { 0f32 });
        let address = |address: Address| address as *const c_void;
        let onto = product.onto.unwrap_or(product.to.address);
        // SAFETY: the plan's handles are alive and describe these matrices; the scalars are read before it returns.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const one).cast(),
                (&raw const beta).cast(),
                address(product.right.address),
                plan.right,
                address(product.left.address),
                plan.left,
                address(onto),
                plan.to,
                product.to.address as *mut c_void,
                plan.to,
                &raw const plan.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE_BYTES as usize,
                stream.cast(),
            )
        }
        .map_err(failed("cublasLtMatmul"))
    }

    fn plan(&mut self, product: &Product) -> Result<Plan, GpuError> {
        let mut to = Side::of(product.to);
        to.alignment = to.alignment.min(alignment(product.onto.unwrap_or(product.to.address)));
        let shape = Shape {
            extent: [product.m, product.n, product.k],
            left: Side::of(product.left),
            right: Side::of(product.right),
            to,
            adds: product.onto.is_some(),
            exact: product.exact,
        };
        if let Some(plan) = self.plans.get(&shape) {
            return Ok(*plan);
        }
        let plan = describe(self.handle, &shape)?;
        self.plans.insert(shape, plan);
        Ok(plan)
    }
}

fn data_type(kind: Kind) -> sys::cudaDataType {
    match kind {
        Kind::F32 => sys::cudaDataType::CUDA_R_32F,
        Kind::Bf16 => sys::cudaDataType::CUDA_R_16BF,
    }
}

/// A row-major `[rows, columns]` is the library's `[columns, rows]`; what is turned is stored the other way round.
fn layout(side: Side, rows: u64, columns: u64) -> Result<sys::cublasLtMatrixLayout_t, GpuError> {
    let (rows, columns) = if side.turned { (columns, rows) } else { (rows, columns) };
    result::create_matrix_layout(data_type(side.kind), columns, rows, side.stride as i64)
        .map_err(failed("cublasLtMatrixLayoutCreate"))
}

fn describe(handle: sys::cublasLtHandle_t, shape: &Shape) -> Result<Plan, GpuError> {
    use sys::cublasComputeType_t as Compute;
    use sys::cublasLtMatmulDescAttributes_t as Attribute;
    let [m, n, k] = shape.extent;
    let compute = if shape.left.kind == Kind::F32 && !shape.exact {
        Compute::CUBLAS_COMPUTE_32F_FAST_TF32
    } else {
        Compute::CUBLAS_COMPUTE_32F
    };
    let description = result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F)
        .map_err(failed("cublasLtMatmulDescCreate"))?;
    // The library's first operand is our right one.
    for (attribute, side) in
        [(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, shape.right), (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, shape.left)]
    {
        set_operation(description, attribute, side.turned)?;
    }
    let left = layout(shape.left, m, k)?;
    let right = layout(shape.right, k, n)?;
    let to = layout(shape.to, m, n)?;
    let algorithm = choose(handle, shape, description, [right, left, to])?;
    Ok(Plan { description, left, right, to, algorithm })
}

#[expect(unsafe_code, reason = "calls into cuBLASLt")]
fn set_operation(
    description: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    turned: bool,
) -> Result<(), GpuError> {
    // CUBLAS_OP_N and CUBLAS_OP_T.
    let operation = i32::from(turned);
    // SAFETY: the attribute is a 32-bit number, read before it returns.
    unsafe { result::set_matmul_desc_attribute(description, attribute, (&raw const operation).cast(), 4) }
        .map_err(failed("cublasLtMatmulDescSetAttribute"))
}

/// The library's first choice among algorithms that do not add in an order that changes: with partial sums in f32, or, where
/// it has none such, in the result's kind. Never `INPLACE`, which adds by atomics.
fn choose(
    handle: sys::cublasLtHandle_t,
    shape: &Shape,
    description: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
) -> Result<sys::cublasLtMatmulAlgo_t, GpuError> {
    use sys::cublasLtReductionScheme_t as Scheme;
    let exact = Scheme::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
    let any = exact | Scheme::CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE as u32;
    let ask = |schemes| first(handle, shape, description, layouts, schemes);
    ask(exact).or_else(|_| ask(any))
}

/// The library's first choice among algorithms with these reduction schemes.
#[expect(unsafe_code, reason = "calls into cuBLASLt")]
fn first(
    handle: sys::cublasLtHandle_t,
    shape: &Shape,
    description: sys::cublasLtMatmulDesc_t,
    [a, b, d]: [sys::cublasLtMatrixLayout_t; 3],
    schemes: u32,
) -> Result<sys::cublasLtMatmulAlgo_t, GpuError> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let preference = result::create_matmul_pref().map_err(failed("cublasLtMatmulPreferenceCreate"))?;
    let workspace = WORKSPACE_BYTES as usize;
    let numbers = [
        (Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.right.alignment),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.left.alignment),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.to.alignment),
        (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.to.alignment),
    ];
    // SAFETY: each attribute is read before the call returns, at its length; the handles are alive.
    let found = unsafe {
        let set = |attribute, value: *const c_void, len| {
            result::set_matmul_pref_attribute(preference, attribute, value, len)
                .map_err(failed("cublasLtMatmulPreferenceSetAttribute"))
        };
        set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, (&raw const workspace).cast(), size_of::<usize>())?;
        for (attribute, value) in numbers {
            set(attribute, (&raw const value).cast(), size_of::<u32>())?;
        }
        let found = result::get_matmul_algo_heuristic(handle, description, a, b, d, d, preference);
        let _ended = result::destroy_matmul_pref(preference);
        found
    };
    found.map(|found| found.algo).map_err(|error| GpuError::NoProduct(format!("{shape:?}: {:?}", error.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_is_what_address_and_rows_share() {
        assert_eq!([alignment(0), alignment(512), alignment(48), alignment(6)], [256, 256, 16, 2]);
        let side = Side::of(Matrix::new(4096, 12, Kind::Bf16));
        assert_eq!(side.alignment, 8);
    }
}
