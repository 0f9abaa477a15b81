//! The client of `/api/v1`. Every call is idempotent on the coordinator's side, so each is tried again a bounded number
//! of times when the coordinator cannot be reached or is busy. It does not decide what a refusal means.

mod absence;
mod address;
mod body;
mod events;
mod retry;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isoloss_sweep::{Digest, Manifest, RunId};
use reqwest::{Certificate, Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{self, Code, NOTE_HEADER, PREFIX, Problem};

pub use absence::Absence;
pub use body::Body;
pub use events::Events;
use retry::Backoff;

/// Without an answer for this long a quick call counts as lost.
const QUICK: Duration = Duration::from_secs(30);
/// Surveys and fits take as long as they take; this bounds a coordinator that hangs.
const SLOW: Duration = Duration::from_secs(24 * 3600);
const CONNECT: Duration = Duration::from_secs(5);
/// An idle connection is let go before the coordinator ends it (after 30 s): a request must not meet that end.
const IDLE: Duration = Duration::from_secs(15);

/// What a call can end in besides its answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{server:?} is no address of a coordinator: {reason}")]
    Address { server: String, reason: String },
    #[error("cannot reach the coordinator at {server}: {reason}")]
    Unreachable { server: String, absence: Absence, reason: String },
    /// Not even a request could be made.
    #[error("cannot make ready for the coordinator at {server}: {reason}")]
    Unready { server: String, reason: String },
    #[error("cannot use the certificates in {path}: {reason}")]
    Certificates { path: PathBuf, reason: String },
    #[error("{0}")]
    NotFound(Box<Problem>),
    #[error("{0}")]
    Refused(Box<Problem>),
    #[error("the coordinator at {server} gave an answer that is not understood: {reason}")]
    Garbled { server: String, reason: String },
}

impl ClientError {
    /// The refusal, if the coordinator gave one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::NotFound(problem) | Self::Refused(problem) => Some(problem),
            Self::Address { .. }
            | Self::Unreachable { .. }
            | Self::Unready { .. }
            | Self::Certificates { .. }
            | Self::Garbled { .. } => None,
        }
    }

    /// The refusal's code, if the coordinator gave one.
    pub fn code(&self) -> Option<Code> {
        self.problem().map(|problem| problem.code)
    }
}

/// A coordinator at an address. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    address: Url,
    server: String,
    token: Option<String>,
    tries: u32,
    /// The last note of the coordinator: each is told once, though many answers carry it.
    noted: Arc<Mutex<String>>,
}

