//! `plan`: the exact runs of a sweep, by the same code path as a submission. It surveys the corpus and starts nothing.

use std::collections::BTreeSet;
use std::fs;

use isoloss_coordinator::{Planning, PlanningError, Reach, Site};
use isoloss_corpus::Stage;
use isoloss_sweep::plan::{Action, Capabilities, Capability, PlanJson, PlannedRun};
use isoloss_sweep::run::{EngineKind, Precision};
use isoloss_sweep::{Flops, Plan, RunId, Trainer, count::si};
use isoloss_wire::api::{Code as Problem, Kind, RunState, SCHEMA_VERSION, Submit};
use isoloss_wire::{Client, ClientError};

use crate::args::{Format, MpsUse, Place, SweepFile};
use crate::exit::{Code, Done, Exit};
use crate::place::DataDir;
use crate::probe::{Probed, Timing, Wish, probe};
use crate::remote::{block_on, connect};
use crate::status::duration;
use crate::table::Table;
use crate::{doctor, print, survey};

pub(crate) fn run(place: &Place, sweep: &SweepFile, probe: bool, mps: MpsUse) -> Done {
    if place.format() == Format::Csv {
        return Err(Exit::usage("a plan is a table or JSON"));
    }
    let submit = read(sweep)?;
    let data = DataDir::of(place)?;
    let stored = Stored::ask(place, &data)?;
    let wish = probe.then(|| Wish { slots: doctor::cores(), mps });
    let known = |id| stored.results.contains(&id);
    let mut estimated = estimate(&submit, &data, wish, &known, &mut |_| {})?;
    let plan = &mut estimated.planning.plan;
    if let Some(why) = &stored.nobody {
        print::note(&format!("no coordinator asked ({why}): results that are stored already are not seen"));
        for planned in plan.runs.iter_mut().filter(|planned| planned.action == Action::Run) {
            planned.why = "no coordinator asked".to_owned();
        }
    }
    if let Some(why) = &estimated.no_gpu {
        print::note(&format!("no GPU was timed here, so runs of the engine cuda have no ETA and no GPU hours: {why}"));
    }
    match place.format() {
        Format::Json => print::json(&PlanJson::from(&*plan)),
        Format::Table | Format::Csv => {
            print::text_block(&text(&estimated));
            Ok(())
        }
    }
}

/// A plan, and the speed that its seconds come from.
pub(crate) struct Estimated {
    pub(crate) planning: Planning,
    pub(crate) timing: Option<Timing>,
    /// Why no GPU was timed although runs want one and it was wished.
    pub(crate) no_gpu: Option<String>,
}

/// Plans; with a wish, once more with the speed of runs side by side on this machine. What to measure follows
/// from the first plan, and a wrong or too expensive sweep is refused before anything is measured.
pub(crate) fn estimate(
    submit: &Submit,
    data: &DataDir,
    wish: Option<Wish>,
    known: &dyn Fn(RunId) -> bool,
    progress: &mut dyn FnMut(Stage),
) -> Result<Estimated, Exit> {
    let site = Site {
        corpora_dir: data.corpora(),
        trainers_dir: data.trainers(),
        capabilities: capabilities(),
        probe: None,
        survey_memory_bytes: survey::memory_bytes(),
        reach: Reach::Everything,
    };
    let planning = isoloss_coordinator::plan(submit, &site, known, progress)?;
    let Probed { timing, no_gpu } = wish.map(|wish| probe(data, wish, &planning.plan)).unwrap_or_default();
    let Some(timed) = &timing else {
        return Ok(Estimated { planning, timing, no_gpu });
    };
    let site = Site { probe: Some(timed.probe.clone()), ..site };
    Ok(Estimated { planning: isoloss_coordinator::plan(submit, &site, known, progress)?, timing, no_gpu })
}

/// The sweep file as it is handed in: relative paths are read from the current folder.
pub(crate) fn read(sweep: &SweepFile) -> Result<Submit, Exit> {
    let toml = fs::read_to_string(&sweep.file)
        .map_err(|e| Exit::usage(format!("cannot read the sweep file {}: {e}", sweep.file.display())))?;
    submit(toml, &sweep.file.display().to_string(), &sweep.set)
}

pub(crate) fn submit(toml: String, file: &str, set: &[String]) -> Result<Submit, Exit> {
    let base = std::env::current_dir()?;
    Ok(Submit { schema_version: SCHEMA_VERSION, toml, file: file.to_owned(), set: set.to_vec(), base, hold: false })
}

