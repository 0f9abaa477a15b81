//! Sweeps: plan, submit, list, show, fit.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use isoloss_store::Status;
use isoloss_sweep::RunId;
use isoloss_sweep::plan::PlanJson;
use isoloss_wire::api::{
    Code, FitQuery, Page, Results, RunDetail, Runs, SCHEMA_VERSION, Submit, Submitted, Surveys, SweepDetail, Sweeps,
};
use jiff::Timestamp;
use serde_json::Value;

use crate::authority::SweepView;
use crate::daemon::App;
use crate::fitting::{ArmResult, FitError};
use crate::http::find::{self, Noted};
use crate::http::refusal::{Answer, Asked, Body, Refused};
use crate::http::runs;
use crate::planning::{self, Planning};
use crate::rows;

/// Rows of a page when the question does not say, and at most.
const ROWS_MAX: usize = 1000;
/// Results carry whole curves.
const RESULTS_MAX: usize = 100;

pub(crate) async fn plan(State(app): State<Arc<App>>, Body(submit): Body<Submit>) -> Answer<PlanJson> {
    let planning = make_plan(&app, &submit).await?;
    Ok(Json(PlanJson::from(&planning.plan)))
}

pub(crate) async fn submit(State(app): State<Arc<App>>, Body(submit): Body<Submit>) -> Answer<Submitted> {
    let planning = make_plan(&app, &submit).await?;
    let admission = planning::admission(&submit, planning, Timestamp::now());
    let name = admission.name.clone();
    let done = app.authority.submit(admission).await?;
    tracing::info!(sweep = done.sweep_id.short(), name, runs = done.runs, added = done.added, "sweep admitted");
    Ok(Json(Submitted {
        schema_version: SCHEMA_VERSION,
        sweep_id: done.sweep_id,
        name,
        runs: done.runs,
        added: done.added,
        reused: done.reused,
    }))
}

/// Surveys and plans on a thread of its own, one submission at a time: two of one corpus would do the work twice.
async fn make_plan(app: &Arc<App>, submit: &Submit) -> Result<Planning, Refused> {
    if submit.schema_version != SCHEMA_VERSION {
        let detail = format!("expected schema_version {SCHEMA_VERSION}, got {}", submit.schema_version);
        return Err(Refused::new(Code::Version, detail));
    }
    if !submit.base.is_absolute() {
        return Err(Refused::new(Code::BadRequest, format!("expected an absolute base, got {:?}", submit.base)));
    }
    let _turn = app.planning.lock().await;
    let known = finished_runs(app).await?;
    let (site, submit, under_way) = (app.site(), submit.clone(), app.surveys.begin(&submit.file));
    let planning = tokio::task::spawn_blocking(move || {
        planning::plan(&submit, &site, &|run_id| known.contains(&run_id), &mut |stage| {
            under_way.at(stage);
        })
    });
    Ok(planning.await.map_err(|error| Refused::internal(&error))??)
}

async fn finished_runs(app: &App) -> Result<BTreeSet<RunId>, Refused> {
    let views = app.authority.sweeps().await?;
    let runs = views.iter().flat_map(|view| &view.runs);
    Ok(runs.filter(|run| run.status == Status::Finished).map(|run| run.run_id).collect())
}

