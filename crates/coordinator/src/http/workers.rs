//! The workers' side of the API. Whoever speaks of an attempt shows its lease's key: without it nothing of what he says is
//! taken. The attempt number is the fencing token; the store decides about it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use isoloss_store::{Checkpoint, Refusal};
use isoloss_sweep::{Outcome, RunId};
use isoloss_wire::api::{
    self, Acquire, Acquired, Code, Lease, Register, Registered, Renew, Renewal, Renewed, RestingGpu,
};
use isoloss_wire::api::{Leave, Left, Page, SCHEMA_VERSION, Settle, Settled, Verdict, VerdictRow};
use isoloss_wire::api::{WORKER_VERSION, WorkerRow, Workers};
use isoloss_wire::child::CHILD_PROTOCOL;
use metrics::{counter, histogram};

use crate::authority::{AuthorityError, Settlement};
use crate::crash::Point;
use crate::daemon::App;
use crate::http::refusal::{Answer, Asked, Body, Refused};
use crate::http::{names, pages};
use crate::schedule::{Device, Ending, GpuRest, Grant, Holding, Instance, Progress, Resting, Slot, WorkerSpec};
use crate::serving::Peer;

/// A request for work is held this long at most.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Characters of a worker's own words that are shown.
const WORDS_MAX: usize = 300;
/// No GPU of a worker rests for longer.
const REST_MAX: Duration = Duration::from_secs(3600);
/// For whoever speaks of a lease that is not his.
const FOREIGN: &str = "the key of the lease was not shown: another worker holds it";

pub(crate) async fn register(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    Body(register): Body<Register>,
) -> Answer<Registered> {
    if register.schema_version != WORKER_VERSION || register.protocol != CHILD_PROTOCOL {
        let detail = format!(
            "worker {:?} speaks version {}.{}, this coordinator {WORKER_VERSION}.{CHILD_PROTOCOL}: give both the same \
             isoloss, the coordinator first",
            register.worker, register.schema_version, register.protocol
        );
        tracing::warn!(detail, code_version = register.code_version, "a worker may not join");
        return Err(Refused::new(Code::Version, detail));
    }
    names::check(&register)?;
    let TakenIn { holding, news, .. } = take_in(&app, register.holding);
    let place = register.instance.as_ref().map_or("a process", |instance| &instance.place);
    let spec = WorkerSpec {
        worker: register.worker.clone(),
        place: format!("{place}, at {}", peer.address.to_canonical()),
        instance: register.instance.map(|own| Instance { id: own.id, home: own.home, start: own.start }),
        code_version: register.code_version,
        slots: register.slots.into_iter().map(slot).collect(),
        gpu_names: register.gpu_names,
        storage: register.storage,
        allow_commands: register.allow_commands,
    };
    let (slots, held, from) = (spec.slots.len(), holding.len(), spec.place.clone());
    let storage = spec.storage.clone();
    app.authority.join(spec, holding).await.inspect_err(|error| {
        tracing::warn!(worker = register.worker, from, %error, "a worker may not join");
    })?;
    tracing::info!(worker = register.worker, from, slots, holding = held, "worker joins");
    publish(&app, &register.worker, &storage, news).await?;
    let lease_seconds = app.config.lease.as_secs_f64();
    Ok(Json(Registered { schema_version: SCHEMA_VERSION, lease_seconds, renew_seconds: lease_seconds / 10.0 }))
}

fn slot(slot: api::Slot) -> Slot {
    let device = match slot.gpu {
        Some(uuid) => Device::Gpu { uuid },
        None => Device::Cpu { threads: slot.threads },
    };
    Slot { name: slot.name, device, memory_bytes: slot.memory_bytes }
}

/// New checkpoints of one attempt.
type News = (RunId, u64, Vec<api::CheckpointRef>);

/// What renewals say.
#[derive(Default)]
struct TakenIn {
    holding: Vec<Holding>,
    news: Vec<News>,
    /// Attempts whose key was not shown.
    foreign: Vec<(RunId, u64)>,
}

/// Sorts what renewals say into what the scheduler wants to know, checkpoints, and chatter.
fn take_in(app: &App, renewals: Vec<Renewal>) -> TakenIn {
    let mut taken = TakenIn::default();
    for renewal in renewals {
        if !app.keys.opens(renewal.run_id, renewal.attempt, renewal.key.as_ref()) {
            taken.foreign.push((renewal.run_id, renewal.attempt));
            continue;
        }
        app.chatter.hear(renewal.run_id, renewal.attempt, renewal.log, renewal.points);
        if !renewal.checkpoints.is_empty() {
            taken.news.push((renewal.run_id, renewal.attempt, renewal.checkpoints));
        }
        let progress = renewal.live.map(|live| Progress {
            step: live.step,
            steps: live.steps,
            tokens: live.tokens.get(),
            tokens_per_second: live.tokens_per_second,
            loss_nats: live.loss_nats,
            bits_per_byte: live.bits_per_byte,
            memory_bytes: live.memory_bytes,
            mps: live.gpu.is_some_and(|gpu| gpu.mps),
        });
        let (run_id, attempt, slot) = (renewal.run_id, renewal.attempt, renewal.slot);
        taken.holding.push(Holding { run_id, attempt, slot, progress });
    }
    taken
}

