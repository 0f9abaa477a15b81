//! The HTTP face of the coordinator: routes, and what stands around all of them. Handlers translate; they decide
//! nothing.

mod corpora;
mod events;
mod find;
mod gate;
mod health;
mod orders;
mod refusal;
mod runs;
mod sweeps;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use isoloss_wire::api::{Code, PREFIX};

use crate::daemon::App;
use crate::http::gate::Gate;
pub(crate) use crate::http::refusal::Refused;
use crate::{meters, page};

/// The longest outcome (a long curve, wide routing) is well below.
const BODY_BYTES_MAX: usize = 4 << 20;

/// Every route of a coordinator that listens on `address`.
pub(crate) fn router(app: Arc<App>, token: &str, address: SocketAddr) -> Router {
    let gate = Gate::new(token, address, &app.config.hosts);
    Router::new()
        .nest(PREFIX, api())
        .merge(page::routes())
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(|| async { Refused::new(Code::NotFound, "nothing is here") })
        .method_not_allowed_fallback(|| async { Refused::new(Code::BadRequest, "not with this method") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(gate, gate::guard))
        .layer(from_fn(measure))
        .with_state(app)
}

fn api() -> Router<Arc<App>> {
    Router::new()
        .route("/plan", post(sweeps::plan))
        .route("/sweeps", post(sweeps::submit).get(sweeps::list))
        .route("/sweeps/{sweep}", get(sweeps::show))
        .route("/sweeps/{sweep}/runs", get(sweeps::runs))
        .route("/sweeps/{sweep}/results", get(sweeps::results))
        .route("/sweeps/{sweep}/fit", get(sweeps::fit))
        .route("/sweeps/{sweep}/events", get(events::follow))
        .route("/sweeps/{sweep}/choose", post(orders::choose))
        .route("/sweeps/{sweep}/{order}", post(orders::sweep))
        .route("/surveys", get(sweeps::surveys))
        .route("/runs/{run}", get(runs::show))
        .route("/runs/{run}/explain", get(runs::explain))
        .route("/runs/{run}/log", get(runs::log))
        .route("/runs/{run}/{order}", post(orders::run))
        .route("/workers", get(workers::list))
        .route("/workers/register", post(workers::register))
        .route("/workers/acquire", post(workers::acquire))
        .route("/workers/renew", post(workers::renew))
        .route("/workers/settle", post(workers::settle))
        .route("/corpora/{digest}/manifest", get(corpora::manifest))
        .route("/corpora/{digest}/artifacts/{artifact}", get(corpora::artifact))
        .route("/trainers/{digest}", get(corpora::trainer_file))
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
