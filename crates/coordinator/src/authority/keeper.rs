//! The owner's side: one thread, one loop, one commit for each group of requests.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use isoloss_store::{Record, Status, Store, StoreError};
use isoloss_sweep::RunId;
use metrics::{counter, histogram};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::request::{Answer, Authority, Look, Request, Submitted};
use super::tally::{self, Tally};
use super::view::Truth;
use crate::meters;
use crate::schedule::{Config, Effect, Event, Millis, State, step};

/// Requests that wait for the keeper; more senders wait themselves.
const QUEUE: usize = 4096;
/// Requests that share one fsync: bounds how long the first of them waits for the others, and a look for all of them. At 2,000
/// runs a second the 99th percentile of reads is 97 ms with 256 and 33 with 48, and as many runs get through.
const GROUP: usize = 48;
/// Looks between two groups: whoever looks must not stop those who act.
const LOOKS: usize = 64;
/// Changes a slow watcher may be behind before it must read again.
const CHANGES: usize = 4096;
/// How often time is looked at: well under any lease.
const TICK: Duration = Duration::from_millis(250);

/// The running authority, for the daemon that started it.
pub struct Keeper {
    ended: oneshot::Receiver<Result<(), StoreError>>,
}

impl Keeper {
    /// Waits for the end: well after [`Authority::stop`], or with the error after which the process must exit.
    pub async fn ended(self) -> Result<(), StoreError> {
        self.ended.await.expect("the keeper's thread sends how it ended, unless it panicked on a broken invariant")
    }
}

/// Starts the one thread that owns the store.
pub fn start(store: Store, config: Config) -> std::io::Result<(Authority, Keeper)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (requests, inbox) = mpsc::channel(QUEUE);
    let (looks, lookers) = mpsc::channel(QUEUE);
    let (changes, _) = broadcast::channel(CHANGES);
    let (has_work, work) = watch::channel(0);
    let (end, ended) = oneshot::channel();
    let began = Instant::now();
    let state = State::restore(config, store.ledger().clone(), 0);
    let mut core = Core { state, store, began, tally: Tally::new(), changes: changes.clone(), has_work };
    thread::Builder::new().name("authority".to_owned()).spawn(move || {
        let result = runtime.block_on(core.serve(inbox, lookers));
        if let Err(error) = &result {
            counter!("isoloss_store_fsync_errors_total").increment(1);
            tracing::error!(%error, "the store failed: nothing is acknowledged any more");
        }
        // Whoever waits for the end may open the store at once.
        drop(core);
        // The daemon may have gone without waiting.
        drop(end.send(result));
    })?;
    let authority = Authority { requests, looks, changes, work };
    Ok((authority, Keeper { ended }))
}

struct Core {
    state: State,
    store: Store,
    began: Instant,
    tally: Tally,
    changes: broadcast::Sender<RunId>,
    has_work: watch::Sender<u64>,
}

/// What a group owes once it is durable.
#[derive(Default)]
struct Group {
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    changed: Vec<RunId>,
    records: u64,
    stop: bool,
}