/// Engines of this build, best first.
pub(crate) fn capabilities() -> Capabilities {
    let capable = |engine, precisions: &[Precision]| Capability { engine, precisions: precisions.to_vec(), moe: true };
    Capabilities {
        engines: vec![
            capable(EngineKind::Cpu, &[Precision::F32, Precision::Bf16]),
            capable(EngineKind::Reference, &[Precision::F32]),
            // Last: what `auto` means must not hang on the machine that plans, or ids would. GPUs are asked for by name.
            capable(EngineKind::Cuda, &[Precision::F32, Precision::Bf16]),
        ],
    }
}

/// Runs with a result on the coordinator that belongs here.
struct Stored {
    results: BTreeSet<RunId>,
    /// Why no coordinator was asked.
    nobody: Option<String>,
}

impl Stored {
    /// Asks the coordinator that was named, else the one of this data directory: whatever else listens on the usual port
    /// would report results that a submission from here does not find again.
    fn ask(place: &Place, data: &DataDir) -> Result<Self, Exit> {
        let nobody = |why: String| Ok(Self { results: BTreeSet::new(), nobody: Some(why) });
        if place.asked.is_none() && crate::remote::token(place)?.is_none() {
            return nobody(format!("none has run on {}", data.root().display()));
        }
        let client = connect(place)?.with_tries(1);
        match block_on(async { Ok(finished(&client).await) })? {
            Ok(results) => Ok(Self { results, nobody: None }),
            Err(ClientError::Unreachable { server, absence, .. }) if absence.may_pass() => {
                nobody(format!("none answers at {server}"))
            }
            Err(error) if error.code() == Some(Problem::Unauthorized) => {
                nobody(format!("the one at {} belongs to another data directory", client.server()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn finished(client: &Client) -> Result<BTreeSet<RunId>, ClientError> {
    let mut known = BTreeSet::new();
    for sweep in client.sweeps().await?.sweeps {
        let rows = client.runs(&sweep.sweep_id.to_string()).await?;
        let done = |state| matches!(state, RunState::Finished | RunState::Diverged);
        known.extend(rows.iter().filter(|r| r.kind == Kind::Run && done(r.state)).map(|r| r.run_id));
    }
    Ok(known)
}

impl From<PlanningError> for Exit {
    fn from(error: PlanningError) -> Self {
        let code = match &error {
            error if error.is_over_budget() => Code::Refused,
            error if error.is_of_machine() => Code::Failure,
            _ => Code::Usage,
        };
        Self::new(code, error)
    }
}

fn text(estimated: &Estimated) -> String {
    let Estimated { planning, timing, .. } = estimated;
    let plan = &planning.plan;
    let mut text = format!("sweep {} ({})\n", plan.name, plan.sweep_id.short());
    for manifest in &planning.manifests {
        text.push_str(&format!(
            "corpus {}: {} training tokens, {} validation bytes, vocabulary {}\n",
            manifest.digest.short(),
            manifest.train.tokens,
            si(manifest.validation.bytes as f64),
            manifest.vocab
        ));
    }
    if let Some(trainer) = plan.runs.first().and_then(|planned| planned.run.trainer.as_ref()) {
        text.push_str(&trained_by(trainer));
    }
    text.push('\n');
    text.push_str(&runs(plan));
    text.push_str(&totals(plan, timing.as_ref()));
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

/// What runs instead of an engine of this program, and where it may.
fn trained_by(trainer: &Trainer) -> String {
    let mut text = format!("trainer: {}\n", trainer.command.join(" "));
    for (name, digest) in &trainer.files {
        text.push_str(&format!("trainer file {}: {name}\n", digest.short()));
    }
    if let Some(version) = &trainer.version {
        text.push_str(&format!("trainer version: {version}\n"));
    }
    text.push_str("it runs on workers with --allow-commands only; counts below are the sweep's, time is not known\n");
    text
}

fn runs(plan: &Plan) -> String {
    let mut table = Table::new(&[
        "run", "arm", "action", "params", "active", "total", "shape", "tokens", "rate", "batch", "steps", "flops",
        "memory", "time", "differs", "why",
    ]);
    let points: Vec<_> = plan.runs.iter().map(|run| (run.arm.as_str(), &run.point)).collect();
    for (run, differs) in plan.runs.iter().zip(isoloss_report::differences(&points)) {
        let model = &run.run.model;
        let experts = model.experts.as_ref();
        let shape = format!("L{} w{} h{}", model.layers, model.width, model.heads);
        table.row(vec![
            run.run_id.short(),
            run.arm.clone(),
            match run.action {
                Action::Run => "run",
                Action::Reuse => "reuse",
                Action::Branch => "branch",
            }
            .to_owned(),
            run.params.non_embedding.to_string(),
            run.params.active_non_embedding.to_string(),
            run.params.total.to_string(),
            experts.map_or(shape.clone(), |e| format!("{shape} {}x{} top-{}", e.count, e.ff, e.top_k)),
            run.tokens.to_string(),
            format!("{:.2e}", run.run.train.learning_rate),
            run.run.train.batch.to_string(),
            run.run.train.steps.to_string(),
            run.flops.to_string(),
            format!("{:.0} MiB", run.memory_bytes as f64 / f64::from(1 << 20)),
            run.seconds
                .map(|seconds| if seconds < 1.0 { "<1s".to_owned() } else { duration(seconds) })
                .unwrap_or_default(),
            differs,
            run.why.clone(),
        ]);
    }
    table.without_empty("time").without_empty("differs").render()
}

fn totals(plan: &Plan, timing: Option<&Timing>) -> String {
    let totals = &plan.totals;
    let mut text = format!(
        "\n{} runs: {} to train, {} to branch, {} reused; {} FLOPs, {} tokens",
        totals.runs,
        totals.to_run,
        totals.to_branch,
        totals.reused,
        Flops(totals.flops),
        si(totals.tokens as f64)
    );
    if !plan.trunks.is_empty() {
        text.push_str(&format!("; {} trunks save {} FLOPs", plan.trunks.len(), Flops(totals.flops_saved)));
    }
    if let (Some(seconds), Some(timing)) = (totals.seconds, timing) {
        text.push_str(&format!("\nETA about {} on {} of this machine", duration(seconds), places(plan, timing)));
    }
    if let Some(hours) = totals.gpu_hours.filter(|hours| *hours > 0.0) {
        text.push_str(&format!("\n{hours:.3} GPU hours"));
    }
    if let Some(bytes) = totals.gpu_process_bytes {
        let process = si(bytes as f64);
        text.push_str(&format!(
            "\nmemory of runs on a GPU includes {process}B for what a process takes of it beside its run, as measured"
        ));
    }
    text.push('\n');
    text
}

/// What the runs of a plan train on here.
pub(crate) fn places(plan: &Plan, timing: &Timing) -> String {
    let Timing { probe, through_mps } = timing;
    let cuda = |run: &&PlannedRun| run.run.numerics.engine == EngineKind::Cuda;
    let on_gpus = plan.runs.iter().filter(cuda).count();
    let cores = format!("{} core(s)", probe.slots);
    match &probe.gpus {
        Some(gpus) if on_gpus > 0 => {
            let through = if *through_mps { " through MPS" } else { "" };
            let cards = format!("{} GPU(s), up to {} runs on each{through}", gpus.cards, gpus.beside);
            if on_gpus < plan.runs.len() { format!("{cores} and {cards}") } else { cards }
        }
        _ => cores,
    }
}

/// What the crate's tests plan with.
#[cfg(test)]
pub(crate) mod sample {
    use std::path::Path;

    use isoloss_coordinator::{Planning, Reach, Site};
    use isoloss_sweep::Plan;
    use isoloss_wire::api::{SCHEMA_VERSION, Submit};

    /// The plan of a sweep file in a data directory of its own.
    pub(crate) fn planned(dir: &Path, toml: &str) -> Plan {
        let site = Site {
            corpora_dir: dir.join("corpora"),
            trainers_dir: dir.join("trainers"),
            capabilities: super::capabilities(),
            survey_memory_bytes: u64::MAX,
            probe: None,
            reach: Reach::Everything,
        };
        let (toml, file, base) = (toml.to_owned(), "sample.toml".to_owned(), dir.to_owned());
        let submit = Submit { schema_version: SCHEMA_VERSION, toml, file, set: Vec::new(), base, hold: false };
        let Planning { plan, .. } = isoloss_coordinator::plan(&submit, &site, &|_| false, &mut |_| {}).unwrap();
        plan
    }
}
