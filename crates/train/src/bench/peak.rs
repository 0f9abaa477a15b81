//! What a GPU does at most, as a large product shows it: what shares of the peak are counted against.

use std::path::Path;
use std::time::Instant;

use isoloss_gpu::{Command, Device, Gpu, GpuError, Kind, Matrix, Product};
use serde::Serialize;

/// Rows and columns of the product.
const EXTENT: u64 = 8192;
/// Products of one timing, and timings; the median counts.
const PRODUCTS: usize = 10;
const TIMINGS: usize = 9;

/// A GPU and its rate.
#[derive(Debug, Clone, Serialize)]
pub struct Peak {
    pub gpu: String,
    /// FLOP/s of a bf16 product of 8192 x 8192 x 8192 with sums in f32.
    pub bf16_flops_per_second: f64,
}

/// Of the GPU of this number among those that the process sees.
pub fn gpu_peak(ordinal: u32, kernels: &Path) -> Result<Peak, GpuError> {
    let mut gpu = Gpu::open(ordinal, kernels)?;
    let bf16_flops_per_second = product_rate(&mut gpu, EXTENT)?;
    Ok(Peak { gpu: gpu.name(), bf16_flops_per_second })
}

/// FLOP/s of a square bf16 product on the device.
fn product_rate(device: &mut dyn Device, extent: u64) -> Result<f64, GpuError> {
    let bytes = extent * extent * Kind::Bf16.bytes();
    let mut matrix = || device.allocate("a large product", bytes);
    let addresses = [matrix()?, matrix()?, matrix()?];
    // A GPU draws less power, and runs faster, on zeros than on what a model holds.
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Sign and mantissa at random, of magnitude 0.5 to 1.
        ((seed >> 48) as u16 & 0x807f) | 0x3f00
    };
    for address in &addresses[..2] {
        let values: Vec<u16> = (0..extent * extent).map(|_| random()).collect();
        device.write(*address, bytemuck::cast_slice(&values))?;
    }
    let [left, right, to] = addresses.map(|address| Matrix::new(address, extent as usize, Kind::Bf16));
    let product = Product { m: extent, n: extent, k: extent, left, right, to, onto: None, exact: false };
    let commands = vec![Command::Product(product); PRODUCTS];
    let mut seconds = Vec::with_capacity(TIMINGS);
    for _ in 0..=TIMINGS {
        let start = Instant::now();
        device.run(&commands)?;
        // The read waits for all before it.
        device.read(addresses[2], &mut [0; 2])?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    // The first one finds its algorithm.
    let mut seconds = seconds.split_off(1);
    seconds.sort_by(f64::total_cmp);
    let flops = 2.0 * (extent as f64).powi(3) * PRODUCTS as f64;
    Ok(flops / seconds[TIMINGS / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_measured_on_any_device() {
        let cache = tempfile::tempdir().unwrap();
        match isoloss_gpu::Emulated::new(cache.path(), 1 << 20, 1) {
            Ok(mut device) => {
                let rate = product_rate(&mut device, 32).unwrap();
                assert!(rate.is_finite() && rate > 0.0);
                assert!(matches!(product_rate(&mut device, 4096), Err(GpuError::OutOfMemory { .. })));
            }
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}
