//! Sweeps: plan, submit, list, show, fit.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use isoloss_store::Status;
use isoloss_sweep::plan::PlanJson;
use isoloss_sweep::{Digest, RunId};
use isoloss_wire::api::{
    Code, FitQuery, Page, Results, RunDetail, Runs, SCHEMA_VERSION, Submit, Submitted, Surveys, SweepDetail, Sweeps,
};
use jiff::Timestamp;
use serde_json::Value;

use crate::admissions;
use crate::authority::{Head, MemberView, PART};
use crate::daemon::App;
use crate::fitting::{ArmResult, FitError};
use crate::http::find::{self, Noted};
use crate::http::gate::Caller;
use crate::http::idempotency::Key;
use crate::http::refusal::{Answer, Asked, At, Body, Refused};
use crate::http::runs;
use crate::planning::{self, Planning, Reach};
use crate::rows;

/// Rows of a page when the question does not say, and at most.
const ROWS_MAX: usize = 1000;
/// Results carry whole curves.
const RESULTS_MAX: usize = 100;
/// Runs looked at in one look, when all are.
const LOOKED_AT: usize = 4 * PART;
/// Submissions that wait for their turn or are being planned.
pub(crate) const SUBMISSIONS_MAX: usize = 32;

pub(crate) async fn plan(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Body(submit): Body<Submit>,
) -> Answer<PlanJson> {
    let planning = make_plan(&app, &caller, &submit).await?;
    Ok(Json(PlanJson::from(&planning.plan)))
}

pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    key: Key,
    Body(submit): Body<Submit>,
) -> Answer<Submitted> {
    let question = Digest::of_json(&submit);
    if let Some(answer) = app.answers.find(caller.name(), &key, question)? {
        return Ok(Json(answer));
    }
    let planning = make_plan(&app, &caller, &submit).await?;
    let admission = planning::admission(&submit, planning, Timestamp::now());
    let name = admission.name.clone();
    let brief = admissions::brief(&admission);
    let done = app.authority.submit(admission).await?;
    if done.is_first {
        app.keep_admission(brief);
    }
    app.summaries.prime(&app.authority);
    let (sweep, by) = (done.sweep_id.short(), caller.name());
    tracing::info!(sweep, name, by, runs = done.runs, added = done.added, "sweep admitted");
    let answer = Submitted {
        schema_version: SCHEMA_VERSION,
        sweep_id: done.sweep_id,
        name,
        runs: done.runs,
        added: done.added,
        reused: done.reused,
        amended: done.amended,
        kept: done.kept,
        paused: done.paused,
    };
    app.answers.keep(caller.name(), key, question, &answer);
    Ok(Json(answer))
}

/// Surveys and plans on a thread of its own, one submission at a time: two of one corpus would do the work twice.
async fn make_plan(app: &Arc<App>, caller: &Caller, submit: &Submit) -> Result<Planning, Refused> {
    if submit.schema_version != SCHEMA_VERSION {
        let detail = format!("expected schema_version {SCHEMA_VERSION}, got {}", submit.schema_version);
        return Err(Refused::new(Code::Version, detail));
    }
    if !submit.base.is_absolute() {
        return Err(Refused::new(Code::BadRequest, format!("expected an absolute base, got {:?}", submit.base)));
    }
    let waiting = || Refused::new(Code::Busy, format!("{SUBMISSIONS_MAX} submissions wait for their turn already"));
    let _place = app.submissions.try_acquire().map_err(|_| waiting())?;
    let _turn = app.planning.lock().await;
    let known = finished_runs(app).await?;
    let reach = match caller.is_owner_here() {
        true => Reach::Everything,
        false => Reach::Below(app.config.corpus_roots.clone()),
    };
    let (site, submit, under_way) = (app.site(reach), submit.clone(), app.surveys.begin(&submit.file));
    let planning = tokio::task::spawn_blocking(move || {
        planning::plan(&submit, &site, &|run_id| known.contains(&run_id), &mut |stage| {
            under_way.at(stage);
        })
    });
    Ok(planning.await.map_err(|error| Refused::internal(&error))??)
}

async fn finished_runs(app: &App) -> Result<BTreeSet<RunId>, Refused> {
    let (mut finished, mut after) = (BTreeSet::new(), None);
    loop {
        let part = app.authority.read(move |truth| {
            let ledger = truth.store.ledger();
            let runs = ledger.runs_after(after).take(LOOKED_AT);
            runs.map(|(id, row)| (id, ledger.status(row) == Status::Finished)).collect::<Vec<_>>()
        });
        let part = part.await?;
        after = part.last().map(|(id, _)| *id);
        finished.extend(part.iter().filter(|(_, is_finished)| *is_finished).map(|(id, _)| *id));
        if part.len() < LOOKED_AT {
            return Ok(finished);
        }
    }
}

