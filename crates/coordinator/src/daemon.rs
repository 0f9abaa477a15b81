//! The coordinator's life: open the store, start the authority, serve until told to stop, end in order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isoloss_store::disk::{Disk, Faulty};
use isoloss_store::{Admission, Store, StoreError};
use isoloss_sweep::SweepId;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::admissions::{self, Admissions};
use crate::authority::{self, Authority, Head};
use crate::chatter::Chatter;
use crate::config::{self, Config};
use crate::crash::Crash;
use crate::fitting::Fits;
use crate::http::{self, Refused};
use crate::keys::Keys;
use crate::planning::{Reach, Site};
use crate::routing::Routings;
use crate::rows::Tally;
use crate::summaries::Summaries;
use crate::surveys::Surveys;
use crate::tokens::Tokens;
use crate::{disk, meters, schedule, serving};

/// Why a coordinator does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "{0} is not a loopback address: give certificate and key with --tls-cert and --tls-key, or allow plain HTTP there \
         with --insecure-listen"
    )]
    NotLoopback(SocketAddr),
    #[error("cannot use the data directory {dir}: {source}")]
    DataDir { dir: PathBuf, source: io::Error },
    #[error("cannot open the store: {0}{advice}", advice = .0.advice())]
    Open(StoreError),
    /// Nothing is acknowledged any more; a restart finds out what is durable.
    #[error("the store failed: {0}{advice}", advice = .0.advice())]
    Store(StoreError),
    #[error("cannot serve: {0}")]
    Serve(#[from] io::Error),
}

/// What handlers share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) authority: Authority,
    pub(crate) keys: Keys,
    pub(crate) shutdown: watch::Receiver<bool>,
    pub(crate) chatter: Chatter,
    pub(crate) fits: Fits,
    pub(crate) surveys: Surveys,
    pub(crate) routings: Routings,
    pub(crate) summaries: Arc<Summaries>,
    /// Places for watchers of sweeps.
    pub(crate) watchers: Arc<Semaphore>,
    /// Places for submissions that wait for their turn.
    pub(crate) submissions: Semaphore,
    /// Answers to submissions with a key.
    pub(crate) answers: Arc<http::Answers>,
    /// Held while a submission is surveyed and planned.
    pub(crate) planning: tokio::sync::Mutex<()>,
    admissions: Mutex<Admissions>,
}

/// Serves on `listener` until `shutdown` becomes true (or its sender is dropped), or the store fails.
pub async fn serve(config: Config, listener: TcpListener, shutdown: watch::Receiver<bool>) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() && config.tls.is_none() && !config.insecure_listen {
        return Err(ServeError::NotLoopback(address));
    }
    let tls = config.tls.as_ref().map(|tls| tls.acceptor.clone());
    let at_dir = |source| ServeError::DataDir { dir: config.data_dir.clone(), source };
    config.make_folders().map_err(at_dir)?;
    let tokens = Tokens::new(&config.data_dir, &config::token(&config.data_dir).map_err(at_dir)?);
    let answers = http::Answers::open(&config.data_dir).map_err(at_dir)?;
    let gate = http::Gate::new(tokens, address, tls.is_some(), &config.hosts);
    meters::recorder();
    let store_dir = config.store_dir();
    let fail_at = config.crash.as_ref().and_then(Crash::fsync);
    let through = move |folder| -> Box<dyn Disk> {
        match fail_at {
            Some(at) => Box::new(Faulty::new(folder, at)),
            None => Box::new(folder),
        }
    };
    let store = tokio::task::spawn_blocking(move || Store::open_through(&store_dir, through));
    let mut store = store.await.map_err(io::Error::other)?.map_err(ServeError::Open)?;
    store.sign(&address.to_string());
    tracing::info!(records = store.records(), bytes = store.size_bytes(), %address, "coordinator serves");
    let keys = Keys::open(&config.data_dir, store.ledger()).map_err(at_dir)?;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (lease_ms, stall_end_ms) = (millis(config.lease), config.stall_end.map(millis));
    let scheduling = schedule::Config { lease_ms, stall_end_ms, ..schedule::Config::default() };
    let (authority, keeper) = authority::start(store, scheduling)?;
    // Ends with the authority.
    tokio::spawn(disk::watch(authority.clone(), config.data_dir.clone(), config.disk_floor_bytes));
    let (closing, closed) = watch::channel(false);
    let app = Arc::new(App {
        chatter: Chatter::new(config.logs_dir()),
        config,
        authority: authority.clone(),
        keys,
        shutdown: closed.clone(),
        fits: Fits::new(),
        surveys: Surveys::default(),
        routings: Routings::default(),
        summaries: Summaries::begin(&authority),
        watchers: Arc::new(Semaphore::new(http::WATCHERS_MAX)),
        submissions: Semaphore::new(http::SUBMISSIONS_MAX),
        answers: Arc::new(answers),
        planning: tokio::sync::Mutex::new(()),
        admissions: Mutex::default(),
    });
    let router = http::router(app, gate);
    let keeper = keeper.ended();
    tokio::pin!(keeper);
    let result = tokio::select! {
        served = serving::serve(listener, tls, router, closed) => served.map_err(ServeError::Serve),
        ended = &mut keeper => return ended.map_err(ServeError::Store),
        // Never ends by itself: closing ends `listen`.
        never = close(shutdown, closing) => match never {},
    };
    authority.stop().await;
    keeper.await.map_err(ServeError::Store)?;
    result
}

/// Tells streams and long requests to end, so that the listener can.
async fn close(mut shutdown: watch::Receiver<bool>, closing: watch::Sender<bool>) -> std::convert::Infallible {
    // A dropped sender means that nobody is left who could want this coordinator.
    let _ = shutdown.wait_for(|ended| *ended).await;
    closing.send_replace(true);
    std::future::pending().await
}

impl App {
    /// Where planning happens.
    pub(crate) fn site(&self, reach: Reach) -> Site {
        Site {
            corpora_dir: self.config.corpora_dir(),
            trainers_dir: self.config.trainers_dir(),
            capabilities: self.config.capabilities.clone(),
            probe: self.config.probe.clone(),
            survey_memory_bytes: self.config.survey_memory_bytes,
            reach,
        }
    }

    /// A sweep as it was admitted, with the first of its runs alone.
    pub(crate) async fn admission(&self, sweep_id: SweepId) -> Result<Arc<Admission>, Refused> {
        let known = || self.admissions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(admission) = known().get(sweep_id) {
            return Ok(admission);
        }
        let admission = self.authority.admission(sweep_id).await?;
        let admission = admission.ok_or_else(|| Refused::not_found("sweep", &sweep_id.to_string()))?;
        let brief = admissions::brief(&admission);
        self.keep_admission(brief.clone());
        Ok(brief)
    }

    /// Of a sweep that was admitted just now or read back.
    pub(crate) fn keep_admission(&self, brief: Arc<Admission>) {
        self.admissions.lock().unwrap_or_else(PoisonError::into_inner).keep(brief);
    }

    /// What the runs of a sweep add up to.
    pub(crate) async fn summary(&self, head: &Head) -> Result<Arc<Tally>, Refused> {
        Ok(self.summaries.of(&self.authority, head).await?)
    }
}
