//! Alive, ready, measured.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use isoloss_wire::api::Code;
use jiff::Timestamp;

use crate::authority::SweepView;
use crate::daemon::App;
use crate::http::find;
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
    let mut states = BTreeMap::new();
    let mut tokens_per_second = BTreeMap::new();
    let mut reserved = BTreeMap::new();
    let now = Timestamp::now();
    let sweeps = find::all_sweeps(&app).await?;
    for (index, view) in sweeps.iter().enumerate() {
        let runs = rows::run_rows(view);
        let leased = view.runs.iter().filter(|run| run.lease.is_some());
        reserved.extend(leased.map(|run| (run.run_id, run.row.planned.memory_bytes)));
        for row in &runs {
            states.insert(row.run_id, row.state);
            tokens_per_second.insert(row.run_id, row.live.as_ref().map_or(0.0, |live| live.tokens_per_second));
        }
        if index < meters::SWEEPS_MAX {
            let name = label(view, &sweeps);
            let row = rows::sweep_row(view, now, &runs);
            meters::sweep(&name, &row, &runs, now.as_millisecond() as f64 / 1e3);
            app.fits.newest(view.sweep_id).iter().for_each(|fit| meters::law(&name, fit));
            let worst = app.routings.worst(&app.authority, view).await?;
            worst.iter().for_each(|worst| meters::routing(&name, *worst));
        }
    }
    meters::build();
    meters::runs(states.into_values());
    let workers = app.authority.workers().await?;
    let lease_ms = u64::try_from(app.config.lease.as_millis()).unwrap_or(u64::MAX);
    let silent = workers.iter().filter(|worker| worker.silent_ms > lease_ms).count();
    let slots: usize = workers.iter().map(|worker| worker.spec.slots.len()).sum();
    let busy: usize = workers.iter().map(|worker| worker.held.len()).sum();
    let speed = tokens_per_second.into_values().sum();
    let reserved = reserved.into_values().sum();
    meters::fleet(workers.len() - silent, silent, busy, slots.saturating_sub(busy), reserved, speed);
    meters::store(&app.config.store_dir());
    meters::process();
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, handle.render()).into_response())
}

/// The sweep's name where no other sweep bears it, else with the beginning of its id.
fn label(view: &SweepView, all: &[SweepView]) -> String {
    let name = &view.row.name;
    match all.iter().filter(|other| other.row.name == *name).count() {
        0 | 1 => name.clone(),
        _ => format!("{name}-{}", view.sweep_id.short()),
    }
}
