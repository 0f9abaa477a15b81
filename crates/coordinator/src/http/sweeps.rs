//! Sweeps: list, show, runs, results, fit.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use isoloss_sweep::RunId;
use isoloss_wire::api::{Code, FitQuery, Page, Results, RunDetail, Runs, SCHEMA_VERSION, SweepDetail, Sweeps};
use serde_json::Value;

use crate::authority::{Head, MemberView, PART};
use crate::daemon::App;
use crate::fitting::{ArmResult, FitError};
use crate::http::find::{self, Noted};
use crate::http::refusal::{Asked, At, Refused};
use crate::http::{pages, runs};
use crate::planning;
use crate::rows;

/// Results carry whole curves.
const RESULTS_MAX: usize = 100;

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Asked(page): Asked<Page>,
) -> Result<Noted<Json<Sweeps>>, Refused> {
    // The order in which they came never changes, so new ones move no page.
    let (heads, next) = pages::cut(app.authority.heads().await?, &page, |head| std::cmp::Reverse(head.order))?;
    let mut sweeps = Vec::new();
    for head in heads {
        sweeps.push(app.summary(&head).await?.row(&head));
    }
    let note = app.authority.shortage().await?.map(|shortage| shortage.to_string());
    Ok(Noted(note, Json(Sweeps { schema_version: SCHEMA_VERSION, sweeps, next })))
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    At(word): At<String>,
) -> Result<Noted<Json<SweepDetail>>, Refused> {
    let Noted(note, head) = find::sweep(&app, &word).await?;
    let admission = app.admission(head.sweep_id).await?;
    let tally = app.summary(&head).await?;
    let detail = SweepDetail {
        schema_version: SCHEMA_VERSION,
        sweep: tally.row(&head),
        arms: tally.arms.clone(),
        toml: admission.toml.clone(),
        set: admission.set.clone(),
        manifests: admission.manifests.clone(),
        trainer: admission.runs.first().and_then(|planned| planned.run.trainer.clone()),
    };
    Ok(Noted(note, Json(detail)))
}

pub(crate) async fn runs(
    State(app): State<Arc<App>>,
    At(word): At<String>,
    Asked(page): Asked<Page>,
) -> Result<Noted<Json<Runs>>, Refused> {
    let Noted(note, head) = find::sweep(&app, &word).await?;
    let (places, next) = pages::range(head.members, &page, pages::ROWS_MAX)?;
    let runs = rows::run_rows(&app.authority.part(head.sweep_id, places).await?);
    let note = match note {
        Some(note) => Some(note),
        None => app.authority.shortage().await?.map(|shortage| shortage.to_string()),
    };
    Ok(Noted(note, Json(Runs { schema_version: SCHEMA_VERSION, runs, next })))
}

pub(crate) async fn results(
    State(app): State<Arc<App>>,
    At(word): At<String>,
    Asked(page): Asked<Page>,
) -> Result<Noted<Json<Results>>, Refused> {
    let Noted(note, head) = find::sweep(&app, &word).await?;
    let (places, next) = pages::range(head.members, &page, RESULTS_MAX)?;
    let members = app.authority.part(head.sweep_id, places).await?;
    let ids: Vec<RunId> = members.iter().map(|member| member.run.run_id).collect();
    let outcomes = app.authority.outcomes(&ids).await?;
    let detail = |(member, outcome): (&MemberView, _)| runs::detail(&app, &member.run, &member.arm, outcome);
    let results: Vec<RunDetail> = members.iter().zip(outcomes).map(detail).collect();
    Ok(Noted(note, Json(Results { schema_version: SCHEMA_VERSION, results, next })))
}

pub(crate) async fn fit(
    State(app): State<Arc<App>>,
    At(word): At<String>,
    Asked(query): Asked<FitQuery>,
) -> Result<Noted<Json<Value>>, Refused> {
    let Noted(note, head) = find::sweep(&app, &word).await?;
    let admission = app.admission(head.sweep_id).await?;
    let spec = planning::reread(&admission.toml, &admission.set).map_err(|error| Refused::internal(&error))?;
    let results = settled(&app, &head).await?;
    let answer = app.fits.answer(results, spec.fit(), &query).await.map_err(|error| match error {
        FitError::Question(detail) => Refused::new(Code::BadRequest, detail),
        FitError::Broke(_) => Refused::internal(&error),
    })?;
    if query.arm.is_none() && query.law.is_none() {
        app.fits.remember(head.sweep_id, answer.clone());
    }
    Ok(Noted(note, Json(Value::clone(&answer))))
}

async fn settled(app: &App, head: &Head) -> Result<Vec<ArmResult>, Refused> {
    let mut results = Vec::new();
    for start in (0..head.members).step_by(PART) {
        let places = start..(start + PART).min(head.members);
        let mut members = app.authority.part(head.sweep_id, places).await?;
        members.retain(|member| member.run.row.settled.is_some() && !member.run.row.planned.is_trunk());
        let ids: Vec<RunId> = members.iter().map(|member| member.run.run_id).collect();
        for (MemberView { arm, run }, outcome) in members.into_iter().zip(app.authority.outcomes(&ids).await?) {
            if let Some(outcome) = outcome {
                results.push(ArmResult { arm: arm.to_string(), run: run.row.planned.run.clone(), outcome });
            }
        }
    }
    Ok(results)
}
