//! The worker's life: register, serve each slot, end in order. What happens inside an attempt is `attempt`'s.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isoloss_wire::api::{Acquire, Acquired, Code, Instance, Leave, Problem, Register, Slot, WORKER_VERSION};
use isoloss_wire::child::CHILD_PROTOCOL;
use isoloss_wire::{Client, ClientError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::artifacts::ArtifactsError;
use crate::attempt::attempt;
use crate::checkpoints::Checkpoints;
use crate::config::Config;
use crate::corpora::Corpora;
use crate::delivery::deliver;
use crate::gpus::{Asking, Gpus};
use crate::held::Held;
use crate::identity::{self, Lock};
use crate::meter::Meter;
use crate::mps::{self, Mps};
use crate::outbox::Outbox;
use crate::programs::Programs;
use crate::renewal::{renew_all, sane_interval};
use crate::retention::{Keep, clear_up_orphans};
use crate::room::{Look, Room};

/// How long the coordinator may hold a request for work.
const ACQUIRE_WAIT_SECONDS: f64 = 20.0;
const PAUSE: Duration = Duration::from_secs(1);

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("a worker needs at least one slot")]
    NoSlots,
    #[error("another worker uses the data directory {dir}{}; end that one, or give this one a directory of its own",
        if holder.is_empty() { String::new() } else { format!(" ({holder})") })]
    Occupied { dir: std::path::PathBuf, holder: String },
    #[error("cannot use the data directory {dir}: {source}")]
    DataDir { dir: std::path::PathBuf, source: io::Error },
    #[error("the coordinator refuses this worker: {0}")]
    Refused(Box<Problem>),
    #[error("this worker ended, because another took its name while the coordinator did not hear of it: {0}")]
    Replaced(Box<Problem>),
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
    #[error("cannot make an HTTP client: {0}")]
    Client(ClientError),
}

/// What all tasks of a worker share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) instance: Instance,
    pub(crate) client: Client,
    pub(crate) held: Held,
    pub(crate) outbox: Outbox,
    pub(crate) corpora: Corpora,
    pub(crate) programs: Programs,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) room: Room,
    pub(crate) mps: Mps,
    pub(crate) gpus: Gpus,
    renew_every: Mutex<Duration>,
    /// The coordinator's word that another process has this worker's name.
    replaced: watch::Sender<Option<Box<Problem>>>,
}

/// Runs a worker until `shutdown` becomes true (or its sender is dropped) and its children have ended.
pub async fn run(config: Config, mut shutdown: watch::Receiver<bool>) -> Result<(), WorkerError> {
    if config.slots.is_empty() {
        return Err(WorkerError::NoSlots);
    }
    let at_dir = |source| WorkerError::DataDir { dir: config.data_dir.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir).map_err(at_dir)?;
    let _lock = match Lock::take(&config.data_dir).map_err(at_dir)? {
        Ok(lock) => lock,
        Err(holder) => return Err(WorkerError::Occupied { dir: config.data_dir, holder }),
    };
    let begun = tokio::select! {
        begun = mps::begin(&config) => begun,
        _ = shutdown.wait_for(|ended| *ended) => return Ok(()),
    };
    let (mps, daemon) = begun;
    let served = match open(&config, mps) {
        Ok(context) => serve(Arc::new(context), shutdown).await,
        Err(source) => Err(at_dir(source)),
    };
    // Last, when its clients are gone.
    if let Some(daemon) = daemon {
        daemon.end().await;
    }
    served
}

/// Serves the slots until `shutdown` becomes true or another has this worker's name, and all children have ended.
async fn serve(context: Arc<Context>, mut shutdown: watch::Receiver<bool>) -> Result<(), WorkerError> {
    let at_dir = |source| WorkerError::DataDir { dir: context.config.data_dir.clone(), source };
    let left_over = context.outbox.left_over().map_err(at_dir)?;
    tokio::select! {
        ready = get_ready(&context) => ready?,
        _ = shutdown.wait_for(|ended| *ended) => return Ok(()),
    }
    let (all_ended, ended) = watch::channel(false);
    let shutdown = context.until_replaced(shutdown);
    let mut tasks = JoinSet::new();
    for settle in left_over {
        let (context, shutdown) = (context.clone(), shutdown.clone());
        tasks.spawn(async move {
            deliver(&context.client, &context.outbox, settle, false, shutdown).await;
        });
    }
    tasks.spawn(clear_up_at_start(context.clone(), shutdown.clone()));
    for slot in context.config.slots.clone() {
        tasks.spawn(serve_slot(context.clone(), slot, shutdown.clone()));
    }
    let renewing = tokio::spawn(renew_all(context.clone(), ended));
    while let Some(task) = tasks.join_next().await {
        if let Err(error) = task {
            tracing::error!(%error, "a task of the worker broke");
        }
    }
    all_ended.send_replace(true);
    if let Err(error) = renewing.await {
        tracing::error!(%error, "the renewing task broke");
    }
    let replaced = context.replaced.borrow().clone();
    match replaced {
        Some(problem) => Err(WorkerError::Replaced(problem)),
        None => {
            context.leave().await;
            Ok(())
        }
    }
}

