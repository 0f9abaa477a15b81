//! `workers`, `drain`, `undrain`: who makes the runs, and the order to leave a machine alone.

use std::collections::{BTreeMap, BTreeSet};

use isoloss_wire::api::{RestingGpu, WorkerRow};

use crate::args::{Format, Place};
use crate::exit::{Done, Exit};
use crate::print;
use crate::remote::{block_on, connect};
use crate::status::duration;
use crate::table::Table;

/// A worker that was not heard of for so long is told to be silent: it renews every few seconds.
const SILENT_SECONDS: f64 = 15.0;

/// All workers that the coordinator has heard of.
pub(crate) fn run(place: &Place) -> Done {
    let client = connect(place)?;
    block_on(async {
        let workers = client.workers().await?;
        match place.format() {
            Format::Json => print::json(&workers),
            Format::Csv => Err(Exit::usage("workers are a table or JSON")),
            Format::Table if workers.workers.is_empty() => {
                print::note(
                    "no worker has joined; `isoloss worker` starts one on any machine that reaches the coordinator",
                );
                Ok(())
            }
            Format::Table => {
                let mut table = Table::new(&["worker", "busy", "slots", "gpus", "state", "version"]);
                for row in &workers.workers {
                    let [busy, slots] = [row.busy.to_string(), row.slots.len().to_string()];
                    table.row(vec![row.worker.clone(), busy, slots, gpus(row), state(row), row.code_version.clone()]);
                }
                print::text_block(&table.without_empty("gpus").render());
                for row in &workers.workers {
                    resting(row).iter().for_each(|words| print::line(words));
                }
                Ok(())
            }
        }
    })
}

/// Keeps further runs from a worker (`drain`), or lets it have some again (`undrain`).
pub(crate) fn order(place: &Place, worker: &str, action: &str) -> Done {
    let client = connect(place)?;
    block_on(async {
        let drained = client.order_worker(worker, action).await?;
        if place.format() == Format::Json {
            return print::json(&drained);
        }
        print::note(&match (drained.draining, drained.busy) {
            (true, 0) => format!("worker {worker} makes no run and gets none until `isoloss undrain {worker}`"),
            (true, busy) => {
                format!(
                    "worker {worker} ends the {busy} run(s) that it makes, and gets no more until `isoloss undrain {worker}`"
                )
            }
            (false, _) => format!("worker {worker} gets runs"),
        });
        Ok(())
    })
}

/// What keeps runs from a worker, or how it stands.
fn state(row: &WorkerRow) -> String {
    let silent = row.silent_seconds > SILENT_SECONDS;
    match (row.held_back_seconds, row.draining, silent) {
        (_, true, _) => (if row.busy > 0 { "draining" } else { "drained" }).to_owned(),
        (_, _, true) => format!("silent for {}", duration(row.silent_seconds)),
        (Some(left), _, _) => format!("held back for {}: run after run failed there", duration(left)),
        (None, false, false) if row.resting.is_some() => {
            format!("asks for no work: {}", row.resting.as_deref().unwrap_or_default())
        }
        (None, false, false) => (if row.busy > 0 { "works" } else { "waits" }).to_owned(),
    }
}

/// How many GPUs of which kind it offers; what each is called stands in the JSON.
fn gpus(row: &WorkerRow) -> String {
    let gpus: BTreeSet<&String> = row.slots.iter().filter_map(|slot| slot.gpu.as_ref()).collect();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for gpu in gpus {
        *kinds.entry(row.gpu_names.get(gpu).unwrap_or(gpu)).or_default() += 1;
    }
    let words = |(name, count): (&str, usize)| if count == 1 { name.to_owned() } else { format!("{count} x {name}") };
    kinds.into_iter().map(words).collect::<Vec<_>>().join(", ")
}

/// Its GPUs that were not to be had when it was heard last, a line each.
fn resting(row: &WorkerRow) -> Vec<String> {
    let words = |gpu: &RestingGpu| {
        let then = match gpu.seconds {
            left if left > 0.0 => format!("rests for {}", duration(left.ceil())),
            _ => "gets one run at a time until one trains".to_owned(),
        };
        let line = format!("worker {}: {} was not to be had and {then}: {}", row.worker, gpu.gpu, gpu.reason);
        print::one_line(&line).into_owned()
    };
    let heard = row.silent_seconds <= SILENT_SECONDS;
    row.gpus_resting.iter().filter(|_| heard).map(words).collect()
}

/// What a look at the sweeps should not leave out: who gets no runs, and why.
pub(crate) fn note_idle(workers: &[WorkerRow]) {
    let is_idle = |row: &&WorkerRow| row.draining || row.held_back_seconds.is_some() || row.resting.is_some();
    for row in workers.iter().filter(is_idle) {
        print::note(&format!("worker {}: {}, {} run(s) go on there", row.worker, state(row), row.busy));
    }
    workers.iter().flat_map(resting).for_each(|words| print::note(&words));
}
