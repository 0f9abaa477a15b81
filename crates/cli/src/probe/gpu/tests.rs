//! Measuring with processes that answer what was planted; what a real GPU answers is not seen here.

use std::path::Path;

use super::super::kept::GpuHost;
use super::*;
use crate::mps::Prospect;
use crate::plan::sample;

/// Answers as a process on a GPU would. A run alone is twice as fast as one in company; every run takes 1 MiB for its block
/// and 500,000,000 bytes beside it; a model of eight layers breaks the process.
const PLANTED: &str = r#"
printf '%s\n' '{"answer":"ready"}'
while read -r line; do
    case "$line" in
    *'"order":"open"'*'"layers":8,'*) echo 'the GPU fell off the bus' >&2; exit 3 ;;
    *'"order":"open"'*)
        echo open >>"$OPENED"
        echo '{"answer":"opened","corpus_seconds":0.25,"seconds":3.0,"step_tokens":1000,"point_tokens":4000,"block_bytes":1048576}' ;;
    *train*) if [ "$(wc -l <"$OPENED")" = 1 ]; then s=1.0; else s=2.0; fi
        echo '{"answer":"paced","tokens":2000,"seconds":'$s'}' ;;
    *evaluate*) echo '{"answer":"paced","tokens":8000,"seconds":1.0}' ;;
    *save*) echo '{"answer":"saved","seconds":0.125}' ;;
    *look*) echo '{"answer":"free","bytes":'$((10000000000 - 501048576 * $(wc -l <"$OPENED")))'}' ;;
    *) echo '{"answer":"closed"}' ;;
    esac
done
"#;

fn planned(dir: &Path, axes: &str) -> Plan {
    let toml = format!(
        "schema = 1\nname = 'g'\n[corpus]\nsource = 'synthetic'\nbytes = '300kB'\n[model]\ncontext = 64\n\
         [axes]\ntokens = ['60k']\n{axes}\n[train]\nengine = 'cuda'\nprecision = 'bf16'\nbatch = 8\n"
    );
    sample::planned(dir, &toml)
}

fn nothing() -> Gpu {
    let [gpu, driver, nvrtc, code_version] = ["H200", "570.86", "13.0", "1"].map(str::to_owned);
    Gpu::bare(GpuHost { gpu, driver, nvrtc, beside: 4, mps: Prospect::Off, code_version }, false)
}

fn measured(dir: &Path, plan: &Plan, free_bytes: u64, gpu: &mut Gpu) -> bool {
    let command = || {
        let mut command = Command::new("sh");
        command.args(["-c", PLANTED]).env("OPENED", dir.join("opened"));
        command
    };
    let bench = Bench {
        command: &command,
        beside: 4,
        free_bytes,
        corpora: dir.join("corpora"),
        kernels: dir.join("kernels"),
        scratch: dir.join("scratch"),
    };
    measure(&missing(plan, gpu), &bench, gpu)
}

#[test]
fn a_shape_is_timed_alone_and_in_company_and_its_memory_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let plan = planned(dir.path(), "params = ['20k']\nseed = [1, 2]");
    let mut gpu = nothing();
    assert!(measured(dir.path(), &plan, 10 << 30, &mut gpu));
    let [shape] = &gpu.shapes[..] else { panic!("two seeds are one shape: {:?}", gpu.shapes) };
    assert_eq!(shape.alone, GpuSpeed { trained: 2000.0, evaluated: 8000.0 });
    assert_eq!(shape.beside, GpuSpeed { trained: 1000.0, evaluated: 8000.0 });
    // Of three seconds, half a second was the step and half a second the point.
    assert_eq!((shape.start_seconds, shape.checkpoint_seconds, shape.block_bytes), (2.0, 0.125, 1 << 20));
    assert_eq!(gpu.process_bytes, Some(500_000_000));
    assert!(gpu.process_seconds >= 0.25);
    let opened = || std::fs::read_to_string(dir.path().join("opened")).unwrap().lines().count();
    assert_eq!(opened(), 4);
    assert!(!measured(dir.path(), &plan, 10 << 30, &mut gpu), "it is known");
    assert_eq!(opened(), 4);
}

