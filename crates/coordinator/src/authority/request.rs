//! The handlers' side: typed requests and their answers.

use std::sync::Arc;
use std::time::Duration;

use isoloss_store::{Admission, Checkpoint, Record, Refusal, StoreError, Target};
use isoloss_sweep::{Outcome, RunId, SweepId};
use metrics::histogram;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::view::{RunView, Truth, WorkerView};
use crate::schedule::{
    Effect, Ending, Event, Grant, Holding, Millis, Occupied, Resting, Shortage, StopReason, WorkerId, WorkerSpec,
};

/// The authority is gone: the daemon is shutting down, or its store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is shutting down")]
pub struct Gone;

/// Outcomes whose bytes are read in one look.
const OUTCOMES: usize = 50;

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It must join again.
    #[error("worker {0:?} is not known here")]
    UnknownWorker(WorkerId),
    /// Another process speaks for its name.
    #[error(transparent)]
    Occupied(#[from] Occupied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a submission did. Trunks are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    pub sweep_id: SweepId,
    pub runs: u64,
    /// Those that no sweep had asked for before.
    pub added: u64,
    /// Those that already had a result.
    pub reused: u64,
    /// Those that were cancelled and are no longer.
    pub revived: u64,
    /// Those that failed or are quarantined, and stay so.
    pub failed: u64,
    /// Those that need other memory or threads from now on.
    pub amended: u64,
    /// Those that would, and are under way with what they were given.
    pub kept: u64,
    /// Whether an order holds the sweep back.
    pub paused: bool,
    /// Whether the sweep was not known before.
    pub is_first: bool,
}

/// What became of a reported ending. All of them mean to the worker: forget it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Durable. An attempt that broke or yielded is recorded as lost, and the run tried again within its budget.
    Recorded,
    /// The same was recorded before: an answer was lost.
    AlreadyRecorded,
    /// Not recorded: stale, conflicting or unknown.
    Refused(Refusal),
}

/// The answer to a renewal of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub run_id: RunId,
    pub attempt: u64,
    /// How long the lease lasts, or why it is over.
    pub keep: Result<Millis, StopReason>,
}

/// A short look at the truth.
pub(super) type Look = Box<dyn FnOnce(&Truth<'_>) + Send>;

/// What the keeper is asked.
pub(super) enum Request {
    Event(Box<Event>, oneshot::Sender<Answer>),
    Stop,
}

/// What an event led to, told after its records are durable.
#[derive(Debug)]
pub(super) struct Answer {
    /// Records are left out.
    pub(super) effects: Vec<Effect>,
    pub(super) submitted: Option<Submitted>,
}

impl Answer {
    fn refusal(&self) -> Option<Refusal> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        })
    }

    /// Runs that an order changed.
    fn ordered(&self) -> u64 {
        let runs = self.effects.iter().find_map(|effect| match effect {
            Effect::Ordered { runs } => Some(*runs),
            _ => None,
        });
        runs.unwrap_or(0)
    }

    /// Whether whoever asked is the worker that it says it is.
    fn known(&self) -> Result<(), AuthorityError> {
        let error = self.effects.iter().find_map(|effect| match effect {
            Effect::Rejoin { worker } => Some(AuthorityError::UnknownWorker(worker.clone())),
            Effect::Occupied(occupied) => Some(occupied.clone().into()),
            _ => None,
        });
        error.map_or(Ok(()), Err)
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |effect: &Effect| match effect {
            Effect::Keep { run_id, attempt, lease_ms, .. } => Some((*run_id, *attempt, Ok(*lease_ms))),
            Effect::Stop { run_id, attempt, reason, .. } => Some((*run_id, *attempt, Err(*reason))),
            _ => None,
        };
        let verdicts = self.effects.iter().filter_map(verdict);
        verdicts.map(|(run_id, attempt, keep)| Verdict { run_id, attempt, keep }).collect()
    }
}

/// The way to the one owner of the truth; clones share it.
#[derive(Clone)]
pub struct Authority {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) looks: mpsc::Sender<Look>,
    pub(super) changes: broadcast::Sender<RunId>,
    /// Rises when there may be work for a slot that was told there is none.
    pub(super) work: watch::Receiver<u64>,
}