pub(crate) async fn surveys(State(app): State<Arc<App>>) -> Json<Surveys> {
    Json(Surveys { schema_version: SCHEMA_VERSION, surveys: app.surveys.list() })
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Answer<Sweeps> {
    let mut sweeps = Vec::new();
    for view in find::all_sweeps(&app).await? {
        sweeps.push(rows::sweep_row(&view, app.submitted_at(&view).await?, &rows::run_rows(&view)));
    }
    Ok(Json(Sweeps { schema_version: SCHEMA_VERSION, sweeps }))
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(word): Path<String>,
) -> Result<Noted<Json<SweepDetail>>, Refused> {
    let Noted(note, view) = find::sweep(&app, &word).await?;
    let admission = app.admission(view.sweep_id).await?;
    let mut arms: Vec<String> = Vec::new();
    for member in &view.row.members {
        if !arms.contains(&member.arm) {
            arms.push(member.arm.clone());
        }
    }
    let detail = SweepDetail {
        schema_version: SCHEMA_VERSION,
        sweep: rows::sweep_row(&view, app.submitted_at(&view).await?, &rows::run_rows(&view)),
        arms,
        toml: admission.toml.clone(),
        set: admission.set.clone(),
        manifests: admission.manifests.clone(),
        trainer: admission.runs.first().and_then(|planned| planned.run.trainer.clone()),
    };
    Ok(Noted(note, Json(detail)))
}

pub(crate) async fn runs(
    State(app): State<Arc<App>>,
    Path(word): Path<String>,
    Asked(page): Asked<Page>,
) -> Result<Noted<Json<Runs>>, Refused> {
    let Noted(note, view) = find::sweep(&app, &word).await?;
    let mut rows = rows::run_rows(&view);
    let (from, to, next) = cut(rows.len(), &page, ROWS_MAX)?;
    let runs = rows.drain(from..to).collect();
    Ok(Noted(note, Json(Runs { schema_version: SCHEMA_VERSION, runs, next })))
}

pub(crate) async fn results(
    State(app): State<Arc<App>>,
    Path(word): Path<String>,
    Asked(page): Asked<Page>,
) -> Result<Noted<Json<Results>>, Refused> {
    let Noted(note, view) = find::sweep(&app, &word).await?;
    let (from, to, next) = cut(view.runs.len(), &page, RESULTS_MAX)?;
    let mut results: Vec<RunDetail> = Vec::with_capacity(to - from);
    for (member, run) in view.row.members.iter().zip(&view.runs).take(to).skip(from) {
        results.push(runs::detail(&app, run, &member.arm).await?);
    }
    Ok(Noted(note, Json(Results { schema_version: SCHEMA_VERSION, results, next })))
}

/// A page as a range of rows and the word for the next one. The order of a sweep's rows never changes.
fn cut(rows: usize, page: &Page, most: usize) -> Result<(usize, usize, Option<String>), Refused> {
    let after = page.after.as_deref().unwrap_or("0");
    let from: usize =
        after.parse().map_err(|_| Refused::new(Code::BadRequest, format!("no page begins after {after:?}")))?;
    let from = from.min(rows);
    let to = from.saturating_add(page.limit.unwrap_or(most).clamp(1, most)).min(rows);
    Ok((from, to, (to < rows).then(|| to.to_string())))
}

pub(crate) async fn fit(
    State(app): State<Arc<App>>,
    Path(word): Path<String>,
    Asked(query): Asked<FitQuery>,
) -> Result<Noted<Json<Value>>, Refused> {
    let Noted(note, view) = find::sweep(&app, &word).await?;
    let admission = app.admission(view.sweep_id).await?;
    let spec = planning::reread(&admission.toml, &admission.set).map_err(|error| Refused::internal(&error))?;
    let results = settled(&app, &view).await?;
    let answer = app.fits.answer(results, spec.fit(), &query).await.map_err(|error| match error {
        FitError::Question(detail) => Refused::new(Code::BadRequest, detail),
        FitError::Broke(_) => Refused::internal(&error),
    })?;
    if query.arm.is_none() && query.law.is_none() {
        app.fits.remember(view.sweep_id, answer.clone());
    }
    Ok(Noted(note, Json(Value::clone(&answer))))
}

async fn settled(app: &App, view: &SweepView) -> Result<Vec<ArmResult>, Refused> {
    let mut results = Vec::new();
    for (member, run) in view.row.members.iter().zip(&view.runs) {
        if run.row.settled.is_none() || run.row.planned.is_trunk() {
            continue;
        }
        if let Some(outcome) = app.authority.outcome(run.run_id).await? {
            results.push(ArmResult { arm: member.arm.clone(), run: run.row.planned.run.clone(), outcome });
        }
    }
    Ok(results)
}
