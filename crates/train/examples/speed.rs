//! Prints the speed of the training step: `speed [SHAPE] [THREADS] [SECONDS]`.

use std::time::Duration;

use isoloss_sweep::run::{EngineKind, Precision};
use isoloss_train::bench::{Setting, machine, measure, shapes};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |i: usize, usual: u64| arguments.get(i).map_or(Ok(usual), |text| text.parse());
    let setting = Setting {
        engine: EngineKind::Cpu,
        precision: Precision::F32,
        threads: number(2, 1)? as usize,
        time: Duration::from_secs(number(3, 3)?),
        kernels: std::path::PathBuf::new(),
        gpu: 0,
        meeting: None,
    };
    for shape in shapes() {
        if arguments.get(1).is_some_and(|name| name != shape.name && name != "all") {
            continue;
        }
        let machine = machine();
        let row = measure(&shape, &setting, &machine, None)?;
        let peak = machine.fma_peak_gflops_per_core;
        let per_cpu = row.tokens_per_cpu_second.unwrap_or(f64::NAN);
        let share = row.gflops * per_cpu / row.tokens_per_second / peak;
        println!(
            "{:8} threads {} {:8.0} tok/s {:8.0} tok/cpu-s {:6.1} GF/s peak {peak:.1} share {:.2} (cpu {share:.2}) {} MB",
            row.shape,
            row.threads,
            row.tokens_per_second,
            per_cpu,
            row.gflops,
            row.peak_share,
            row.memory_bytes >> 20,
        );
    }
    Ok(())
}
