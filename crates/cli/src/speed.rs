//! `bench`: how fast this machine trains the named shapes. The measuring is the `train` crate's.

use std::time::Duration;

use isoloss_sweep::count::si;
use isoloss_sweep::run::{EngineKind, Precision};
use isoloss_train::bench::{self, Report, Row, SCHEMA_VERSION, Setting};

use crate::args::{BenchArgs, BenchEngine, BenchPrecision, Format, Place};
use crate::exit::{Done, Exit};
use crate::print;
use crate::table::Table;

pub(crate) fn run(place: &Place, args: &BenchArgs) -> Done {
    let all = bench::shapes();
    for name in &args.shape {
        if !all.iter().any(|shape| shape.name == name) {
            let names: Vec<&str> = all.iter().map(|shape| shape.name).collect();
            return Err(Exit::usage(format!("--shape: expected one of {}, got {name:?}", names.join(", "))));
        }
    }
    let engine = match args.engine {
        BenchEngine::Cpu => EngineKind::Cpu,
        BenchEngine::Reference => EngineKind::Reference,
    };
    let time = Duration::try_from_secs_f64(args.seconds).map_err(|e| Exit::usage(format!("--seconds: {e}")))?;
    if place.format() == Format::Csv {
        return Err(Exit::usage("bench is a table or JSON"));
    }
    let machine = bench::machine();
    let mut rows = Vec::new();
    for shape in all.iter().filter(|shape| args.shape.is_empty() || args.shape.iter().any(|name| name == shape.name)) {
        for precision in &args.precision {
            let precision = match precision {
                BenchPrecision::F32 => Precision::F32,
                BenchPrecision::Bf16 => Precision::Bf16,
            };
            let setting = Setting { engine, precision, threads: args.threads.max(1), time };
            print::note(&format!("measuring {} in {}", shape.name, precision.name()));
            rows.push(bench::measure(shape, setting, &machine).map_err(Exit::failure)?);
        }
    }
    let report = Report { schema_version: SCHEMA_VERSION, machine, rows };
    match place.format() {
        Format::Json => print::json(&report),
        Format::Csv | Format::Table => {
            print::text_block(&table(&report));
            Ok(())
        }
    }
}

fn table(report: &Report) -> String {
    let machine = &report.machine;
    let mut table = Table::new(&[
        "shape",
        "engine",
        "precision",
        "threads",
        "tokens/s",
        "tokens/cpu-s",
        "GFLOP/s",
        "of f32 peak",
        "memory",
    ]);
    for row in &report.rows {
        table.row(cells(row));
    }
    format!(
        "{}, {} cores, {}, {:.0} GFLOP/s FMA peak a core\n{}",
        machine.cpu,
        machine.cores,
        machine.vector,
        machine.fma_peak_gflops_per_core,
        table.render()
    )
}

fn cells(row: &Row) -> Vec<String> {
    vec![
        row.shape.clone(),
        row.engine.to_owned(),
        row.precision.name().to_owned(),
        row.threads.to_string(),
        si(row.tokens_per_second),
        row.tokens_per_cpu_second.map_or("-".to_owned(), si),
        format!("{:.1}", row.gflops),
        format!("{:.0}%", row.peak_share * 100.0),
        format!("{} MiB", row.memory_bytes >> 20),
    ]
}
