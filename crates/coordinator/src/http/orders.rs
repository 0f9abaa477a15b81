//! Orders to sweeps and runs (cancel, pause, resume, retry) and to workers (drain, undrain). Where nothing changed the answer says why.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use isoloss_store::Target;
use isoloss_wire::api::{Changed, Choose, Code, Drained, Phase, SCHEMA_VERSION};

use crate::authority::AuthorityError;
use crate::daemon::App;
use crate::http::find;
use crate::http::refusal::{Answer, At, Body, Refused};
use crate::rows;

/// Workers that are named when none goes by a word.
const NAMES_MAX: usize = 20;

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
        "retry" => app.authority.retry(target).await?,
        _ => return Err(Refused::not_found("order", &order)),
    };
    let state = rows::state(view.status).name();
    let already = if order == "retry" { "" } else { " already" };
    let note = (runs == 0).then(|| format!("run {} is {state}{already}: nothing changed", view.run_id.short()));
    Ok(Json(Changed { schema_version: SCHEMA_VERSION, runs, note }))
}

/// Keeps further runs from a worker, or lets it have some again. The order stays over restarts of either side.
pub(crate) async fn worker(State(app): State<Arc<App>>, At((word, order)): At<(String, String)>) -> Answer<Drained> {
    let draining = match order.as_str() {
        "drain" => true,
        "undrain" => false,
        _ => return Err(Refused::not_found("order", &order)),
    };
    match app.authority.drain(word.clone(), draining).await {
        Err(AuthorityError::UnknownWorker(_)) => {
            let workers = app.authority.workers().await?;
            let known: Vec<&str> = workers.iter().map(|view| view.spec.worker.as_str()).take(NAMES_MAX).collect();
            let known = if known.is_empty() { "none has joined".to_owned() } else { known.join(", ") };
            return Err(Refused::new(Code::NotFound, format!("no worker {word:?} here: {known}")));
        }
        drained => drained?,
    }
    tracing::info!(worker = word, draining, "an order to a worker");
    let workers = app.authority.workers().await?;
    let busy = workers.iter().find(|view| view.spec.worker == word).map_or(0, |view| view.held.len() as u64);
    Ok(Json(Drained { schema_version: SCHEMA_VERSION, worker: word, draining, busy }))
}
