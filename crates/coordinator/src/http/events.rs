//! Watching a sweep: server-sent events with the rows that changed. Rows are compared, so that a slow watcher gets the
//! newest state and nothing waits for it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use isoloss_sweep::SweepId;
use isoloss_wire::api::{Event, Phase, RunRow, SweepRow};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::daemon::App;
use crate::http::find::{self, Noted};
use crate::http::refusal::Refused;
use crate::rows;

/// Rows are looked at no more often.
const PAUSE: Duration = Duration::from_millis(500);
/// And no less often: ages and speeds move without an event.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn follow(State(app): State<Arc<App>>, Path(word): Path<String>) -> Result<Response, Refused> {
    let Noted(note, view) = find::sweep(&app, &word).await?;
    let sweep_id = view.sweep_id;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        // It ends when the watcher goes, the sweep ends, or the coordinator does: each is an end of the stream.
        let _ = watch(&app, sweep_id, &sender).await;
    });
    let stream = Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default());
    Ok(Noted(note, stream).into_response())
}

/// The stream is over.
struct Over;

async fn watch(app: &App, sweep_id: SweepId, to: &mpsc::Sender<Result<sse::Event, Infallible>>) -> Result<(), Over> {
    let mut shutdown = app.shutdown.clone();
    let mut changes = app.authority.changes();
    let mut told: BTreeMap<usize, RunRow> = BTreeMap::new();
    let mut told_sweep: Option<SweepRow> = None;
    loop {
        let view = app.authority.sweep(sweep_id).await.map_err(|_| Over)?.ok_or(Over)?;
        let rows = rows::run_rows(&view);
        let submitted_at = app.submitted_at(&view).await.map_err(|_| Over)?;
        let row = rows::sweep_row(&view, submitted_at, &rows);
        if told_sweep.as_ref() != Some(&row) {
            tell(to, &Event::Sweep { row: row.clone() }).await?;
            told_sweep = Some(row.clone());
        }
        for (index, run) in rows.into_iter().enumerate() {
            if told.get(&index) != Some(&run) {
                tell(to, &Event::Run { row: Box::new(run.clone()) }).await?;
                told.insert(index, run);
            }
        }
        if matches!(row.phase, Phase::Ended | Phase::Cancelled) && row.counts.leased == 0 {
            return tell(to, &Event::End { row }).await;
        }
        tokio::select! {
            () = tokio::time::sleep(PATIENCE) => {}
            _ = changes.recv() => {}
            () = to.closed() => return Err(Over),
            _ = shutdown.wait_for(|ended| *ended) => return Err(Over),
        }
        tokio::time::sleep(PAUSE).await;
        changes = changes.resubscribe();
    }
}

async fn tell(to: &mpsc::Sender<Result<sse::Event, Infallible>>, event: &Event) -> Result<(), Over> {
    let event = sse::Event::default().json_data(event).map_err(|_| Over)?;
    to.send(Ok(event)).await.map_err(|_| Over)
}
