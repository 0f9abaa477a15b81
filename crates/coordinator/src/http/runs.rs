//! Runs: one whole, why it is where it is, what it said.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use isoloss_store::ledger::Held;
use isoloss_store::{Lapse, Target};
use isoloss_sweep::Outcome;
use isoloss_wire::api::{AttemptRow, Changed, Explanation, LogPage, LogQuery, RunDetail, SCHEMA_VERSION};

use crate::authority::RunView;
use crate::daemon::App;
use crate::http::find;
use crate::http::refusal::{Answer, Asked, Refused};
use crate::rows;

pub(crate) async fn show(State(app): State<Arc<App>>, Path(word): Path<String>) -> Answer<RunDetail> {
    let view = find::run(&app, &word).await?;
    let arm = view.row.planned.arm.clone();
    detail(&app, &view, &arm).await.map(Json)
}

/// A run with its outcome, under the arm by which a sweep knows it.
pub(crate) async fn detail(app: &App, view: &RunView, arm: &str) -> Result<RunDetail, Refused> {
    let outcome = match view.row.settled {
        Some(_) => app.authority.outcome(view.run_id).await?,
        None => None,
    };
    let curve = match &outcome {
        Some(Outcome::Finished(finished)) => finished.curve.clone(),
        Some(Outcome::Diverged(diverged)) => diverged.curve.clone(),
        Some(Outcome::Failed(_)) | None => app.chatter.points(view.run_id),
    };
    Ok(RunDetail {
        schema_version: SCHEMA_VERSION,
        row: rows::run_row(view, arm),
        run: view.row.planned.run.clone(),
        sweeps: view.row.sweeps.iter().copied().collect(),
        outcome,
        curve,
    })
}

pub(crate) async fn explain(State(app): State<Arc<App>>, Path(word): Path<String>) -> Answer<Explanation> {
    let view = find::run(&app, &word).await?;
    let reasons = app.authority.explain(view.run_id).await?.ok_or_else(|| Refused::not_found("run", &word))?;
    let held = |held: &Option<Held>| match held {
        Some(held) => (held.worker.clone(), held.slot.clone()),
        None => ("unknown".to_owned(), "unknown".to_owned()),
    };
    let row = |attempt, (worker, device), end| AttemptRow { attempt, worker, device, granted_at: None, end };
    let past = view.row.past.iter();
    let mut attempts: Vec<AttemptRow> =
        past.map(|past| row(past.attempt, held(&past.held), Some(lost(&past.lapse)))).collect();
    if view.row.lease.is_some() {
        attempts.push(row(view.row.attempt, held(&view.row.lease), None));
    }
    Ok(Json(Explanation {
        schema_version: SCHEMA_VERSION,
        run_id: view.run_id,
        state: rows::state(view.status),
        reasons,
        depends_on: view.row.planned.branch.map(|branch| branch.trunk).into_iter().collect(),
        attempts,
    }))
}

fn lost(lapse: &Lapse) -> String {
    match lapse {
        Lapse::Failed { reason } => format!("failed: {reason}"),
        Lapse::Expired { worker_lost: true } => "its worker was lost".to_owned(),
        Lapse::Expired { worker_lost: false } => "its lease ran out".to_owned(),
        Lapse::Yielded { reason } => format!("given back: {reason}"),
        Lapse::Cancelled => "cancelled".to_owned(),
    }
}

pub(crate) async fn log(
    State(app): State<Arc<App>>,
    Path(word): Path<String>,
    Asked(query): Asked<LogQuery>,
) -> Answer<LogPage> {
    let view = find::run(&app, &word).await?;
    let lines = app.chatter.lines(view.run_id, query.after);
    Ok(Json(LogPage { schema_version: SCHEMA_VERSION, lines, live: !view.status.is_final() }))
}

pub(crate) async fn cancel(State(app): State<Arc<App>>, Path(word): Path<String>) -> Answer<Changed> {
    let view = find::run(&app, &word).await?;
    let runs = app.authority.cancel(Target::Run(view.run_id)).await?;
    Ok(Json(Changed { schema_version: SCHEMA_VERSION, runs }))
}