#[test]
fn a_client_of_mps_gets_more_than_it_was_seen_to_take() {
    let dir = tempfile::tempdir().unwrap();
    let plan = planned(dir.path(), "params = ['20k']\nseed = [1]");
    let mut gpu = Gpu { through_mps: true, ..nothing() };
    assert!(measured(dir.path(), &plan, 10 << 30, &mut gpu));
    assert_eq!(gpu.process_bytes, Some(500_000_000 + CLIENT_SPARE));
}

#[test]
fn where_memory_is_short_fewer_run_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let plan = planned(dir.path(), "params = ['20k']\nseed = [1]");
    let mut gpu = nothing();
    assert!(measured(dir.path(), &plan, plan.runs[0].memory_bytes * 3 / 2, &mut gpu));
    let shape = &gpu.shapes[0];
    assert_eq!((shape.alone, gpu.process_bytes), (shape.beside, None), "alone in every way");
    assert_eq!(shape.start_seconds, 2.0);
}

#[test]
fn a_gpu_with_memory_for_two_runs_says_how_four_would_go() {
    let speed = |trained| GpuSpeed { trained, evaluated: 1.0 };
    let found = in_company(speed(100.0), speed(50.0), 2.0, 4.0);
    assert!((found.trained - 25.0).abs() < 1e-9 && (found.evaluated - 1.0).abs() < 1e-9, "{found:?}");
    let same = in_company(speed(100.0), speed(50.0), 4.0, 4.0);
    assert!((same.trained - 50.0).abs() < 1e-9, "{same:?}");
}

#[test]
fn a_process_that_breaks_costs_one_measurement() {
    let dir = tempfile::tempdir().unwrap();
    let plan = planned(dir.path(), "params = ['20k']\nlayers = [2, 8, 3]");
    let mut gpu = nothing();
    assert!(measured(dir.path(), &plan, 10 << 30, &mut gpu));
    let layers: BTreeSet<u32> = gpu.shapes.iter().map(|shape| shape.model.layers).collect();
    assert_eq!(layers.into_iter().collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn why_a_process_broke_is_told() {
    let sh = |script: &str| {
        let script = script.to_owned();
        let command = move || {
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            command
        };
        Crew::start(&command, 2).err().unwrap_or_default()
    };
    assert_eq!(sh("echo 'no driver' >&2; sleep 0.2; exit 3"), "exit status: 3: no driver");
    assert_eq!(sh("echo nonsense"), "no answer: nonsense");
    assert_eq!(sh(r#"echo '{"answer":"failed","reason":"no room"}'"#), "no room");
    assert!(Crew::start(&|| Command::new("/no/such/program"), 1).is_err_and(|why| why.contains("cannot start")));
}

#[test]
fn of_many_shapes_a_spread_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let plan = planned(dir.path(), "batch = [1, 2, 4, 8, 16]\nparams = ['20k', '40k', '80k', '160k']");
    let wanted = wanted(&plan);
    assert_eq!(wanted.len(), SHAPES_MOST);
    let sizes: BTreeSet<u64> = wanted.iter().map(|planned| planned.params.total.get()).collect();
    assert_eq!(sizes.len(), 4, "from the smallest to the largest");
}

#[test]
fn what_another_program_took_meanwhile_is_no_context() {
    assert_eq!(process(Some(10 << 30), Some(7 << 30), 3, 1 << 29), Some(1 << 29));
    assert_eq!(process(Some(10 << 30), Some(7 << 30), 3, 1 << 30), None);
    assert_eq!(process(Some(90 << 30), Some(7 << 30), 3, 1 << 29), None);
    assert_eq!(process(Some(7 << 30), Some(10 << 30), 3, 1), None);
    assert_eq!(process(Some(7 << 30), Some(7 << 30), 0, 1), None);
    assert_eq!(process(None, Some(1), 1, 1), None);
}