impl Authority {
    /// Hands in a sweep; the same again adds nothing, and revives what was cancelled.
    pub async fn submit(&self, admission: Admission) -> Result<Submitted, AuthorityError> {
        let event = Event::Submit { admission: Arc::new(admission) };
        let event = aside(move || writable(event)).await??;
        let answer = self.tell(event).await?;
        match answer.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(answer.submitted.expect("a submission that was not refused is counted")),
        }
    }

    /// A worker starts or comes back; the verdicts are on the attempts that it says it holds.
    pub async fn join(&self, spec: WorkerSpec, holding: Vec<Holding>) -> Result<Vec<Verdict>, AuthorityError> {
        let answer = self.tell(Event::Join { spec, holding }).await?;
        answer.known()?;
        Ok(answer.verdicts())
    }

    /// A worker ends in good order.
    pub async fn leave(&self, worker: WorkerId, instance: Option<String>) -> Result<(), AuthorityError> {
        self.tell(Event::Leave { worker, instance }).await?.known()
    }

    /// Keeps further runs from a worker, or lets it have some again.
    pub async fn drain(&self, worker: WorkerId, on: bool) -> Result<(), AuthorityError> {
        self.tell(Event::Drain { worker, on }).await?.known()
    }

    /// Work for one free slot, waiting for some as long as `wait`.
    pub async fn acquire(
        &self,
        worker: WorkerId,
        instance: Option<String>,
        slot: String,
        wait: Duration,
    ) -> Result<Option<Grant>, AuthorityError> {
        let deadline = Instant::now() + wait;
        let mut work = self.work.clone();
        loop {
            work.borrow_and_update();
            let event = Event::Acquire { worker: worker.clone(), instance: instance.clone(), slot: slot.clone() };
            let asked = Instant::now();
            let answer = self.tell(event).await?;
            answer.known()?;
            let grant = answer.effects.into_iter().find_map(|effect| match effect {
                Effect::Grant(grant) => Some(grant),
                _ => None,
            });
            if grant.is_some() {
                histogram!("isoloss_dispatch_seconds").record(asked.elapsed());
                return Ok(grant);
            }
            match timeout_at(deadline, work.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Gone.into()),
                Err(_) => return Ok(None),
            }
        }
    }

    /// Sign of life of a worker and of the attempts named.
    pub async fn renew(
        &self,
        worker: WorkerId,
        instance: Option<String>,
        holding: Vec<Holding>,
        resting: Resting,
    ) -> Result<Vec<Verdict>, AuthorityError> {
        let answer = self.tell(Event::Renew { worker, instance, holding, resting }).await?;
        answer.known()?;
        Ok(answer.verdicts())
    }

    /// Makes a checkpoint known. Again is fine.
    pub async fn publish(
        &self,
        worker: WorkerId,
        run_id: RunId,
        attempt: u64,
        checkpoint: Checkpoint,
    ) -> Result<(), AuthorityError> {
        let event = Event::Publish { worker, run_id, attempt, checkpoint };
        match self.tell(event).await?.refusal() {
            None | Some(Refusal::AlreadyRecorded) => Ok(()),
            Some(refusal) => Err(refusal.into()),
        }
    }

    /// The end of an attempt. What it answers is durable.
    pub async fn settle(
        &self,
        worker: WorkerId,
        run_id: RunId,
        attempt: u64,
        ending: Ending,
    ) -> Result<Settlement, AuthorityError> {
        let event = writable(Event::Settle { worker, run_id, attempt, ending })?;
        Ok(match self.tell(event).await?.refusal() {
            None => Settlement::Recorded,
            Some(Refusal::AlreadyRecorded) => Settlement::AlreadyRecorded,
            Some(refusal) => Settlement::Refused(refusal),
        })
    }

    /// Whether the disk has too little room for more runs.
    pub async fn room(&self, shortage: Option<Shortage>) -> Result<(), Gone> {
        match self.tell(Event::Room { shortage }).await {
            Err(AuthorityError::Gone(gone)) => Err(gone),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Why no run is granted to anybody, if that is so.
    pub async fn shortage(&self) -> Result<Option<Shortage>, Gone> {
        self.read(|truth| truth.state.shortage()).await
    }

    /// How many runs an order changed.
    pub async fn cancel(&self, target: Target) -> Result<u64, AuthorityError> {
        self.order(Event::Cancel { target }).await
    }

    pub async fn pause(&self, target: Target) -> Result<u64, AuthorityError> {
        self.order(Event::Pause { target }).await
    }

    pub async fn resume(&self, target: Target) -> Result<u64, AuthorityError> {
        self.order(Event::Resume { target }).await
    }

    /// Lets these runs of a sweep go too, or all of them again.
    pub async fn choose(&self, sweep_id: SweepId, runs: Option<Vec<RunId>>) -> Result<u64, AuthorityError> {
        self.order(Event::Choose { sweep_id, runs }).await
    }

    /// Starts failed and quarantined runs afresh; a run named by itself also when it diverged or was cancelled.
    pub async fn retry(&self, target: Target) -> Result<u64, AuthorityError> {
        self.order(Event::Retry { target }).await
    }

    pub async fn run(&self, run_id: RunId) -> Result<Option<RunView>, Gone> {
        self.read(move |truth| truth.run(run_id)).await
    }

    #[expect(clippy::redundant_closure_for_method_calls, reason = "the path of the method fixes one lifetime")]
    pub async fn workers(&self) -> Result<Vec<WorkerView>, Gone> {
        self.read(|truth| truth.workers()).await
    }

    /// Why a run is where it is, most important first; `None` for a run that is not known.
    pub async fn explain(&self, run_id: RunId) -> Result<Option<Vec<String>>, Gone> {
        self.read(move |truth| truth.explain(run_id)).await
    }

    /// The whole accepted outcome.
    pub async fn outcome(&self, run_id: RunId) -> Result<Option<Outcome>, AuthorityError> {
        Ok(self.outcomes(&[run_id]).await?.swap_remove(0))
    }

    /// The whole accepted outcomes of these runs, in their order.
    pub async fn outcomes(&self, runs: &[RunId]) -> Result<Vec<Option<Outcome>>, AuthorityError> {
        let mut outcomes = Vec::with_capacity(runs.len());
        for part in runs.chunks(OUTCOMES) {
            let part = part.to_vec();
            for written in self.read(move |truth| truth.outcomes(&part)).await?? {
                outcomes.push(written.map(|written| written.outcome()).transpose()?);
            }
        }
        Ok(outcomes)
    }

    /// A sweep as it was admitted.
    pub async fn admission(&self, sweep_id: SweepId) -> Result<Option<Arc<Admission>>, AuthorityError> {
        match self.read(move |truth| truth.admission(sweep_id)).await?? {
            // As long as the sweep has runs.
            Some(written) => aside(move || written.admission()).await?.map(Some).map_err(Into::into),
            None => Ok(None),
        }
    }

    /// Runs whose status or progress changed, from now on. A receiver that lags is told so and must read again.
    pub fn changes(&self) -> broadcast::Receiver<RunId> {
        self.changes.subscribe()
    }

    /// Looks at the durable truth, at once as a whole. The look must be short: everybody else waits.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Truth<'_>) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        // The reader may be gone by then.
        let look = move |truth: &Truth<'_>| drop(reply.send(look(truth)));
        self.looks.send(Box::new(look)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// Ends the authority once everything before this is durable and answered.
    pub async fn stop(&self) {
        // Gone already is as good.
        drop(self.requests.send(Request::Stop).await);
    }

    async fn order(&self, event: Event) -> Result<u64, AuthorityError> {
        let answer = self.tell(event).await?;
        match answer.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => Ok(answer.ordered()),
        }
    }

    /// What could not be written must not come here: the scheduler would decide on it. See [`writable`].
    async fn tell(&self, event: Event) -> Result<Answer, AuthorityError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Event(Box::new(event), reply)).await.map_err(|_| Gone)?;
        Ok(answer.await.map_err(|_| Gone)?)
    }
}

/// The event, if its record can be written. Found out by those who ask, because it takes longer than all that the keeper
/// does with it.
fn writable(event: Event) -> Result<Event, StoreError> {
    let record = match &event {
        Event::Submit { admission } => Record::Admitted { admission: admission.clone() },
        Event::Settle { worker, run_id, attempt, ending: Ending::Outcome(outcome) } => {
            Record::Settled { run_id: *run_id, attempt: *attempt, worker: worker.clone(), outcome: outcome.clone() }
        }
        _ => return Ok(event),
    };
    isoloss_store::check(&record).map(|()| event)
}

/// Does what takes long where it holds no request up.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Gone> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Gone)
}
