//! Seconds, hours and memory of runs on GPUs, from speeds that were planted.

use super::*;
use crate::model::Experts;
use crate::plan::gpu_speed::Span;
use crate::plan::sharing::{Job, makespan};

const SWEEP: &str = "schema = 1\nname = 'g'\n[model]\nparams = '1M'\ncontext = 64\n[axes]\ntokens = ['4M', '8M']\n\
                     [train]\nengine = 'cuda'\nprecision = 'bf16'\nbatch = 16\n";

fn on_gpus(text: &str, gpus: Option<Gpus>) -> Plan {
    asked(text, gpus).unwrap()
}

fn asked(text: &str, gpus: Option<Gpus>) -> Result<Plan, PlanError> {
    let spec = parse("sweep.toml", text, &[]).unwrap_or_else(|error| panic!("{error}"));
    let manifests: Vec<Manifest> = spec.corpora().unwrap().iter().map(|s| manifest(&s.corpus, 16 << 20)).collect();
    let engine = |engine| Capability { engine, precisions: vec![Precision::F32, Precision::Bf16], moe: true };
    let capabilities = Capabilities { engines: vec![engine(EngineKind::Cpu), engine(EngineKind::Cuda)] };
    let cpu = Rate {
        engine: EngineKind::Cpu,
        precision: Precision::Bf16,
        moe: false,
        flops_per_token: 1e6,
        tokens_per_second: 1e4,
    };
    let probe = Probe { slots: 2, rates: vec![cpu], gpus };
    let (known, files) = (&|_| false, BTreeMap::new());
    let inputs =
        Inputs { manifests: &manifests, probe: Some(&probe), known, capabilities: &capabilities, files: &files };
    plan(&spec, &inputs)
}

#[test]
fn what_no_gpu_run_could_do_is_refused_at_its_line() {
    let shape = |model: &str| SWEEP.replace("params = '1M'", model);
    let experts = |experts: u32, top_k: u32| {
        shape(&format!("params = '1M'\nfamily = 'moe'\nexperts = {experts}\ntop_k = {top_k}\nexpert_ff = 8"))
    };
    for (text, line, word) in [
        (shape("width = 512\nlayers = 1\nheads = 1"), 6, "these are 512"),
        (experts(600, 2), 6, "512 at most"),
        (experts(64, 32), 7, "16 at most"),
        (format!("{SWEEP}[resources]\nthreads = 1\nmemory = '10kB'\n"), 14, "MB at least"),
    ] {
        let error = asked(&text, None).unwrap_err();
        assert_eq!(error.diagnostic.line, line, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        // A processor takes them all, and a command is not ours to judge.
        assert!(asked(&text.replace("'cuda'", "'cpu'"), None).is_ok(), "{text}");
    }
    let enough = on_gpus(&format!("{SWEEP}[resources]\nmemory = '2GiB'\n"), None);
    assert_eq!(enough.runs[0].memory_bytes, 2 << 30);
}

/// Nothing measured yet.
fn gpus(cards: u32, beside: u32) -> Gpus {
    let memory_bytes = 80 << 30;
    Gpus { cards, beside, memory_bytes, process_bytes: None, process_seconds: 0.0, shapes: Vec::new() }
}

/// A shape that trains a million tokens a second alone, and half of it in company.
fn shape(run: &Run) -> GpuShape {
    GpuShape {
        model: run.model.clone(),
        precision: run.numerics.precision,
        batch: run.train.batch,
        alone: GpuSpeed { trained: 1e6, evaluated: 1e7 },
        beside: GpuSpeed { trained: 5e5, evaluated: 5e6 },
        start_seconds: 2.0,
        checkpoint_seconds: 0.5,
        block_bytes: 1 << 20,
    }
}

fn close(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-9, "{found}, expected {expected}");
}

#[test]
fn a_measured_shape_gives_its_own_speed_and_what_a_run_costs_beside_it() {
    let bare = on_gpus(SWEEP, None);
    assert_eq!((bare.totals.seconds, bare.totals.gpu_hours, bare.runs[0].seconds), (None, None, None));
    let run = &bare.runs[0].run;
    // A neighbour ten times as fast must not count.
    let mut other = shape(run);
    other.model.layers += 1;
    other.alone.trained = 1e8;
    let known = Gpus { shapes: vec![other, shape(run)], ..gpus(1, 4) };
    let one = SWEEP.replace("'4M', '8M'", "'4M'");
    let plan = on_gpus(&one, Some(known.clone()));
    let (tokens, evaluated) = (run.tokens().as_f64(), evaluated_tokens(run, &manifest_of(&one), 0, run.train.steps));
    assert!(evaluated > 2.0 * 262_144.0);
    close(plan.runs[0].seconds.unwrap(), 2.0 + 0.5 + tokens / 1e6 + evaluated / 1e7);
    close(plan.totals.seconds.unwrap(), plan.runs[0].seconds.unwrap());
    close(plan.totals.gpu_hours.unwrap(), plan.runs[0].seconds.unwrap() / 3600.0);
    // A run of ten minutes writes nine more checkpoints on its way, and weights of losses make no other shape.
    let long = SWEEP.replace("'4M', '8M'", "'600M'");
    let plan = on_gpus(&long, Some(known));
    let run = &plan.runs[0].run;
    let evaluated = evaluated_tokens(run, &manifest_of(&long), 0, run.train.steps);
    let expected = 2.0 + 11.0 * 0.5 + run.tokens().as_f64() / 1e6 + evaluated / 1e7;
    close(plan.runs[0].seconds.unwrap(), expected);
}