impl Core {
    async fn serve(
        &mut self,
        mut inbox: mpsc::Receiver<Request>,
        mut lookers: mpsc::Receiver<Look>,
    ) -> Result<(), StoreError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            // Between groups all is durable, so whoever only looks need not queue behind those who act.
            for _ in 0..LOOKS {
                match lookers.try_recv() {
                    Ok(look) => self.look(look),
                    Err(_) => break,
                }
            }
            let mut group = Group::default();
            tokio::select! {
                Some(look) = lookers.recv() => {
                    self.look(look);
                    continue;
                }
                request = inbox.recv() => match request {
                    Some(request) => self.take(request, &mut group)?,
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    let now = Instant::now();
                    self.apply(Event::Tick, &mut group)?;
                    histogram!("isoloss_scheduler_tick_seconds").record(now.elapsed());
                    self.tally.idle(self.state.idle_slots(self.now()));
                    Tally::alarmed(&self.state, self.now());
                }
            }
            for _ in 1..GROUP {
                match inbox.try_recv() {
                    Ok(request) if !group.stop => self.take(request, &mut group)?,
                    _ => break,
                }
            }
            let stop = group.stop;
            self.finish(group)?;
            if stop {
                return Ok(());
            }
        }
    }

    fn now(&self) -> Millis {
        u64::try_from(self.began.elapsed().as_millis()).expect("milliseconds of a process fit into 64 bits")
    }

    fn take(&mut self, request: Request, group: &mut Group) -> Result<(), StoreError> {
        match request {
            Request::Event(event, reply) => {
                let answer = self.apply(*event, group)?;
                group.answers.push((reply, answer));
            }
            Request::Stop => group.stop = true,
        }
        Ok(())
    }

    /// One step; its records are staged. An error here is fatal: scheduler and store would disagree.
    fn apply(&mut self, event: Event, group: &mut Group) -> Result<Answer, StoreError> {
        let mut submitted = match &event {
            Event::Submit { admission } => Some(self.count(admission)),
            _ => None,
        };
        if let Some(submitted) = &submitted {
            meters::transitions("pending", "submitted", submitted.added);
        }
        let has_room = matches!(event, Event::Room { shortage: None });
        let is_ending = matches!(event, Event::Settle { .. });
        let meaning = tally::meaning(&event);
        let now = self.now();
        let mut effects = step(&mut self.state, event, now);
        for effect in &effects {
            self.tally.effect(effect, meaning);
            match effect {
                Effect::Record(record) => {
                    if let (Record::Amended { needs }, Some(submitted)) = (record, &mut submitted) {
                        submitted.amended = self.count_runs(needs.iter().map(|needs| needs.run_id));
                    }
                    self.store.append(record)?;
                    group.records += 1;
                }
                // Behind its records: both ledgers have made the same of them, and need not both keep it.
                Effect::Changed { run_id } => {
                    self.state.share(*run_id, self.store.ledger());
                    group.changed.push(*run_id);
                }
                Effect::Refused(refusal) if is_ending => tally::refusal(refusal),
                _ => {}
            }
        }
        if let Some(submitted) = &submitted {
            self.state.share_members(submitted.sweep_id, self.store.ledger());
        }
        if has_room {
            // Slots that were told there is no work ask again.
            self.has_work.send_modify(|version| *version += 1);
        }
        effects.retain(|effect| !matches!(effect, Effect::Record(_)));
        Ok(Answer { effects, submitted })
    }

    fn look(&self, look: Look) {
        look(&Truth { state: &self.state, store: &self.store, now: self.now() });
    }

    /// Commits, and then tells everybody what they wait for.
    fn finish(&mut self, group: Group) -> Result<(), StoreError> {
        if group.records > 0 {
            let begin = Instant::now();
            self.store.commit()?;
            histogram!("isoloss_store_commit_seconds").record(begin.elapsed());
            counter!("isoloss_journal_records_total").increment(group.records);
        }
        for (reply, answer) in group.answers {
            // Whoever asked may be gone; a grant is given again when the slot asks again.
            drop(reply.send(answer));
        }
        if (group.records > 0 || !group.changed.is_empty()) && self.state.has_work() {
            self.has_work.send_modify(|version| *version += 1);
        }
        for run_id in group.changed {
            // Nobody watches, mostly.
            drop(self.changes.send(run_id));
        }
        Ok(())
    }

    /// Distinct runs, trunks left out.
    fn count_runs(&self, runs: impl Iterator<Item = RunId>) -> u64 {
        let known = |id: &RunId| self.store.ledger().run(*id).is_some_and(|row| !row.planned.is_trunk());
        runs.filter(known).collect::<BTreeSet<RunId>>().len() as u64
    }

    fn count(&self, admission: &isoloss_store::Admission) -> Submitted {
        let ledger = self.store.ledger();
        let runs = admission.runs.iter().filter(|planned| !planned.is_trunk());
        let before: Vec<_> = runs.map(|planned| ledger.run(planned.run_id).map(|row| ledger.status(row))).collect();
        let count = |one: &dyn Fn(Option<Status>) -> bool| before.iter().filter(|status| one(**status)).count() as u64;
        let others = ledger.other_needs(admission).map(|needs| needs.run_id);
        let is_leased = |id: &RunId| ledger.run(*id).is_some_and(|row| row.lease.is_some());
        Submitted {
            sweep_id: admission.sweep_id,
            runs: before.len() as u64,
            added: count(&|status| status.is_none()),
            reused: count(&|status| matches!(status, Some(Status::Finished | Status::Diverged))),
            revived: count(&|status| status == Some(Status::Cancelled)),
            failed: count(&|status| matches!(status, Some(Status::Failed | Status::Quarantined))),
            amended: 0,
            kept: self.count_runs(others.filter(is_leased)),
            paused: self.store.ledger().sweep(admission.sweep_id).is_some_and(|sweep| sweep.paused),
            is_first: self.store.ledger().sweep(admission.sweep_id).is_none(),
        }
    }
}
