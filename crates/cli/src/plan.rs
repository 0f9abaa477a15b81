//! `plan`: the exact runs of a sweep, by the same code path as a submission. It surveys the corpus and starts nothing.

use std::collections::BTreeSet;
use std::fs;

use isoloss_coordinator::{Planning, PlanningError, Site};
use isoloss_sweep::plan::{Action, Capabilities, Capability, PlanJson};
use isoloss_sweep::run::{EngineKind, Precision};
use isoloss_sweep::{Flops, Plan, RunId, count::si};
use isoloss_wire::api::{Kind, RunState, SCHEMA_VERSION, Submit};
use isoloss_wire::{Client, ClientError};

use crate::args::{Format, Place, SweepFile};
use crate::exit::{Code, Done, Exit};
use crate::place::DataDir;
use crate::print;
use crate::remote::{block_on, connect};
use crate::table::Table;

pub(crate) fn run(place: &Place, sweep: &SweepFile) -> Done {
    let submit = read(sweep)?;
    let data = DataDir::of(place)?;
    let known = known_runs(place);
    let site = Site { corpora_dir: data.corpora(), capabilities: capabilities(), probe: None };
    let planning = isoloss_coordinator::plan(&submit, &site, &|id| known.contains(&id), &mut |_| {})?;
    match place.format() {
        Format::Json => print::json(&PlanJson::from(&planning.plan)),
        Format::Csv => Err(Exit::usage("a plan is a table or JSON")),
        Format::Table => {
            print::text_block(&text(&planning));
            Ok(())
        }
    }
}

/// The sweep file as it is handed in: relative paths are read from the current folder.
pub(crate) fn read(sweep: &SweepFile) -> Result<Submit, Exit> {
    let toml = fs::read_to_string(&sweep.file)
        .map_err(|e| Exit::usage(format!("cannot read the sweep file {}: {e}", sweep.file.display())))?;
    submit(toml, &sweep.file.display().to_string(), &sweep.set)
}

pub(crate) fn submit(toml: String, file: &str, set: &[String]) -> Result<Submit, Exit> {
    let base = std::env::current_dir()?;
    Ok(Submit { schema_version: SCHEMA_VERSION, toml, file: file.to_owned(), set: set.to_vec(), base })
}

/// Engines of this build, best first.
pub(crate) fn capabilities() -> Capabilities {
    let f32 = |engine| Capability { engine, precisions: vec![Precision::F32], moe: true };
    Capabilities { engines: vec![f32(EngineKind::Cpu), f32(EngineKind::Reference)] }
}

/// Runs with a result on the coordinator, if one answers.
fn known_runs(place: &Place) -> BTreeSet<RunId> {
    let asked = connect(place).and_then(|client| block_on(async { Ok(finished(&client.with_tries(1)).await?) }));
    asked.unwrap_or_default()
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

fn text(planning: &Planning) -> String {
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
    text.push('\n');
    text.push_str(&runs(plan));
    text.push_str(&totals(plan));
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

fn runs(plan: &Plan) -> String {
    let mut table = Table::new(&[
        "run", "arm", "action", "params", "active", "total", "shape", "tokens", "steps", "flops", "memory", "why",
    ]);
    for run in &plan.runs {
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
            run.run.train.steps.to_string(),
            run.flops.to_string(),
            format!("{:.0} MiB", run.memory_bytes as f64 / f64::from(1 << 20)),
            run.why.clone(),
        ]);
    }
    table.render()
}

fn totals(plan: &Plan) -> String {
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
    if let Some(seconds) = totals.seconds {
        text.push_str(&format!("; about {}", crate::status::duration(seconds)));
    }
    text.push('\n');
    text
}
