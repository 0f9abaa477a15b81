//! The HTTP face of the coordinator: routes, and what stands around all of them. Handlers translate; they decide
//! nothing.

mod corpora;
mod events;
mod find;
mod gate;
mod health;
mod idempotency;
mod limits;
mod names;
mod openapi;
mod orders;
mod pages;
mod refusal;
mod runs;
mod submissions;
mod sweeps;
mod workers;

use std::sync::Arc;
use std::time::Instant;

use aide::axum::ApiRouter;
use aide::axum::routing::{get_with, post_with};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::header;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use isoloss_wire::api::{Code, Event, PREFIX};
use serde_json::Value;

use crate::daemon::App;
pub(crate) use crate::http::events::WATCHERS_MAX;
pub(crate) use crate::http::gate::Gate;
pub(crate) use crate::http::idempotency::Answers;
use crate::http::openapi::said;
pub(crate) use crate::http::refusal::Refused;
pub(crate) use crate::http::submissions::SUBMISSIONS_MAX;
use crate::tokens::Role;
use crate::{meters, page};

/// The longest outcome (a long curve, wide routing) is well below.
const BODY_BYTES_MAX: usize = 4 << 20;

/// Every route of a coordinator behind its gate.
pub(crate) fn router(app: Arc<App>, gate: Gate) -> Router {
    let gate = Arc::new(gate);
    let (api, document) = documented(&gate);
    let document = Bytes::from(document.to_string());
    let kind = [(header::CONTENT_TYPE, "application/json")];
    api.merge(page::routes())
        .route(&format!("{PREFIX}/openapi.json"), get(move || async move { (kind, document) }))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(|| async { Refused::new(Code::NotFound, "nothing is here") })
        .method_not_allowed_fallback(|| async { Refused::new(Code::MethodNotAllowed, "not with this method") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(gate, gate::guard))
        .layer(from_fn(refusal::place))
        .layer(from_fn(measure))
        .with_state(app)
}

/// The routes of `/api/v1` and their OpenAPI document: a route is not added without its entry there.
fn documented(gate: &Arc<Gate>) -> (Router<Arc<App>>, Value) {
    let mut document = openapi::begin();
    let needing =
        |role, routes: ApiRouter<Arc<App>>| routes.route_layer(from_fn_with_state((gate.clone(), role), gate::needs));
    let api = needing(Role::Viewer, reading())
        .merge(needing(Role::Submitter, submitting()))
        .merge(needing(Role::Worker, working()));
    let router = ApiRouter::new().nest(PREFIX, api).finish_api(&mut document);
    (router, openapi::finish(&document, openapi::problem()))
}

fn reading() -> ApiRouter<Arc<App>> {
    let said = |summary| said(Role::Viewer, summary);
    let events = "server-sent events, each an Event as JSON: first the sweep and each of its runs as they stand, then what \
                  changes; whoever comes back gets all of that again";
    ApiRouter::new()
        .api_route("/sweeps", get_with(sweeps::list, said("sweeps, newest first, page by page")))
        .api_route("/sweeps/{sweep}", get_with(sweeps::show, said("one sweep")))
        .api_route("/sweeps/{sweep}/runs", get_with(sweeps::runs, said("runs in the order of the plan, page by page")))
        .api_route("/sweeps/{sweep}/results", get_with(sweeps::results, said("runs with their outcomes, page by page")))
        .api_route("/sweeps/{sweep}/fit", get_with(sweeps::fit, said("the fit, as `fit --json` prints it")))
        .api_route(
            "/sweeps/{sweep}/events",
            get_with(events::follow, move |op| {
                said(events)(op).response_with::<200, Json<Event>, _>(|mut response| {
                    if let Some(json) = response.inner().content.swap_remove("application/json") {
                        response.inner().content.insert("text/event-stream".to_owned(), json);
                    }
                    response
                })
            }),
        )
        .api_route(
            "/surveys",
            get_with(submissions::surveys, said("corpora being read for submitted sweeps, page by page")),
        )
        .api_route("/runs/{run}", get_with(runs::show, said("one run, whole")))
        .api_route("/runs/{run}/explain", get_with(runs::explain, said("why a run is where it is")))
        .api_route("/runs/{run}/log", get_with(runs::log, said("the last lines that a run said")))
        .api_route(
            "/workers",
            get_with(workers::list, said("workers heard of since the coordinator started, by name, page by page")),
        )
}

fn submitting() -> ApiRouter<Arc<App>> {
    let said = |summary| said(Role::Submitter, summary);
    ApiRouter::new()
        .api_route("/plan", post_with(submissions::plan, said("the plan as `plan --json` prints it; starts nothing")))
        .api_route("/sweeps", post_with(submissions::submit, said("hands a sweep in; the same again adds nothing")))
        .api_route("/sweeps/{sweep}/choose", post_with(orders::choose, said("lets runs of a held sweep go")))
        .api_route("/sweeps/{sweep}/{order}", post_with(orders::sweep, said("an order to a sweep")))
        .api_route(
            "/runs/{run}/{order}",
            post_with(orders::run, said("an order to a run, in every sweep that wants it")),
        )
        .api_route("/workers/{worker}/{order}", post_with(orders::worker, said("an order to a worker")))
}

fn working() -> ApiRouter<Arc<App>> {
    let said = |summary| said(Role::Worker, summary);
    ApiRouter::new()
        .api_route("/workers/register", post_with(workers::register, said("a worker starts or comes back")))
        .api_route("/workers/acquire", post_with(workers::acquire, said("work for one free slot")))
        .api_route("/workers/renew", post_with(workers::renew, said("sign of life of a worker's attempts")))
        .api_route("/workers/settle", post_with(workers::settle, said("the end of an attempt")))
        .api_route("/workers/leave", post_with(workers::leave, said("a worker ends in good order")))
        .api_route("/corpora/{digest}/manifest", get_with(corpora::manifest, said("what a corpus is")))
        .api_route(
            "/corpora/{digest}/artifacts/{artifact}",
            get_with(corpora::artifact, move |op| {
                said("a file of a corpus")(op).response_with::<200, Bytes, _>(|response| response)
            }),
        )
        .api_route(
            "/trainers/{digest}",
            get_with(corpora::trainer_file, move |op| {
                said("a file that travels with a trainer's command")(op)
                    .response_with::<200, Bytes, _>(|response| response)
            }),
        )
}

/// Counts and times every answer under its route's pattern.
async fn measure(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    // An unknown method is somebody's invention: as a label it would be unbounded.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    meters::request(&route, &method, response.status().as_u16(), begun.elapsed().as_secs_f64());
    response
}
