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
    let lease_ms = u64::try_from(app.config.lease.as_millis()).unwrap_or(u64::MAX);
    let load = app.authority.read(move |truth| Load::of(truth, lease_ms)).await?;
    meters::runs(&load.states);
    let Load { alive, silent, busy, slots, reserved_bytes, tokens_per_second, .. } = load;
    meters::fleet(alive, silent, busy, slots.saturating_sub(busy), reserved_bytes, tokens_per_second);
    meters::store(&app.config.store_dir());
    meters::process();
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, handle.render()).into_response())
}

/// What runs, workers and leases add up to.
struct Load {
    states: BTreeMap<RunState, usize>,
    /// Workers.
    alive: usize,
    silent: usize,
    /// Slots.
    busy: usize,
    slots: usize,
    /// Of live runs.
    reserved_bytes: u64,
    tokens_per_second: f64,
}

impl Load {
    /// One look: it passes over workers and leases, never over runs.
    fn of(truth: &Truth<'_>, lease_ms: u64) -> Self {
        let ledger = truth.store.ledger();
        let mut states = BTreeMap::new();
        for (status, runs) in truth.state.counts() {
            *states.entry(rows::state(status)).or_default() += runs;
        }
        let leases = || truth.state.leases();
        let workers = || truth.state.workers();
        let silent = workers().filter(|worker| truth.now.saturating_sub(worker.seen) > lease_ms).count();
        Self {
            states,
            alive: workers().count() - silent,
            silent,
            busy: workers().map(|worker| truth.state.held_by(&worker.spec.worker).count()).sum(),
            slots: workers().map(|worker| worker.spec.slots.len()).sum(),
            reserved_bytes: leases().filter_map(|(id, _)| Some(ledger.run(id)?.planned.memory_bytes)).sum(),
            tokens_per_second: leases().filter_map(|(_, lease)| Some(lease.progress?.tokens_per_second)).sum(),
        }
    }
}

/// The sweep's name where no other sweep bears it, else with the beginning of its id.
fn label(head: &Head, all: &[Head]) -> String {
    let name = &head.name;
    match all.iter().filter(|other| other.name == *name).count() {
        0 | 1 => name.clone(),
        _ => format!("{name}-{}", head.sweep_id.short()),
    }
}