/// Makes checkpoints known. One of a stale attempt is refused, which is no fault of the request.
async fn publish(app: &App, worker: &str, storage: &str, news: Vec<News>) -> Result<(), Refused> {
    for (run_id, attempt, checkpoints) in news {
        for one in checkpoints {
            let checkpoint =
                Checkpoint { step: one.step, path: one.path, digest: one.digest, storage: storage.to_owned() };
            match app.authority.publish(worker.to_owned(), run_id, attempt, checkpoint).await {
                Ok(()) | Err(AuthorityError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Holds the answer until there is work, the time is over, or the coordinator ends.
pub(crate) async fn acquire(State(app): State<Arc<App>>, Body(acquire): Body<Acquire>) -> Answer<Acquired> {
    let wait = Duration::try_from_secs_f64(acquire.wait_seconds).unwrap_or_default().min(WAIT_MAX);
    let mut shutdown = app.shutdown.clone();
    tokio::select! {
        grant = app.authority.acquire(acquire.worker, acquire.instance, acquire.slot, wait) => Ok(answer(&app, grant?)),
        _ = shutdown.wait_for(|ended| *ended) => Ok(answer(&app, None)),
    }
}

fn answer(app: &App, grant: Option<Grant>) -> Json<Acquired> {
    Json(Acquired { schema_version: SCHEMA_VERSION, lease: grant.map(|grant| lease(app, grant)) })
}

fn lease(app: &App, grant: Grant) -> Box<Lease> {
    Box::new(Lease {
        run_id: grant.run_id,
        attempt: grant.attempt,
        key: Some(app.keys.key(grant.run_id, grant.attempt)),
        run: grant.planned.run.clone(),
        seconds: grant.lease_ms as f64 / 1e3,
        trunk_steps: grant.planned.trunk_steps.clone(),
        resume: grant.resume.map(|one| api::CheckpointRef { path: one.path, step: one.step, digest: one.digest }),
        memory_bytes: Some(grant.planned.memory_bytes),
    })
}

pub(crate) async fn renew(State(app): State<Arc<App>>, Body(renew): Body<Renew>) -> Answer<Renewed> {
    let TakenIn { holding, news, foreign } = take_in(&app, renew.leases);
    let resting = Resting {
        why: renew.resting.as_deref().map(words),
        gpus: renew.gpus_resting.into_iter().map(gpu_rest).collect(),
    };
    let verdicts = app.authority.renew(renew.worker.clone(), renew.instance, holding, resting).await?;
    if !news.is_empty() {
        let storage = storage_of(&app, &renew.worker).await?;
        publish(&app, &renew.worker, &storage, news).await?;
    }
    let row = |verdict: crate::authority::Verdict| VerdictRow {
        run_id: verdict.run_id,
        attempt: verdict.attempt,
        verdict: match verdict.keep {
            Ok(lease_ms) => Verdict::Keep { seconds: lease_ms as f64 / 1e3 },
            Err(reason) => Verdict::Stop { reason: reason.to_string() },
        },
    };
    let stop = |(run_id, attempt): (RunId, u64)| {
        tracing::warn!(worker = renew.worker, run = run_id.short(), attempt, "a renewal without the key of its lease");
        VerdictRow { run_id, attempt, verdict: Verdict::Stop { reason: FOREIGN.to_owned() } }
    };
    let leases = verdicts.into_iter().map(row).chain(foreign.into_iter().map(stop)).collect();
    Ok(Json(Renewed { schema_version: SCHEMA_VERSION, leases }))
}

/// What a worker says for people, bounded and of one line that is read in the direction it is written in.
fn words(said: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    said.chars().filter(|c| !c.is_control() && !turns(*c)).take(WORDS_MAX).collect()
}

fn gpu_rest(said: RestingGpu) -> GpuRest {
    let left = Duration::try_from_secs_f64(said.seconds).unwrap_or_default().min(REST_MAX);
    GpuRest { uuid: said.gpu, reason: words(&said.reason), ms: left.as_millis() as u64 }
}

fn wire_rest(rest: GpuRest) -> RestingGpu {
    RestingGpu { gpu: rest.uuid, reason: rest.reason, seconds: rest.ms as f64 / 1e3 }
}

async fn storage_of(app: &App, worker: &str) -> Result<String, Refused> {
    let name = worker.to_owned();
    let known = app.authority.read(move |truth| truth.state.worker(&name).map(|known| known.spec.clone())).await?;
    let unknown = || Refused::new(Code::UnknownWorker, format!("worker {worker:?} is not known here"));
    known.map(|spec| spec.storage.clone()).ok_or_else(unknown)
}

pub(crate) async fn settle(State(app): State<Arc<App>>, Body(settle): Body<Settle>) -> Answer<Settled> {
    let crash = |point| app.config.crash.iter().for_each(|crash| crash.pass(point));
    crash(Point::SettleArrived);
    check_key(&app, &settle).await?;
    app.chatter.hear(settle.run_id, settle.attempt, settle.log, Vec::new());
    keep_log(&app, settle.run_id);
    if !settle.checkpoints.is_empty() {
        // Before the ending, after which nothing of this attempt is taken any more.
        let storage = storage_of(&app, &settle.worker).await?;
        publish(&app, &settle.worker, &storage, vec![(settle.run_id, settle.attempt, settle.checkpoints)]).await?;
    }
    let ending = match settle.ending {
        api::Ending::Outcome(outcome) => Ending::Outcome(outcome),
        api::Ending::Yielded { reason, wait } => Ending::Yielded { reason, wait },
    };
    let finished = match &ending {
        Ending::Outcome(outcome) => finished(outcome),
        Ending::Yielded { .. } => None,
    };
    // Told one after the other without waiting in between, so that both are of one group.
    let next = async {
        match settle.next {
            true => {
                let (worker, slot) = (settle.worker.clone(), settle.device);
                app.authority.acquire(worker, settle.instance, slot, Duration::ZERO).await.ok().flatten()
            }
            false => None,
        }
    };
    let settled = app.authority.settle(settle.worker.clone(), settle.run_id, settle.attempt, ending);
    let (settled, next) = tokio::join!(biased; settled, next);
    let duplicate = match settled? {
        Settlement::Recorded => false,
        Settlement::AlreadyRecorded => true,
        Settlement::Refused(refusal) => return Err(fenced(settle.run_id, settle.attempt, refusal)),
    };
    if let Some((tokens, flops, seconds)) = finished
        && !duplicate
    {
        counter!("isoloss_tokens_total").increment(tokens);
        counter!("isoloss_flops_total").increment(flops);
        histogram!("isoloss_run_duration_seconds").record(seconds);
    }
    crash(Point::SettleRecorded);
    let lease = next.map(|next| lease(&app, next));
    Ok(Json(Settled { schema_version: SCHEMA_VERSION, duplicate, lease }))
}

/// Only who was given the attempt may say how it ended. Of a run that nobody knows there is nothing to protect.
async fn check_key(app: &App, settle: &Settle) -> Result<(), Refused> {
    let (run_id, attempt) = (settle.run_id, settle.attempt);
    if app.keys.opens(run_id, attempt, settle.key.as_ref()) {
        return Ok(());
    }
    if app.authority.run(run_id).await?.is_none() {
        return Err(Refusal::UnknownRun.into());
    }
    tracing::warn!(worker = settle.worker, run = run_id.short(), attempt, "an ending without the key of its lease");
    Err(Refused::new(Code::WrongKey, FOREIGN))
}

pub(crate) async fn leave(State(app): State<Arc<App>>, Body(leave): Body<Leave>) -> Answer<Left> {
    tracing::info!(worker = leave.worker, "worker leaves");
    app.authority.leave(leave.worker, leave.instance).await?;
    Ok(Json(Left { schema_version: SCHEMA_VERSION }))
}

/// On a thread of its own, and nobody waits: lines for people must not hold up an ending.
fn keep_log(app: &Arc<App>, run_id: RunId) {
    if app.chatter.is_silent(run_id) {
        return;
    }
    let app = app.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = app.chatter.keep(run_id) {
            tracing::warn!(run = run_id.short(), %error, "cannot keep the last lines of a run");
        }
    });
}

fn finished(outcome: &Outcome) -> Option<(u64, u64, f64)> {
    match outcome {
        Outcome::Finished(run) => Some((run.tokens.get(), run.flops_spent.get() as u64, run.cost.seconds)),
        Outcome::Diverged(_) | Outcome::Failed(_) => None,
    }
}

fn fenced(run_id: RunId, attempt: u64, refusal: Refusal) -> Refused {
    tracing::info!(run = run_id.short(), attempt, %refusal, "result refused");
    refusal.into()
}

pub(crate) async fn list(State(app): State<Arc<App>>, Asked(page): Asked<Page>) -> Answer<Workers> {
    let row = |view: crate::authority::WorkerView| WorkerRow {
        worker: view.spec.worker.clone(),
        code_version: view.spec.code_version.clone(),
        slots: view.spec.slots.iter().map(wire_slot).collect(),
        gpu_names: view.spec.gpu_names.clone(),
        busy: view.held.len() as u64,
        silent_seconds: view.silent_ms as f64 / 1e3,
        draining: view.draining,
        held_back_seconds: view.held_back_ms.map(|ms| ms as f64 / 1e3),
        resting: view.resting,
        gpus_resting: view.gpus_resting.into_iter().map(wire_rest).collect(),
    };
    let (workers, next) = pages::cut(app.authority.workers().await?, &page, |view| view.spec.worker.clone())?;
    Ok(Json(Workers { schema_version: SCHEMA_VERSION, workers: workers.into_iter().map(row).collect(), next }))
}

fn wire_slot(slot: &Slot) -> api::Slot {
    let (gpu, threads) = match &slot.device {
        Device::Cpu { threads } => (None, *threads),
        Device::Gpu { uuid } => (Some(uuid.clone()), 1),
    };
    api::Slot { name: slot.name.clone(), gpu, threads, memory_bytes: slot.memory_bytes }
}