/// Beside the work, which does not wait for it.
async fn clear_up_at_start(context: Arc<Context>, mut shutdown: watch::Receiver<bool>) {
    if context.config.keep == Keep::All {
        return;
    }
    tokio::select! {
        () = clear_up_orphans(&context) => {}
        _ = shutdown.wait_for(|ended| *ended) => {}
    }
}

fn open(config: &Config, mps: Mps) -> io::Result<Context> {
    let data_dir = &config.data_dir;
    let client = Client::trusting(&config.server, config.token.clone(), config.ca_file.as_deref());
    let client = client.map_err(io::Error::other)?.with_tries(1);
    let checkpoints = config.checkpoints.clone().unwrap_or_else(|| data_dir.join("checkpoints"));
    Ok(Context {
        client,
        held: Held::default(),
        outbox: Outbox::open(data_dir)?,
        corpora: Corpora::open(data_dir.join("corpora"), &config.corpora)?,
        programs: Programs::open(data_dir.join("trainers"))?,
        checkpoints: Checkpoints::open(checkpoints.clone())?,
        room: Room::of(vec![data_dir.clone(), checkpoints]),
        mps,
        gpus: Gpus::of(&config.slots),
        renew_every: Mutex::new(PAUSE),
        replaced: watch::Sender::new(None),
        instance: identity::begin(data_dir)?,
        config: config.clone(),
    })
}

impl Context {
    pub(crate) fn renew_every(&self) -> Duration {
        *self.renew_every.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To a coordinator that started anew, or that heard an earlier life of this worker last: it takes up what is held here.
    /// Where it goes on hearing another process under this name, this worker has to end.
    pub(crate) async fn register_again(&self) {
        tracing::info!("the coordinator does not know this worker any more");
        let Err(error) = self.register().await else { return };
        tracing::warn!(%error, "cannot register again");
        if let Some(problem) = error.problem().filter(|problem| problem.code == Code::Conflict) {
            self.replaced.send_replace(Some(Box::new(problem.clone())));
        }
    }

    /// Tells the coordinator who is here and what is held.
    pub(crate) async fn register(&self) -> Result<(), ClientError> {
        let config = &self.config;
        let register = Register {
            schema_version: WORKER_VERSION,
            protocol: CHILD_PROTOCOL,
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            worker: config.name.clone(),
            instance: Some(self.instance.clone()),
            slots: config.slots.clone(),
            gpu_names: config.gpu_names.clone(),
            storage: config.storage_label().to_owned(),
            allow_commands: config.allow_commands,
            holding: self.held.renewals(),
        };
        match self.client.register(&register).await {
            Ok(registered) => {
                let interval = sane_interval(registered.renew_seconds);
                *self.renew_every.lock().unwrap_or_else(PoisonError::into_inner) = interval;
                Ok(())
            }
            Err(error) => {
                self.held.put_back(register.holding);
                Err(error)
            }
        }
    }
}

impl Context {
    /// Becomes true with `shutdown`, and when this worker was replaced.
    fn until_replaced(&self, mut shutdown: watch::Receiver<bool>) -> watch::Receiver<bool> {
        let (stop, stopped) = watch::channel(false);
        let mut replaced = self.replaced.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                _ = shutdown.wait_for(|ended| *ended) => {}
                replaced = replaced.wait_for(Option::is_some) => {
                    let why = replaced.as_ref().ok().and_then(|problem| problem.as_ref()).map(ToString::to_string);
                    tracing::error!(why, "this worker ends");
                }
            }
            stop.send_replace(true);
        });
        stopped
    }

    /// Says that nothing more will come, so that the name is free and nobody waits for the leases. A worker that has
    /// something left to say comes back to say it.
    async fn leave(&self) {
        if self.outbox.left_over().is_ok_and(|left| left.is_empty()) {
            let leave = Leave { worker: self.config.name.clone(), instance: Some(self.instance.id.clone()) };
            if let Err(error) = self.client.leave(&leave).await {
                tracing::debug!(%error, "no goodbye to the coordinator");
            }
        }
    }
}

