//! Runs: one whole, why it is where it is, what it said.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use isoloss_store::ledger::Held;
use isoloss_store::{End, Lapse, RunRow};
use isoloss_sweep::Outcome;
use isoloss_wire::api::{AttemptRow, Explanation, LogPage, LogQuery, RunDetail, SCHEMA_VERSION};

use crate::authority::RunView;
use crate::daemon::App;
use crate::http::find;
use crate::http::refusal::{Answer, Asked, At, Refused};
use crate::rows;

pub(crate) async fn show(State(app): State<Arc<App>>, At(word): At<String>) -> Answer<RunDetail> {
    let view = find::run(&app, &word).await?;
    let outcome = app.authority.outcome(view.run_id).await?;
    Ok(Json(detail(&app, &view, &view.row.planned.arm, outcome)))
}

/// A run with its outcome, under the arm by which a sweep knows it.
pub(crate) fn detail(app: &App, view: &RunView, arm: &str, outcome: Option<Outcome>) -> RunDetail {
    let curve = match &outcome {
        Some(Outcome::Finished(finished)) => finished.curve.clone(),
        Some(Outcome::Diverged(diverged)) => diverged.curve.clone(),
        Some(Outcome::Failed(_)) | None => app.chatter.points(view.run_id),
    };
    RunDetail {
        schema_version: SCHEMA_VERSION,
        row: rows::run_row(view, arm),
        run: view.row.planned.run.clone(),
        sweeps: view.row.sweeps.iter().copied().collect(),
        outcome,
        curve,
    }
}

pub(crate) async fn explain(State(app): State<Arc<App>>, At(word): At<String>) -> Answer<Explanation> {
    let view = find::run(&app, &word).await?;
    let reasons = app.authority.explain(view.run_id).await?.ok_or_else(|| Refused::not_found("run", &word))?;
    let attempts = attempts(&view.row);
    Ok(Json(Explanation {
        schema_version: SCHEMA_VERSION,
        run_id: view.run_id,
        state: rows::state(view.status),
        reasons,
        depends_on: view.row.planned.branch.map(|branch| branch.trunk).into_iter().collect(),
        attempts,
    }))
}

/// Every attempt that is remembered, oldest first: the lost ones, and the one that settled the run or holds it.
fn attempts(row: &RunRow) -> Vec<AttemptRow> {
    let attempt = |attempt, held: Option<&Held>, end| {
        let (worker, device) = held.map_or(("unknown", "unknown"), |held| (&held.worker, &held.slot));
        AttemptRow { attempt, worker: worker.to_owned(), device: device.to_owned(), granted_at: None, end }
    };
    let settled = row.settled.as_ref();
    // An attempt whose lease had run out and whose result came all the same is one attempt.
    let past = row.past.iter().filter(|past| settled.is_none_or(|settled| settled.attempt != past.attempt));
    let mut attempts: Vec<AttemptRow> =
        past.map(|past| attempt(past.attempt, past.held.as_ref(), Some(lost(&past.lapse)))).collect();
    if let Some(settled) = settled {
        let slot = settled.slot.clone().unwrap_or_else(|| "unknown".to_owned());
        let held = Held { worker: settled.worker.clone(), slot };
        let end = match &settled.end {
            End::Failed { reason } => format!("failed: {reason}"),
            end => end.words(),
        };
        attempts.push(attempt(settled.attempt, Some(&held), Some(end)));
    } else if row.lease.is_some() {
        attempts.push(attempt(row.attempt, row.lease.as_ref(), None));
    }
    attempts
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
    At(word): At<String>,
    Asked(query): Asked<LogQuery>,
) -> Answer<LogPage> {
    let view = find::run(&app, &word).await?;
    let lines = app.chatter.lines(view.run_id, query.after);
    Ok(Json(LogPage { schema_version: SCHEMA_VERSION, lines, live: !view.status.is_final() }))
}
