//! Submissions: plan, submit, and what is being surveyed for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use isoloss_store::Status;
use isoloss_sweep::plan::PlanJson;
use isoloss_sweep::{Digest, RunId};
use isoloss_wire::api::{Code, Page, SCHEMA_VERSION, Submit, Submitted, Surveys};
use jiff::Timestamp;

use crate::admissions;
use crate::authority::PART;
use crate::daemon::App;
use crate::http::gate::Caller;
use crate::http::idempotency::Key;
use crate::http::pages;
use crate::http::refusal::{Answer, Asked, Body, Refused};
use crate::planning::{self, Planning, Reach, Site, survey_apart};

/// Runs looked at in one look, when all are.
const LOOKED_AT: usize = 4 * PART;
/// Submissions that wait for their turn or are being planned.
pub(crate) const SUBMISSIONS_MAX: usize = 32;

pub(crate) async fn plan(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Body(submit): Body<Submit>,
) -> Answer<PlanJson> {
    let planning = make_plan(&app, &caller, &submit).await?;
    Ok(Json(PlanJson::from(&planning.plan)))
}

pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    key: Key,
    Body(submit): Body<Submit>,
) -> Answer<Submitted> {
    let question = Digest::of_json(&submit);
    if let Some(answer) = app.answers.find(caller.name(), &key, question)? {
        return Ok(Json(answer));
    }
    let planning = make_plan(&app, &caller, &submit).await?;
    let admission = planning::admission(&submit, planning, Timestamp::now());
    let name = admission.name.clone();
    let brief = admissions::brief(&admission);
    let done = app.authority.submit(admission).await?;
    if done.is_first {
        app.keep_admission(brief);
    }
    app.summaries.prime(&app.authority);
    let (sweep, by) = (done.sweep_id.short(), caller.name());
    tracing::info!(sweep, name, by, runs = done.runs, added = done.added, "sweep admitted");
    let answer = Submitted {
        schema_version: SCHEMA_VERSION,
        sweep_id: done.sweep_id,
        name,
        runs: done.runs,
        added: done.added,
        reused: done.reused,
        revived: done.revived,
        failed: done.failed,
        amended: done.amended,
        kept: done.kept,
        paused: done.paused,
    };
    let (answers, name, kept) = (app.answers.clone(), caller.name().to_owned(), answer.clone());
    let kept = tokio::task::spawn_blocking(move || answers.keep(&name, &key, question, &kept)).await;
    kept.map_err(|error| Refused::internal(&error))?.map_err(|error| {
        // The sweep is admitted: whoever repeats this is told so.
        Refused::internal(&format!("cannot keep the answer to a submission: {error}"))
    })?;
    Ok(Json(answer))
}

/// Surveys and plans, one submission at a time: two of one corpus would do the work twice. When whoever asked is gone,
/// this future is dropped and the survey ends.
async fn make_plan(app: &Arc<App>, caller: &Caller, submit: &Submit) -> Result<Planning, Refused> {
    if submit.schema_version != SCHEMA_VERSION {
        let detail = format!("expected schema_version {SCHEMA_VERSION}, got {}", submit.schema_version);
        return Err(Refused::new(Code::Version, detail));
    }
    if !submit.base.is_absolute() {
        return Err(Refused::new(Code::BadRequest, format!("expected an absolute base, got {:?}", submit.base)));
    }
    let waiting = || Refused::new(Code::Busy, format!("{SUBMISSIONS_MAX} submissions wait for their turn already"));
    let _place = app.submissions.try_acquire().map_err(|_| waiting())?;
    let _turn = app.planning.lock().await;
    let reach = match caller.is_owner_here() {
        true => Reach::Everything,
        false => Reach::Below(app.config.corpus_roots.clone()),
    };
    let desk = Arc::new((submit.clone(), app.site(reach)));
    let under_way = Arc::new(app.surveys.begin(&submit.file));
    let asked = aside(&desk, planning::Asked::read).await??;
    let mut manifests = Vec::new();
    for errand in &asked.errands {
        let seen = under_way.clone();
        let surveyed = survey_apart(app.config.surveyor.as_deref(), errand, move |stage| seen.at(stage)).await;
        manifests.push(asked.surveyed(submit, errand, surveyed)?);
    }
    let known = finished_runs(app).await?;
    Ok(aside(&desk, move |submit, site| asked.plan(submit, site, &|run_id| known.contains(&run_id), manifests))
        .await??)
}

/// On a thread where it holds no request up.
async fn aside<T: Send + 'static>(
    desk: &Arc<(Submit, Site)>,
    work: impl FnOnce(&Submit, &Site) -> T + Send + 'static,
) -> Result<T, Refused> {
    let desk = desk.clone();
    let done = tokio::task::spawn_blocking(move || work(&desk.0, &desk.1));
    done.await.map_err(|error| Refused::internal(&error))
}

async fn finished_runs(app: &App) -> Result<BTreeSet<RunId>, Refused> {
    let (mut finished, mut after) = (BTreeSet::new(), None);
    loop {
        let part = app.authority.read(move |truth| {
            let ledger = truth.store.ledger();
            let runs = ledger.runs_after(after).take(LOOKED_AT);
            runs.map(|(id, row)| (id, ledger.status(row) == Status::Finished)).collect::<Vec<_>>()
        });
        let part = part.await?;
        after = part.last().map(|(id, _)| *id);
        finished.extend(part.iter().filter(|(_, is_finished)| *is_finished).map(|(id, _)| *id));
        if part.len() < LOOKED_AT {
            return Ok(finished);
        }
    }
}

pub(crate) async fn surveys(State(app): State<Arc<App>>, Asked(page): Asked<Page>) -> Answer<Surveys> {
    let (rows, next) = pages::cut(app.surveys.list(), &page, |(number, _)| *number)?;
    let surveys = rows.into_iter().map(|(_, survey)| survey).collect();
    Ok(Json(Surveys { schema_version: SCHEMA_VERSION, surveys, next }))
}
