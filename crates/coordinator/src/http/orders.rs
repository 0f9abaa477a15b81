//! Orders to sweeps and runs: cancel, pause, resume, retry. Where nothing changed the answer says why.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use isoloss_store::Target;
use isoloss_wire::api::{Changed, Choose, Phase, SCHEMA_VERSION};

use crate::daemon::App;
use crate::http::find;
use crate::http::refusal::{Answer, At, Body, Refused};
use crate::rows;

pub(crate) async fn sweep(State(app): State<Arc<App>>, At((word, order)): At<(String, String)>) -> Answer<Changed> {
    let head = find::one_sweep(&app, &word).await?;
    let target = Target::Sweep(head.sweep_id);
    let phase = app.summary(&head).await?.phase(&head);
    let runs = match order.as_str() {
        "cancel" => app.authority.cancel(target).await?,
        "pause" => app.authority.pause(target).await?,
        "resume" => app.authority.resume(target).await?,
        "retry" => app.authority.retry(target).await?,
        _ => return Err(Refused::not_found("order", &order)),
    };
    let name = format!("sweep {} ({})", head.name, head.sweep_id.short());
    let why = unchanged(&order, phase);
    let note = (runs == 0).then(|| format!("{name} {why}"));
    Ok(Json(Changed { schema_version: SCHEMA_VERSION, runs, note }))
}

/// From now on the sweep lets these runs go too, or all of them again.
pub(crate) async fn choose(
    State(app): State<Arc<App>>,
    At(word): At<String>,
    Body(choose): Body<Choose>,
) -> Answer<Changed> {
    let head = find::one_sweep(&app, &word).await?;
    let runs = app.authority.choose(head.sweep_id, choose.runs).await?;
    Ok(Json(Changed { schema_version: SCHEMA_VERSION, runs, note: None }))
}

/// Why an order to a sweep of this phase changed no run.
fn unchanged(order: &str, phase: Phase) -> &'static str {
    match (order, phase) {
        ("retry", _) => "has no run that failed",
        ("resume", Phase::Active) => "is not paused",
        (_, Phase::Ended) => "has ended: nothing changed",
        (_, Phase::Cancelled) => "was cancelled already: nothing changed",
        ("pause", Phase::Paused) => "is paused already",
        (_, Phase::Active | Phase::Paused) => "shares the runs that are left with other sweeps, where they go on",
    }
}

pub(crate) async fn run(State(app): State<Arc<App>>, At((word, order)): At<(String, String)>) -> Answer<Changed> {
    let view = find::run(&app, &word).await?;
    let target = Target::Run(view.run_id);
    let runs = match order.as_str() {
        "cancel" => app.authority.cancel(target).await?,
        "pause" => app.authority.pause(target).await?,
        "resume" => app.authority.resume(target).await?,
        _ => return Err(Refused::not_found("order", &order)),
    };
    let state = rows::state(view.status).name();
    let note = (runs == 0).then(|| format!("run {} is {state} already: nothing changed", view.run_id.short()));
    Ok(Json(Changed { schema_version: SCHEMA_VERSION, runs, note }))
}