fn manifest_of(text: &str) -> Manifest {
    let spec = parse("sweep.toml", text, &[]).unwrap();
    manifest(&spec.corpora().unwrap()[0].corpus, 16 << 20)
}

#[test]
fn the_weights_of_losses_make_no_other_shape_and_the_batch_does() {
    let text = SWEEP.replace("params = '1M'", "params = '1M'\nfamily = 'moe'\nexperts = 8\ntop_k = 2");
    let run = on_gpus(&text, None).runs[0].run.clone();
    let known = Gpus { shapes: vec![shape(&run)], ..gpus(1, 4) };
    let mut model = run.model.clone();
    model.experts.as_mut().unwrap().aux_loss_coef = 0.5;
    assert!(known.measured(&model, Precision::Bf16, 16).is_some());
    model.experts.as_mut().unwrap().top_k = 1;
    assert!(known.measured(&model, Precision::Bf16, 16).is_none());
    assert!(known.measured(&run.model, Precision::Bf16, 8).is_none());
    assert!(known.measured(&run.model, Precision::F32, 16).is_none());
}

#[test]
fn what_was_not_measured_lies_between_its_neighbours_of_the_same_family() {
    let sizes = SWEEP.replace("params = '1M'\n", "").replace("tokens", "params = ['250k', '1M', '4M']\ntokens");
    let plan = on_gpus(&sizes.replace("'4M', '8M'", "'4M'"), None);
    let [small, middle, large] = [0, 1, 2].map(|at| &plan.runs[at].run);
    let cost = |run: &Run| run.model.flop_terms().training();
    let rated = |run: &Run, flops: f64| {
        let speed = GpuSpeed { trained: flops / cost(run), evaluated: 1e30 };
        GpuShape { alone: speed, beside: speed, start_seconds: 0.0, checkpoint_seconds: 0.0, ..shape(run) }
    };
    let mut moe = rated(middle, 1e20);
    moe.model.experts = Some(Experts {
        count: 2,
        top_k: 1,
        ff: 64,
        shared_ff: 0,
        aux_loss_coef: 0.0,
        router_z_loss_coef: 0.0,
        bias_update: 0.0,
        capacity_factor: None,
    });
    let shapes = vec![rated(large, 4e12), moe, rated(small, 1e12)];
    let known = Gpus { shapes, ..gpus(1, 1) };
    let found = on_gpus(&sizes.replace("'4M', '8M'", "'4M'"), Some(known)).runs[1].seconds.unwrap();
    let share = (cost(middle) / cost(small)).ln() / (cost(large) / cost(small)).ln();
    close(found, middle.flops().get() / (1e12 * 4f64.powf(share)));
}

#[test]
fn runs_that_share_a_gpu_slow_each_other_and_count_for_a_part_of_it() {
    let text = format!("{}seed = [1, 2]\n", SWEEP.replace("tokens = ['4M', '8M']", "tokens = ['4M']\n"));
    let text = text.replace("[train]", "[replicates]\nseeds = 4\n[train]").replace("seed = [1, 2]\n", "");
    let run = on_gpus(&text, None).runs[0].run.clone();
    let one = |gpus: Gpus| {
        let plan = on_gpus(&text, Some(Gpus { shapes: vec![shape(&run)], ..gpus }));
        assert_eq!(plan.runs.len(), 4);
        (plan.runs[0].seconds.unwrap(), plan.totals.seconds.unwrap(), plan.totals.gpu_hours.unwrap() * 3600.0)
    };
    let (alone, in_turn, hours) = one(gpus(1, 1));
    close(in_turn, 4.0 * alone);
    close(hours, 4.0 * alone);
    let (shared, whole, hours) = one(gpus(1, 4));
    assert!(shared > 1.5 * alone && shared < 2.0 * alone, "{shared} {alone}");
    close(whole, shared);
    close(hours, shared);
    // With a GPU for each run nobody has company, whatever might share one.
    let (each, whole, hours) = one(gpus(4, 4));
    close(each, alone);
    close(whole, alone);
    close(hours, 4.0 * alone);
}