pub(crate) async fn surveys(State(app): State<Arc<App>>) -> Json<Surveys> {
    Json(Surveys { schema_version: SCHEMA_VERSION, surveys: app.surveys.list() })
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Answer<Sweeps> {
    let mut sweeps = Vec::new();
    for head in app.authority.heads().await? {
        sweeps.push(app.summary(&head).await?.row(&head));
    }
    Ok(Json(Sweeps { schema_version: SCHEMA_VERSION, sweeps }))
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    At(word): At<String>,
) -> Result<Noted<Json<SweepDetail>>, Refused> {
    let Noted(note, head) = find::sweep(&app, &word).await?;
    let admission = app.admission(head.sweep_id).await?;
    let tally = app.summary(&head).await?;
    let detail = SweepDetail {
        schema_version: SCHEMA_VERSION,
        sweep: tally.row(&head),
        arms: tally.arms.clone(),
        toml: admission.toml.clone(),
        set: admission.set.clone(),
        manifests: admission.manifests.clone(),
        trainer: admission.runs.first().and_then(|planned| planned.run.trainer.clone()),
    };
    Ok(Noted(note, Json(detail)))
}

pub(crate) async fn runs(
    State(app): State<Arc<App>>,
    At(word): At<String>,
    Asked(page): Asked<Page>,
) -> Result<Noted<Json<Runs>>, Refused> {
    let Noted(note, head) = find::sweep(&app, &word).await?;
    let (places, next) = cut(head.members, &page, ROWS_MAX)?;
    let runs = rows::run_rows(&app.authority.part(head.sweep_id, places).await?);
    Ok(Noted(note, Json(Runs { schema_version: SCHEMA_VERSION, runs, next })))
}

pub(crate) async fn results(
    State(app): State<Arc<App>>,
    At(word): At<String>,
    Asked(page): Asked<Page>,
) -> Result<Noted<Json<Results>>, Refused> {
    let Noted(note, head) = find::sweep(&app, &word).await?;
    let (places, next) = cut(head.members, &page, RESULTS_MAX)?;
    let members = app.authority.part(head.sweep_id, places).await?;
    let ids: Vec<RunId> = members.iter().map(|member| member.run.run_id).collect();
    let outcomes = app.authority.outcomes(&ids).await?;
    let detail = |(member, outcome): (&MemberView, _)| runs::detail(&app, &member.run, &member.arm, outcome);
    let results: Vec<RunDetail> = members.iter().zip(outcomes).map(detail).collect();
    Ok(Noted(note, Json(Results { schema_version: SCHEMA_VERSION, results, next })))
}

/// A page as a range of rows and the word for the next one. The order of a sweep's rows never changes.
fn cut(rows: usize, page: &Page, most: usize) -> Result<(Range<usize>, Option<String>), Refused> {
    let after = page.after.as_deref().unwrap_or("0");
    let from: usize =
        after.parse().map_err(|_| Refused::new(Code::BadRequest, format!("no page begins after {after:?}")))?;
    let from = from.min(rows);
    let to = from.saturating_add(page.limit.unwrap_or(most).clamp(1, most)).min(rows);
    Ok((from..to, (to < rows).then(|| to.to_string())))
}

pub(crate) async fn fit(
    State(app): State<Arc<App>>,
    At(word): At<String>,
    Asked(query): Asked<FitQuery>,
) -> Result<Noted<Json<Value>>, Refused> {
    let Noted(note, head) = find::sweep(&app, &word).await?;
    let admission = app.admission(head.sweep_id).await?;
    let spec = planning::reread(&admission.toml, &admission.set).map_err(|error| Refused::internal(&error))?;
    let results = settled(&app, &head).await?;
    let answer = app.fits.answer(results, spec.fit(), &query).await.map_err(|error| match error {
        FitError::Question(detail) => Refused::new(Code::BadRequest, detail),
        FitError::Broke(_) => Refused::internal(&error),
    })?;
    if query.arm.is_none() && query.law.is_none() {
        app.fits.remember(head.sweep_id, answer.clone());
    }
    Ok(Noted(note, Json(Value::clone(&answer))))
}

async fn settled(app: &App, head: &Head) -> Result<Vec<ArmResult>, Refused> {
    let mut results = Vec::new();
    for start in (0..head.members).step_by(PART) {
        let places = start..(start + PART).min(head.members);
        let mut members = app.authority.part(head.sweep_id, places).await?;
        members.retain(|member| member.run.row.settled.is_some() && !member.run.row.planned.is_trunk());
        let ids: Vec<RunId> = members.iter().map(|member| member.run.run_id).collect();
        for (MemberView { arm, run }, outcome) in members.into_iter().zip(app.authority.outcomes(&ids).await?) {
            if let Some(outcome) = outcome {
                results.push(ArmResult { arm: arm.to_string(), run: run.row.planned.run.clone(), outcome });
            }
        }
    }
    Ok(results)
}