/// The artifacts are tried before anybody counts on this worker.
async fn get_ready(context: &Context) -> Result<(), WorkerError> {
    if let Some(artifacts) = &context.config.artifacts {
        artifacts.probe().await?;
    }
    register_at_last(context).await
}

/// Waits for a coordinator that is not there yet; a refusal is final.
async fn register_at_last(context: &Context) -> Result<(), WorkerError> {
    let mut told = false;
    loop {
        match context.register().await {
            Ok(()) => return Ok(()),
            Err(ClientError::Refused(problem) | ClientError::NotFound(problem))
                if !matches!(problem.code, Code::Busy | Code::Internal) =>
            {
                return Err(WorkerError::Refused(problem));
            }
            Err(error) if error.code() == Some(Code::Busy) && !std::mem::replace(&mut told, true) => {
                tracing::warn!(%error, "waiting to be let in");
            }
            Err(error) => tracing::info!(%error, "waiting for the coordinator"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether storage allows to ask for work; a shortage is said once, and so is its end.
pub(crate) fn has_room(context: &Context) -> bool {
    match context.room.look() {
        Look::Enough => true,
        Look::Again => {
            tracing::warn!("there is room again: this worker goes on");
            true
        }
        Look::Short { said: true, .. } => false,
        Look::Short { free_bytes, needed_bytes, .. } => {
            let dir = context.config.data_dir.display();
            tracing::warn!(%dir, free_bytes, needed_bytes, "the disk has no room or fails: this worker asks for no work");
            false
        }
    }
}

/// Whether the coordinator takes this worker for a stranger.
pub(crate) fn is_forgotten(error: &ClientError) -> bool {
    matches!(error.code(), Some(Code::UnknownWorker | Code::Conflict))
}

/// Whether the coordinator answers and does not take this worker's token.
fn is_locked_out(error: &ClientError) -> bool {
    matches!(error.code(), Some(Code::Unauthorized | Code::Forbidden | Code::TooMany))
}

/// Asks for work once it is the slot's turn, and when that was. The right to ask stays in `asking` for the next question: what
/// an answer that was lost had granted goes to this slot alone.
async fn ask(context: &Context, slot: &Slot, asking: &mut Option<Asking>) -> (Instant, Result<Acquired, ClientError>) {
    let right = match asking.take() {
        Some(kept) => kept,
        None => context.gpus.asking(slot).await,
    };
    let right = asking.insert(right);
    loop {
        let wait_seconds = if right.is_patient().await { ACQUIRE_WAIT_SECONDS } else { 0.0 };
        let acquire = Acquire {
            worker: context.config.name.clone(),
            instance: Some(context.instance.id.clone()),
            slot: slot.name.clone(),
            wait_seconds,
        };
        let asked = Instant::now();
        tokio::select! {
            acquired = context.client.acquire(&acquire) => return (asked, acquired),
            () = right.overtaken(), if wait_seconds > 0.0 => {}
        }
    }
}

async fn serve_slot(context: Arc<Context>, slot: Slot, mut shutdown: watch::Receiver<bool>) {
    let (mut meter, mut spare) = (Meter::default(), None);
    let (mut asking, mut locked_out) = (None, false);
    while !*shutdown.borrow() {
        if !has_room(&context) {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => continue,
                _ = shutdown.wait_for(|ended| *ended) => return,
            }
        }
        let (asked, acquired) = tokio::select! {
            answered = ask(&context, &slot, &mut asking) => answered,
            _ = shutdown.wait_for(|ended| *ended) => return,
        };
        match acquired {
            Ok(acquired) => {
                locked_out = false;
                let mut work = acquired.lease.map(|lease| (lease, asked));
                let _busy = work.as_ref().and_then(|_| Some(asking.take()?.granted()));
                // An attempt that ends well brings the slot's next work along.
                while let Some((lease, asked)) = work {
                    work = attempt(&context, &slot, &lease, asked, &mut meter, &mut spare, shutdown.clone()).await;
                }
                // Nobody knows when there will be work again, and of which kind.
                if let Some(spare) = spare.take() {
                    spare.end().await;
                }
                continue;
            }
            Err(error) if is_forgotten(&error) => context.register_again().await,
            Err(error) if is_locked_out(&error) => {
                if !std::mem::replace(&mut locked_out, true) {
                    let fix = "give it a token of a worker and start it again";
                    tracing::warn!(slot = slot.name, %error, fix, "the coordinator does not let this worker in any more");
                }
            }
            Err(error) => tracing::debug!(slot = slot.name, %error, "no answer to a request for work"),
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = shutdown.wait_for(|ended| *ended) => return,
        }
    }
}
