//! Watching a sweep: server-sent events with the rows that changed. Rows are compared, so that a slow watcher gets the
//! newest state and nothing waits for it.
//!
//! Events carry no ids and `Last-Event-ID` is not looked at: what is told is state, not history, so whoever comes back
//! gets the sweep and every run as they stand now, and then what changes. Nothing that matters can be missed that way.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use isoloss_sweep::RunId;
use isoloss_wire::api::{Code, Event, Phase, RunRow, SweepRow};
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::authority::{Gone, Head, PART};
use crate::daemon::App;
use crate::http::find::{self, Noted};
use crate::http::refusal::{At, Refused};
use crate::rows;
use crate::summaries::{Places, SMALL};

/// Rows are looked at no more often.
const PAUSE: Duration = Duration::from_millis(500);
/// And no less often: ages and speeds move without an event.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of a large sweep a look at every run takes its time: between two of them there is this much time for each run.
const PATIENCE_PER_RUN: Duration = Duration::from_millis(1);
/// A stream in which nothing happens says so this often (a comment line), so that nothing between takes it for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Watchers of all sweeps together: each holds a connection and rows in memory.
pub(crate) const WATCHERS_MAX: usize = 256;

pub(crate) async fn follow(State(app): State<Arc<App>>, At(word): At<String>) -> Result<Response, Refused> {
    let Noted(note, head) = find::sweep(&app, &word).await?;
    let place = app.watchers.clone().try_acquire_owned();
    let place = place.map_err(|_| Refused::new(Code::Busy, format!("{WATCHERS_MAX} watchers are here already")))?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        // It ends when the watcher goes, the sweep ends, or the coordinator does: each is an end of the stream.
        let _ = Watch::new(&app, head, sender).follow().await;
        drop(place);
    });
    let stream = Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    Ok(Noted(note, stream).into_response())
}

/// The stream is over.
struct Over;

impl From<Gone> for Over {
    fn from(_: Gone) -> Self {
        Self
    }
}

/// What one watcher was told.
struct Watch<'a> {
    app: &'a App,
    head: Head,
    to: mpsc::Sender<Result<sse::Event, Infallible>>,
    rows: BTreeMap<usize, RunRow>,
    sweep: Option<SweepRow>,
    places: Places,
}

impl<'a> Watch<'a> {
    fn new(app: &'a App, head: Head, to: mpsc::Sender<Result<sse::Event, Infallible>>) -> Self {
        Self { app, head, to, rows: BTreeMap::new(), sweep: None, places: Places::default() }
    }

    async fn follow(mut self) -> Result<(), Over> {
        let mut shutdown = self.app.shutdown.clone();
        let mut changes = self.app.authority.changes();
        let patience = PATIENCE.max(PATIENCE_PER_RUN * u32::try_from(self.head.members).unwrap_or(u32::MAX));
        if self.tell_sweep().await? {
            return Ok(());
        }
        let mut looked = Instant::now();
        self.look_at_all().await?;
        loop {
            let mut first = None;
            tokio::select! {
                () = tokio::time::sleep(PATIENCE) => {}
                changed = changes.recv() => first = Some(changed),
                () = self.to.closed() => return Err(Over),
                _ = shutdown.wait_for(|ended| *ended) => return Err(Over),
            }
            tokio::time::sleep(PAUSE).await;
            let changed = if self.head.members > SMALL { drain(&mut changes, first) } else { None };
            changes = changes.resubscribe();
            match changed {
                Some(changed) if looked.elapsed() < patience => self.look_at(&changed).await?,
                Some(_) | None => {
                    looked = Instant::now();
                    self.look_at_all().await?;
                }
            }
            if self.tell_sweep().await? {
                return Ok(());
            }
        }
    }

    /// Tells how the sweep stands, and whether that was the last word.
    async fn tell_sweep(&mut self) -> Result<bool, Over> {
        self.head = self.app.authority.head(self.head.sweep_id).await?.ok_or(Over)?;
        let tally = self.app.summary(&self.head).await.map_err(|_| Over)?;
        let row = tally.row(&self.head);
        if self.sweep.as_ref() != Some(&row) {
            tell(&self.to, &Event::Sweep { row: row.clone() }).await?;
            self.sweep = Some(row.clone());
        }
        if matches!(row.phase, Phase::Ended | Phase::Cancelled) && row.counts.leased == 0 {
            // A sum may be newer than the rows that were told last.
            self.look_at_all().await?;
            tell(&self.to, &Event::End { row }).await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn look_at_all(&mut self) -> Result<(), Over> {
        for start in (0..self.head.members).step_by(PART) {
            self.look_from(start, start + PART).await?;
        }
        Ok(())
    }

    /// Runs that changed, and those that were live, whose numbers move.
    async fn look_at(&mut self, changed: &BTreeSet<RunId>) -> Result<(), Over> {
        let live = self.rows.iter().filter(|(_, row)| row.live.is_some()).map(|(place, _)| *place);
        let places: BTreeSet<usize> = live.chain(self.places.of(changed)).collect();
        for place in places {
            self.look_from(place, place + 1).await?;
        }
        Ok(())
    }

    async fn look_from(&mut self, start: usize, end: usize) -> Result<(), Over> {
        let members = self.app.authority.part(self.head.sweep_id, start..end.min(self.head.members)).await?;
        for (place, row) in (start..).zip(rows::run_rows(&members)) {
            if self.rows.get(&place) != Some(&row) {
                tell(&self.to, &Event::Run { row: Box::new(row.clone()) }).await?;
                self.places.note(row.run_id, place);
                self.rows.insert(place, row);
            }
        }
        Ok(())
    }
}

/// The runs that changed; `None` when there were too many to be told apart.
fn drain(changes: &mut Receiver<RunId>, first: Option<Result<RunId, RecvError>>) -> Option<BTreeSet<RunId>> {
    let mut changed: BTreeSet<RunId> = first.transpose().ok()?.into_iter().collect();
    loop {
        match changes.try_recv() {
            Ok(run_id) => drop(changed.insert(run_id)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return Some(changed),
            Err(TryRecvError::Lagged(_)) => return None,
        }
    }
}

async fn tell(to: &mpsc::Sender<Result<sse::Event, Infallible>>, event: &Event) -> Result<(), Over> {
    let event = sse::Event::default().json_data(event).map_err(|_| Over)?;
    to.send(Ok(event)).await.map_err(|_| Over)
}
