//! `gpu-check`: the cuda engine on this machine's first GPU, held to the CPU engine. The checks are the `train` crate's.

use isoloss_train::check::{Check, check, joined};
use isoloss_train::cuda::{Library, on_first_gpu, on_joined_gpus};

use crate::args::Place;
use crate::exit::{Done, Exit};
use crate::place::{DataDir, kernels};
use crate::table::Table;
use crate::{gpus, print};

pub(crate) fn run(place: &Place) -> Done {
    let cards = gpus::offered().map_err(|why| Exit::failure(format!("gpu-check: {why}")))?;
    print::note(&format!("checking the cuda engine on {}", cards[0].name));
    let kernels = kernels(DataDir::of(place)?.root());
    let mut checks = Vec::new();
    let mut tell = |check: Check| {
        print::note(&format!("{} {}", mark(&check), check.what));
        checks.push(check);
    };
    let mut alone = on_first_gpu(&kernels);
    check(&mut |model, precision, batch| Ok(Box::new(alone(model, precision, batch)?)), &mut tell);
    // NCCL is for runs on several GPUs; without it one GPU is checked all the same.
    if Library::Nccl.path().is_some() {
        joined(&mut on_joined_gpus(&kernels), &mut alone, &mut tell);
    } else {
        print::note(&format!("NCCL is not found, runs on several GPUs are not checked: {}", Library::Nccl.hint()));
    }
    let mut table = Table::new(&["check", "found", "allowed", "verdict"]);
    for check in &checks {
        let found = check.found.as_ref().map_or_else(Clone::clone, |found| format!("{found:.2e}"));
        table.row(vec![check.what.clone(), found, format!("{:.0e}", check.allowed), mark(check).to_owned()]);
    }
    print::text_block(&table.render());
    match checks.iter().filter(|check| !check.is_good()).count() {
        0 => Ok(()),
        wrong => Err(Exit::failure(format!("{wrong} of {} checks failed", checks.len()))),
    }
}

fn mark(check: &Check) -> &'static str {
    if check.is_good() { "ok" } else { "WRONG" }
}
