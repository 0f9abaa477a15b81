//! The messages of `/api/v1`: what the coordinator, its workers, the command line and the web page say to each other.
//!
//! Types only, each for the wire alone; the store keeps its own. A new optional field keeps the version, anything else
//! raises it and the path. In every path `{sweep}` is a sweep's id, a unique beginning of it (four digits or more) or
//! its name, and `{run}` a run's id or a unique beginning of it. Of several sweeps of one name a reader gets the newest
//! live one and a [`NOTE_HEADER`] that says so; an order is refused as ambiguous.
//!
//! | method and path under [`PREFIX`] | in | out |
//! |---|---|---|
//! | POST `/plan` | [`Submit`] | the plan as `plan --json` prints it; starts nothing |
//! | POST `/sweeps` | [`Submit`] | [`Submitted`] |
//! | GET `/sweeps` | | [`Sweeps`] |
//! | GET `/sweeps/{sweep}` | | [`SweepDetail`] |
//! | GET `/sweeps/{sweep}/runs` | [`Page`] | [`Runs`] |
//! | GET `/sweeps/{sweep}/results` | [`Page`] | [`Results`]: resolved runs with their outcomes |
//! | GET `/sweeps/{sweep}/fit` | [`FitQuery`] | the fit as `fit --json` prints it |
//! | GET `/sweeps/{sweep}/events` | | server-sent [`Event`]s, one JSON object each |
//! | POST `/sweeps/{sweep}/cancel`, `pause`, `resume`, `retry` | | [`Changed`] |
//! | GET `/runs/{run}` | | [`RunDetail`] |
//! | GET `/runs/{run}/explain` | | [`Explanation`] |
//! | GET `/runs/{run}/log` | [`LogQuery`] | [`LogPage`] |
//! | POST `/runs/{run}/cancel`, `pause`, `resume`, `retry` | | [`Changed`] |
//! | GET `/workers` | | [`Workers`] |
//! | GET `/surveys` | | [`Surveys`]: corpora being read for submitted sweeps |
//! | POST `/workers/{worker}/drain`, `undrain` | | [`Drained`] |
//! | POST `/workers/register`, `acquire`, `renew`, `settle`, `leave` | [`Register`], [`Acquire`], [`Renew`], [`Settle`], [`Leave`] | [`Registered`], [`Acquired`], [`Renewed`], [`Settled`], [`Left`] |
//! | GET `/corpora/{digest}/manifest` | | [`isoloss_sweep::Manifest`] |
//! | GET `/corpora/{digest}/artifacts/{digest}` | | the file's bytes |
//!
//! The coordinator serves all of this as an OpenAPI 3.1 document at `/openapi.json`, made from its routes; `openapi.json`
//! beside this crate is held to it. Every refusal is a [`Problem`] (RFC 9457). Bodies are `application/json`.
//!
//! Roles: GETs need a viewer, plans, submissions and orders a submitter, a worker's own words and `/corpora/*` a worker; an
//! admin may do all. A POST of `/sweeps` may carry an `Idempotency-Key`: repeated with it, also after a restart, it is answered
//! and not done again. Without one it adds nothing twice, but revives a sweep that was cancelled.

mod event;
mod problem;
mod run;
mod sweep;
mod worker;

pub use event::Event;
pub use problem::{Code, PROBLEM_TYPE, Problem};
pub use run::{
    AttemptRow, Explanation, Kind, Live, LogLine, LogPage, LogQuery, Page, Results, RunDetail, RunRow, RunState, Runs,
};
pub use sweep::{
    Changed, Choose, FitQuery, Phase, StateCounts, Submit, Submitted, Survey, Surveys, SweepDetail, SweepRow, Sweeps,
};
pub use worker::{
    Acquire, Acquired, CheckpointRef, Drained, Ending, Instance, Lease, LeaseKey, Leave, Left, Register, Registered,
    Renew, Renewal, Renewed, RestingGpu, Settle, Settled, Slot, Verdict, VerdictRow, WorkerRow, Workers,
};

/// Version of every message here; each top-level answer carries it as `schema_version`.
pub const SCHEMA_VERSION: u32 = 1;
/// Version of what workers and the coordinator say to each other. With another one neither has anything to do with the
/// other, and [`Code::Version`] says both. 2: leases have keys, and a worker says why it asks for no work.
pub const WORKER_VERSION: u32 = 2;
/// A response header: what a person should know of the answer besides it.
pub const NOTE_HEADER: &str = "isoloss-note";
/// Where the paths begin.
pub const PREFIX: &str = "/api/v1";
