//! How a plan is laid over the cores of a machine.

use super::*;
use crate::plan::Capability;
use crate::run::{EngineKind, Precision};

fn on_cpu(text: &str) -> Plan {
    let spec = parse("sweep.toml", text, &[]).unwrap_or_else(|error| panic!("{error}"));
    let manifests: Vec<Manifest> = spec.corpora().unwrap().iter().map(|s| manifest(&s.corpus, 16 << 20)).collect();
    let cpu = Capability { engine: EngineKind::Cpu, precisions: vec![Precision::F32], moe: true };
    let capabilities = Capabilities { engines: vec![cpu] };
    let (known, files) = (&|_| false, BTreeMap::new());
    plan(&spec, &Inputs { manifests: &manifests, probe: None, known, capabilities: &capabilities, files: &files })
        .unwrap()
}

fn sweep(axes: &str, batch: u32) -> String {
    format!("schema = 1\nname = 'p'\n[axes]\n{axes}\n[model]\nparams = '20k'\n[train]\nbatch = {batch}\n")
}

#[test]
fn one_run_gets_all_cores_and_many_get_one_each() {
    let one = on_cpu(&sweep("tokens = ['1M']", 8));
    assert_eq!([1, 2, 4, 8].map(|cores| one.threads_per_run(cores)), [1, 2, 4, 8]);
    let many = on_cpu(&sweep("tokens = ['1M']\nseed = [1, 2, 3, 4, 5, 6, 7, 8]", 8));
    assert_eq!([1, 2, 4, 8].map(|cores| many.threads_per_run(cores)), [1; 4]);
}

#[test]
fn a_long_run_among_short_ones_is_spread_and_a_small_batch_is_not() {
    let axes = "tokens = ['0.1M', '0.11M', '4M']";
    assert_eq!(on_cpu(&sweep(axes, 8)).threads_per_run(2), 2);
    assert_eq!(on_cpu(&sweep(axes, 1)).threads_per_run(2), 1, "a sequence is not split");
    let quickstart = include_str!("../../../../../sweeps/quickstart.toml");
    assert_eq!(on_cpu(quickstart).threads_per_run(2), 1);
}

#[test]
fn what_is_known_already_takes_no_time() {
    let mut plan = on_cpu(&sweep("tokens = ['1M']\nseed = [1, 2, 3, 4]", 8));
    plan.runs[1..].iter_mut().for_each(|planned| planned.action = Action::Reuse);
    assert_eq!(plan.threads_per_run(4), 4);
}