#[test]
fn a_plan_ends_when_both_its_gpus_and_its_cores_have_ended() {
    let run = on_gpus(SWEEP, None).runs[0].run.clone();
    let arms = format!("{SWEEP}[[arm]]\nname = 'gpu'\n[[arm]]\nname = 'cpu'\ntrain.engine = 'cpu'\n");
    let on = |shape| on_gpus(&arms, Some(Gpus { shapes: vec![shape], ..gpus(1, 4) }));
    let of = |plan: &Plan, arm: &str| -> Vec<f64> {
        plan.runs.iter().filter(|run| run.arm == arm).filter_map(|run| run.seconds).collect()
    };
    let plan = on(shape(&run));
    let (gpu, cpu) = (of(&plan, "gpu"), of(&plan, "cpu"));
    assert_eq!((gpu.len(), cpu.len()), (2, 2));
    // The cores are far from done when the GPU is.
    close(plan.totals.seconds.unwrap(), crate::plan::packing::best(&plan.runs, &plan.trunks, 2).1);
    assert!(plan.totals.seconds.unwrap() > 10.0 * gpu[1]);
    close(plan.totals.gpu_hours.unwrap() * 3600.0, (gpu[0] + gpu[1]) / 2.0);
    let slow = GpuSpeed { trained: 10.0, evaluated: 1e9 };
    let plan = on(GpuShape { alone: slow, beside: slow, ..shape(&run) });
    close(plan.totals.seconds.unwrap(), of(&plan, "gpu")[1]);
}

fn job(alone: f64, beside: f64) -> Job {
    Job { span: Span { alone, beside }, memory_bytes: 1 << 30, after: None }
}

#[test]
fn a_run_that_is_left_alone_goes_faster() {
    let gpus = |cards, beside| Gpus { process_seconds: 1.0, ..gpus(cards, beside) };
    assert_eq!(makespan(&[], &gpus(1, 4)), 0.0);
    close(makespan(&[job(10.0, 40.0)], &gpus(1, 4)), 11.0);
    // A GPU that is full takes turns: the sum of all, however they share it.
    let full = [job(10.0, 20.0), job(10.0, 20.0), job(5.0, 10.0)];
    close(makespan(&full, &gpus(1, 2)), 1.0 + 25.0);
    // One that is idle takes all at once.
    close(makespan(&[job(10.0, 10.0); 4], &gpus(1, 4)), 11.0);
    close(makespan(&[job(10.0, 20.0); 4], &gpus(2, 2)), 21.0);
    // Two of four are halfway between alone and in full company: 10 + (40 - 10) / 3.
    close(makespan(&[job(10.0, 40.0); 2], &gpus(1, 4)), 21.0);
}

#[test]
fn runs_wait_for_memory_and_for_their_trunk() {
    let heavy = Job { memory_bytes: 50 << 30, ..job(10.0, 10.0) };
    close(makespan(&[heavy; 2], &gpus(1, 4)), 20.0);
    close(makespan(&[heavy; 2], &gpus(2, 4)), 10.0);
    let branch = Job { after: Some(0), ..job(3.0, 3.0) };
    close(makespan(&[job(10.0, 10.0), branch, branch, job(12.0, 12.0)], &gpus(1, 4)), 13.0);
    // More than there is waits for nobody in vain.
    let giant = Job { memory_bytes: 1 << 50, ..job(1.0, 1.0) };
    close(makespan(&[giant; 2], &gpus(1, 4)), 2.0);
}

#[test]
fn memory_is_reserved_by_what_was_measured_and_never_less() {
    let bare = on_gpus(SWEEP, None);
    let run = bare.runs[0].run.clone();
    let block = bare.runs[0].memory_bytes - GPU_PROCESS_BYTES;
    let planned = |process_bytes, block_bytes| {
        let shapes = vec![GpuShape { block_bytes, ..shape(&run) }];
        let plan = on_gpus(SWEEP, Some(Gpus { process_bytes, shapes, ..gpus(1, 4) }));
        assert_eq!(plan.totals.gpu_process_bytes, process_bytes);
        assert_eq!(plan.runs[0].run_id, bare.runs[0].run_id, "identity knows no measurement");
        let json = serde_json::to_value(PlanJson::from(&plan)).unwrap();
        assert_eq!(json["runs"][0]["gpu_block_bytes"], block_bytes);
        plan.runs[0].memory_bytes
    };
    assert_eq!(planned(None, block), bare.runs[0].memory_bytes);
    assert_eq!(planned(Some(400 << 20), block / 2), (400 << 20) + block, "the formula is from above");
    assert_eq!(planned(Some(900 << 20), block + 77), (900 << 20) + block + 77);
    let json = serde_json::to_value(PlanJson::from(&bare)).unwrap();
    assert!(json["runs"][0].get("gpu_block_bytes").is_none() && json["totals"].get("gpu_process_bytes").is_none());
}

#[test]
fn what_older_programs_wrote_is_read() {
    let probe = r#"{"slots": 2, "rates": []}"#;
    assert_eq!(serde_json::from_str::<Probe>(probe).unwrap(), Probe { slots: 2, rates: Vec::new(), gpus: None });
    let cost = r#"{"seconds": 1.0, "tokens_per_second": 2.0, "peak_memory_bytes": 3}"#;
    let cost: crate::outcome::Cost = serde_json::from_str(cost).unwrap();
    assert_eq!(cost.gpu_memory_bytes, None);
    assert!(!serde_json::to_string(&cost).unwrap().contains("gpu_memory_bytes"));
}
