//! `bench`: how fast this machine trains the named shapes. The measuring is the `train` crate's.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use isoloss_sweep::count::si;
use isoloss_sweep::run::{EngineKind, Precision};
use isoloss_train::bench::{self, BenchError, Machine, Peak, Report, Row, SCHEMA_VERSION, Search, Setting, Shape};

use crate::args::{BenchArgs, BenchEngine, BenchPrecision, Format, Place};
use crate::exit::{Done, Exit};
use crate::place::DataDir;
use crate::table::Table;
use crate::{gpus, print};

pub(crate) fn run(place: &Place, args: &BenchArgs) -> Done {
    let engine = match args.engine {
        BenchEngine::Cpu => EngineKind::Cpu,
        BenchEngine::Reference => EngineKind::Reference,
        BenchEngine::Cuda => EngineKind::Cuda,
    };
    let shapes = chosen(engine, args)?;
    let time = Duration::try_from_secs_f64(args.seconds).map_err(|e| Exit::usage(format!("--seconds: {e}")))?;
    if place.format() == Format::Csv {
        return Err(Exit::usage("bench is a table or JSON"));
    }
    let machine = bench::machine();
    let (mut kernels, mut gpu, mut ordinal) = (PathBuf::new(), None, 0);
    if engine == EngineKind::Cuda {
        let cards = gpus::offered().map_err(|why| Exit::failure(format!("bench: {why}")))?;
        print::note(&format!("measuring on {}", gpus::named_whole(&cards[0])));
        ordinal = cards[0].ordinal;
        kernels = crate::place::kernels(DataDir::of(place)?.root());
        gpu = Some(bench::gpu_peak(ordinal, &kernels).map_err(Exit::failure)?);
    }
    let peak = gpu.as_ref().map(|gpu| gpu.bf16_flops_per_second);
    let mut rows = Vec::new();
    for shape in &shapes {
        for precision in &args.precision {
            let precision = match precision {
                BenchPrecision::F32 => Precision::F32,
                BenchPrecision::Bf16 => Precision::Bf16,
            };
            let (threads, kernels, meeting) = (args.threads.max(1), kernels.clone(), args.meet.clone());
            let setting = Setting { engine, precision, threads, time, kernels, gpu: ordinal, meeting };
            print::note(&format!("measuring {} in {}", shape.name, precision.name()));
            let together = args.together.into();
            let row = if gpu.is_some() && args.batch.is_none() {
                searched(shape, &setting, &machine, peak, together)
            } else {
                bench::measure_together(shape, &setting, &machine, peak, together)
            };
            rows.push(row.map_err(Exit::failure)?);
        }
    }
    let report = Report { schema_version: SCHEMA_VERSION, machine, gpu, rows };
    match place.format() {
        Format::Json => print::json(&report),
        Format::Csv | Format::Table => {
            print::text_block(&table(&report));
            Ok(())
        }
    }
}

/// The row with the best batch, for which a GPU is searched for a while: people see how far it is.
fn searched(
    shape: &Shape,
    setting: &Setting,
    machine: &Machine,
    peak: Option<f64>,
    together: usize,
) -> Result<Row, BenchError> {
    let bar = if print::is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut show = |step| {
        bar.set_message(match step {
            Search::Trying { batch, best } => {
                let best =
                    best.map(|(batch, speed)| format!(", the best so far is {batch} with {} tokens/s", si(speed)));
                format!("searching the best batch: {batch} sequences{}", best.unwrap_or_default())
            }
            Search::Chosen { batch } => format!("measuring the best batch: {batch} sequences"),
        });
    };
    let row = bench::measure_best(shape, setting, machine, peak, together, &mut show);
    bar.finish_and_clear();
    row
}

/// The shapes that are asked for, with the batch that is.
fn chosen(engine: EngineKind, args: &BenchArgs) -> Result<Vec<Shape>, Exit> {
    let mut all = bench::shapes();
    if engine == EngineKind::Cuda {
        all.extend(bench::large_shapes());
    }
    for name in &args.shape {
        if !all.iter().any(|shape| shape.name == name) {
            let names: Vec<&str> = all.iter().map(|shape| shape.name).collect();
            return Err(Exit::usage(format!("--shape: expected one of {}, got {name:?}", names.join(", "))));
        }
    }
    all.retain(|shape| args.shape.is_empty() || args.shape.iter().any(|name| name == shape.name));
    if args.meet.is_some() && (all.len(), args.precision.len()) != (1, 1) {
        return Err(Exit::usage("--meet is for one --shape in one --precision"));
    }
    if let Some(batch) = args.batch {
        all.iter_mut().for_each(|shape| shape.batch = batch.into());
    }
    Ok(all)
}

fn table(report: &Report) -> String {
    let machine = &report.machine;
    let mut table = Table::new(&[
        "shape",
        "engine",
        "precision",
        "threads",
        "models",
        "batch",
        "tokens/s",
        "tokens/cpu-s",
        "GFLOP/s",
        "of peak",
        "memory",
    ]);
    for row in &report.rows {
        table.row(cells(row));
    }
    let peak = match &report.gpu {
        None => format!("f32 peak {:.0} GFLOP/s FMA a core", machine.fma_peak_gflops_per_core),
        Some(Peak { gpu, bf16_flops_per_second: rate }) => {
            format!("{gpu}, peak {:.0} TFLOP/s in a bf16 product of 8192^3", rate / 1e12)
        }
    };
    let Machine { cpu, cores, vector, .. } = machine;
    format!("{cpu}, {cores} cores, {vector}; {peak}\n{}", table.render())
}

fn cells(row: &Row) -> Vec<String> {
    vec![
        row.shape.clone(),
        row.engine.to_owned(),
        row.precision.name().to_owned(),
        row.threads.to_string(),
        row.together.to_string(),
        row.batch.to_string(),
        si(row.tokens_per_second),
        row.tokens_per_cpu_second.map_or("-".to_owned(), si),
        format!("{:.1}", row.gflops),
        format!("{:.0}%", row.peak_share * 100.0),
        format!("{} MiB", row.memory_bytes >> 20),
    ]
}
