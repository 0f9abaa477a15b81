//! Alive, ready, measured.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use isoloss_wire::api::{Code, RunState};
use jiff::Timestamp;

use crate::authority::{Head, Truth};
use crate::daemon::App;
use crate::http::refusal::Refused;
use crate::{meters, rows};

/// The process answers. Never depends on the store.
pub(crate) async fn livez() -> &'static str {
    "alive\n"
}

/// The journal was read and the authority answers.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Refused> {
    app.authority.workers().await?;
    Ok("ready\n")
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Refused> {
    let handle = meters::recorder().ok_or_else(|| Refused::new(Code::NotFound, "metrics are recorded elsewhere"))?;
    let now = Timestamp::now();
    let heads = app.authority.heads().await?;
    for head in heads.iter().take(meters::SWEEPS_MAX) {
        let name = label(head, &heads);
        let tally = app.summary(head).await?;
        meters::sweep(&name, &tally.row(head), &tally.best_by_arm, now.as_millisecond() as f64 / 1e3);
        app.fits.newest(head.sweep_id).iter().for_each(|fit| meters::law(&name, fit));
        let worst = app.routings.worst(&app.authority, &tally.routed).await?;
        worst.iter().for_each(|worst| meters::routing(&name, *worst));
    }
    meters::build();
    let (states, reserved, speed) = app.authority.read(load).await?;
    meters::runs(&states);
    let workers = app.authority.workers().await?;
    let lease_ms = u64::try_from(app.config.lease.as_millis()).unwrap_or(u64::MAX);
    let silent = workers.iter().filter(|worker| worker.silent_ms > lease_ms).count();
    let slots: usize = workers.iter().map(|worker| worker.spec.slots.len()).sum();
    let busy: usize = workers.iter().map(|worker| worker.held.len()).sum();
    meters::fleet(workers.len() - silent, silent, busy, slots.saturating_sub(busy), reserved, speed);
    meters::store(&app.config.store_dir());
    meters::process();
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, handle.render()).into_response())
}

/// Runs by state, bytes that live ones reserve, and their tokens per second. One pass over what lies in memory.
fn load(truth: &Truth<'_>) -> (BTreeMap<RunState, u32>, u64, f64) {
    let ledger = truth.store.ledger();
    let mut states = BTreeMap::new();
    for (_, row) in ledger.runs() {
        *states.entry(rows::state(ledger.status(row))).or_default() += 1;
    }
    let leases = || truth.state.leases();
    let reserved = leases().filter_map(|(run_id, _)| Some(ledger.run(run_id)?.planned.memory_bytes)).sum();
    let speed = leases().filter_map(|(_, lease)| Some(lease.progress?.tokens_per_second)).sum();
    (states, reserved, speed)
}

/// The sweep's name where no other sweep bears it, else with the beginning of its id.
fn label(head: &Head, all: &[Head]) -> String {
    let name = &head.name;
    match all.iter().filter(|other| other.name == *name).count() {
        0 | 1 => name.clone(),
        _ => format!("{name}-{}", head.sweep_id.short()),
    }
}