/// Chooses what computes TLS, once for every HTTP client of the process.
pub fn install_tls() {
    // A second caller finds the first one's choice in its place, which is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Client {
    /// `server` is a URL such as `http://127.0.0.1:8470`; `token` goes with every call. A server with `https` is believed
    /// when the system knows who signed its certificate.
    pub fn new(server: &str, token: Option<String>) -> Result<Self, ClientError> {
        Self::trusting(server, token, None)
    }

    /// The same, but a server is believed only when its certificate is signed by one in `ca`, a PEM file (or is there
    /// itself).
    pub fn trusting(server: &str, token: Option<String>, ca: Option<&Path>) -> Result<Self, ClientError> {
        let address = address::parse(server)?;
        let no_ca = |path: &Path, reason: String| ClientError::Certificates { path: path.to_owned(), reason };
        let certificates = match ca {
            Some(path) => {
                let text = std::fs::read(path).map_err(|error| no_ca(path, error.to_string()))?;
                let found = Certificate::from_pem_bundle(&text).map_err(|error| no_ca(path, error.to_string()))?;
                if found.is_empty() {
                    return Err(no_ca(path, "there is none in it; expected PEM".to_owned()));
                }
                found
            }
            None => Vec::new(),
        };
        install_tls();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        // Without need the system's certificates are not looked for: they may be missing, and reading them takes a while.
        if ca.is_some() || address.scheme() != "https" {
            builder = builder.tls_certs_only(certificates);
        }
        let server = address.as_str().trim_end_matches('/').to_owned();
        let unready = |error| ClientError::Unready { server: server.clone(), reason: deepest(&error) };
        let http = builder.build().map_err(unready)?;
        Ok(Self { http, address, server, token, tries: 4, noted: Arc::default() })
    }

    /// The same client with another bound on tries; 1 never tries again.
    pub fn with_tries(mut self, tries: u32) -> Self {
        self.tries = tries.max(1);
        self
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    pub async fn plan(&self, submit: &api::Submit) -> Result<serde_json::Value, ClientError> {
        self.post("/plan", submit, SLOW).await
    }

    pub async fn submit(&self, submit: &api::Submit) -> Result<api::Submitted, ClientError> {
        self.post("/sweeps", submit, SLOW).await
    }

    /// All sweeps, page by page.
    pub async fn sweeps(&self) -> Result<api::Sweeps, ClientError> {
        let sweeps = self.pages("/sweeps", |page: api::Sweeps| (page.sweeps, page.next)).await?;
        Ok(api::Sweeps { schema_version: api::SCHEMA_VERSION, sweeps, next: None })
    }

    pub async fn sweep(&self, sweep: &str) -> Result<api::SweepDetail, ClientError> {
        self.get(&format!("/sweeps/{}", segment(sweep)), &(), QUICK).await
    }

    /// All rows of a sweep, page by page.
    pub async fn runs(&self, sweep: &str) -> Result<Vec<api::RunRow>, ClientError> {
        let path = format!("/sweeps/{}/runs", segment(sweep));
        self.pages(&path, |page: api::Runs| (page.runs, page.next)).await
    }

    /// All runs of a sweep with their outcomes, page by page.
    pub async fn results(&self, sweep: &str) -> Result<Vec<api::RunDetail>, ClientError> {
        let path = format!("/sweeps/{}/results", segment(sweep));
        self.pages(&path, |page: api::Results| (page.results, page.next)).await
    }

    /// The fit, as `fit --json` prints it.
    pub async fn fit(&self, sweep: &str, query: &api::FitQuery) -> Result<serde_json::Value, ClientError> {
        self.get(&format!("/sweeps/{}/fit", segment(sweep)), query, SLOW).await
    }

    /// `action` is `cancel`, `pause`, `resume` or `retry`.
    pub async fn order_sweep(&self, sweep: &str, action: &str) -> Result<api::Changed, ClientError> {
        self.post(&format!("/sweeps/{}/{action}", segment(sweep)), &(), QUICK).await
    }

    /// Lets runs of a held sweep go.
    pub async fn choose(&self, sweep: &str, runs: Vec<RunId>) -> Result<api::Changed, ClientError> {
        let choose = api::Choose { schema_version: api::SCHEMA_VERSION, runs: Some(runs) };
        self.post(&format!("/sweeps/{}/choose", segment(sweep)), &choose, QUICK).await
    }

    /// `action` is `cancel`, `pause`, `resume` or `retry`. It holds for every sweep that wants the run.
    pub async fn order_run(&self, run: &str, action: &str) -> Result<api::Changed, ClientError> {
        self.post(&format!("/runs/{}/{action}", segment(run)), &(), QUICK).await
    }

    pub async fn run(&self, run: &str) -> Result<api::RunDetail, ClientError> {
        self.get(&format!("/runs/{}", segment(run)), &(), QUICK).await
    }

    pub async fn explain(&self, run: &str) -> Result<api::Explanation, ClientError> {
        self.get(&format!("/runs/{}/explain", segment(run)), &(), QUICK).await
    }

    /// Lines of a run's log with a number above `after`.
    pub async fn log(&self, run: &str, after: u64) -> Result<api::LogPage, ClientError> {
        self.get(&format!("/runs/{}/log", segment(run)), &api::LogQuery { after }, QUICK).await
    }

    /// All workers, page by page.
    pub async fn workers(&self) -> Result<api::Workers, ClientError> {
        let workers = self.pages("/workers", |page: api::Workers| (page.workers, page.next)).await?;
        Ok(api::Workers { schema_version: api::SCHEMA_VERSION, workers, next: None })
    }

    /// All surveys under way, page by page.
    pub async fn surveys(&self) -> Result<api::Surveys, ClientError> {
        let surveys = self.pages("/surveys", |page: api::Surveys| (page.surveys, page.next)).await?;
        Ok(api::Surveys { schema_version: api::SCHEMA_VERSION, surveys, next: None })
    }

    pub async fn register(&self, register: &api::Register) -> Result<api::Registered, ClientError> {
        self.post("/workers/register", register, QUICK).await
    }

    pub async fn acquire(&self, acquire: &api::Acquire) -> Result<api::Acquired, ClientError> {
        let patience = QUICK + Duration::from_secs_f64(acquire.wait_seconds.clamp(0.0, 60.0));
        self.post("/workers/acquire", acquire, patience).await
    }

    pub async fn renew(&self, renew: &api::Renew) -> Result<api::Renewed, ClientError> {
        self.post("/workers/renew", renew, Duration::from_secs(10)).await
    }

    pub async fn settle(&self, settle: &api::Settle) -> Result<api::Settled, ClientError> {
        self.post("/workers/settle", settle, QUICK).await
    }

    /// The worker ends in good order.
    pub async fn leave(&self, leave: &api::Leave) -> Result<api::Left, ClientError> {
        self.post("/workers/leave", leave, Duration::from_secs(3)).await
    }

    /// `action` is `drain` or `undrain`.
    pub async fn order_worker(&self, worker: &str, action: &str) -> Result<api::Drained, ClientError> {
        self.post(&format!("/workers/{}/{action}", segment(worker)), &(), QUICK).await
    }

    pub async fn manifest(&self, corpus: Digest) -> Result<Manifest, ClientError> {
        self.get(&format!("/corpora/{corpus}/manifest"), &(), QUICK).await
    }

    /// The bytes of a corpus file; the caller checks their digest.
    pub async fn artifact(&self, corpus: Digest, artifact: Digest) -> Result<Body, ClientError> {
        let path = format!("/corpora/{corpus}/artifacts/{artifact}");
        let response = self.send(|| self.request(Method::GET, &path, SLOW)).await?;
        Ok(Body { response, server: self.server.clone() })
    }

    /// The bytes of a trainer's file; the caller checks their digest.
    pub async fn trainer_file(&self, digest: Digest) -> Result<Body, ClientError> {
        let response = self.send(|| self.request(Method::GET, &format!("/trainers/{digest}"), SLOW)).await?;
        Ok(Body { response, server: self.server.clone() })
    }

    /// Follows a sweep.
    pub async fn events(&self, sweep: &str) -> Result<Events, ClientError> {
        let path = format!("/sweeps/{}/events", segment(sweep));
        let response = self.send(|| self.request(Method::GET, &path, SLOW)).await?;
        Ok(Events::new(Body { response, server: self.server.clone() }))
    }

    /// Whether the coordinator has read its journal and serves.
    pub async fn ready(&self) -> Result<(), ClientError> {
        let request = || self.http.get(format!("{}/readyz", self.server)).timeout(QUICK);
        self.send(request).await.map(|_| ())
    }

    /// The rows of every page; `open` takes a page apart into its rows and the word for the next.
    async fn pages<P: DeserializeOwned, R>(
        &self,
        path: &str,
        open: impl Fn(P) -> (Vec<R>, Option<String>),
    ) -> Result<Vec<R>, ClientError> {
        let mut all = Vec::new();
        let mut page = api::Page::default();
        loop {
            let (rows, next) = open(self.get(path, &page, QUICK).await?);
            all.extend(rows);
            match next {
                Some(next) => page.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    async fn get<Q: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        query: &Q,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let response = self.send(|| self.request(Method::GET, path, patience).query(query)).await?;
        self.read(response).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let response = self.send(|| self.request(Method::POST, path, patience).json(body)).await?;
        self.read(response).await
    }

    fn request(&self, method: Method, path: &str, patience: Duration) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{PREFIX}{path}", self.server)).timeout(patience);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Passes on what people should know of an answer.
    fn note(&self, response: &Response) {
        let Some(note) = response.headers().get(NOTE_HEADER).and_then(|note| note.to_str().ok()) else {
            return;
        };
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if *noted != note {
            tracing::warn!("{note}");
            note.clone_into(&mut noted);
        }
    }

    async fn send(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, ClientError> {
        let mut backoff = Backoff::new(self.tries);
        loop {
            let error = match request().send().await {
                Ok(response) if response.status().is_success() => {
                    self.note(&response);
                    return Ok(response);
                }
                Ok(response) => self.refusal(response).await,
                Err(error) => {
                    let absence = Absence::of(&error, &self.http, &self.address).await;
                    let reason = absence.words().map_or_else(|| deepest(&error), str::to_owned);
                    ClientError::Unreachable { server: self.server.clone(), absence, reason }
                }
            };
            let again = match &error {
                ClientError::Unreachable { absence, .. } => absence.may_pass(),
                error => error.code() == Some(Code::Busy),
            };
            match backoff.next() {
                Some(pause) if again => tokio::time::sleep(pause).await,
                Some(_) | None => return Err(error),
            }
        }
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let status = response.status();
        match response.json::<Problem>().await {
            Ok(problem) if problem.code == Code::NotFound => ClientError::NotFound(Box::new(problem)),
            Ok(problem) => ClientError::Refused(Box::new(problem)),
            Err(_) => self.garbled(&format!("status {status} without a problem")),
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let bytes = response.bytes().await.map_err(|error| broken(&self.server, &error))?;
        serde_json::from_slice(&bytes).map_err(|error| self.garbled(&error))
    }

    fn garbled(&self, reason: &dyn Display) -> ClientError {
        ClientError::Garbled { server: self.server.clone(), reason: reason.to_string() }
    }
}

/// An answer that began and did not end.
fn broken(server: &str, error: &reqwest::Error) -> ClientError {
    ClientError::Unreachable { server: server.to_owned(), absence: Absence::Broken, reason: deepest(error) }
}

/// The deepest cause says the most ("connection refused"); the outer layers repeat the URL.
fn deepest(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// A word as one segment of a path.
fn segment(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    word.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
