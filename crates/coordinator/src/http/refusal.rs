//! Every refusal as a problem (RFC 9457), those of the framework included. The log keeps causes; a client sees a
//! message and a code.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use isoloss_store::{Refusal, StoreError};
use isoloss_wire::api::{Code, PROBLEM_TYPE, Problem};
use serde::de::DeserializeOwned;

use crate::authority::{AuthorityError, Gone};
use crate::planning::PlanningError;

/// Bodies must be here this soon; the longest takes a second over a slow line.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Refused {
    problem: Problem,
    /// Seconds after which another try makes sense.
    retry_after: Option<u64>,
}

/// What handlers return.
pub(crate) type Answer<T> = Result<Json<T>, Refused>;

impl Refused {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { problem: Problem::new(code, detail), retry_after: None }
    }

    pub(crate) fn too_many(detail: &str, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Code::TooMany, detail) }
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> Code {
        self.problem.code
    }

    pub(crate) fn not_found(what: &str, word: &str) -> Self {
        Self::new(Code::NotFound, format!("no {what} {word:?} here"))
    }

    /// Something broke here: the log knows what, the client that it did.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request broke");
        Self::new(Code::Internal, "the coordinator failed; its log says how")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = write(&self.problem);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For `place`, which knows the path.
        response.extensions_mut().insert(Arc::new(self.problem));
        response
    }
}

fn write(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(problem)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110 asks for it.
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Says in every problem which path it is about; around all routes.
pub(crate) async fn place(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let Some(problem) = response.extensions().get::<Arc<Problem>>() else {
        return response;
    };
    let placed = Problem { instance: Some(path), ..Problem::clone(problem) };
    let mut written = write(&placed);
    for name in [header::RETRY_AFTER, header::ALLOW] {
        if let Some(value) = response.headers().get(&name) {
            written.headers_mut().insert(name, value.clone());
        }
    }
    written
}

impl From<AuthorityError> for Refused {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::Refused(refusal) => refusal.into(),
            AuthorityError::UnknownWorker(_) => Self::new(Code::UnknownWorker, error.to_string()),
            AuthorityError::Occupied(ref occupied) => {
                let code = if occupied.may_be_gone() { Code::Busy } else { Code::Conflict };
                Self::new(code, error.to_string())
            }
            AuthorityError::Gone(_) => Self::new(Code::Busy, error.to_string()),
            AuthorityError::Store(error @ StoreError::Unwritable(_)) => Self::new(Code::BadRequest, error.to_string()),
            AuthorityError::Store(error) => Self::internal(&error),
        }
    }
}

impl From<Gone> for Refused {
    fn from(gone: Gone) -> Self {
        AuthorityError::from(gone).into()
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::UnknownRun | Refusal::UnknownSweep => Code::NotFound,
            Refusal::Stale { .. } | Refusal::NeverGranted { .. } | Refusal::Ended | Refusal::Conflict { .. } => {
                Code::StaleToken
            }
            _ => Code::Conflict,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<PlanningError> for Refused {
    fn from(error: PlanningError) -> Self {
        let code = match &error {
            error if error.is_over_budget() => Code::RefusedPlan,
            // Said in full: whoever submits can often make room.
            error if error.is_of_machine() => Code::Internal,
            _ => Code::InvalidSweep,
        };
        Self::new(code, error.to_string())
    }
}

/// A JSON body of bounded size.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        if !is_json(request.headers()) {
            return Err(Refused::new(Code::UnsupportedMedia, "expected content-type: application/json"));
        }
        let arriving = tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, state)).await;
        let late = |_| Refused::new(Code::Timeout, format!("no whole body within {} s", BODY_PATIENCE.as_secs()));
        let bytes = arriving.map_err(late)?.map_err(|rejection: BytesRejection| {
            let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let code = if too_large { Code::TooLarge } else { Code::BadRequest };
            Refused::new(code, rejection.body_text())
        })?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Refused::new(Code::BadRequest, format!("the body is not what is expected: {error}")))?;
        Ok(Self(value))
    }
}

/// A page of another site can send a body of another type without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// Words of the path.
pub(crate) struct At<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => {
                let rejection: PathRejection = rejection;
                Err(Refused::new(Code::BadRequest, rejection.body_text()))
            }
        }
    }
}

/// The query string.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                let rejection: QueryRejection = rejection;
                Err(Refused::new(Code::BadRequest, rejection.body_text()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let (_never, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let body = axum::body::Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let request = Request::builder().header(header::CONTENT_TYPE, "application/json; charset=utf-8").body(body);
        let refused = Body::<serde_json::Value>::from_request(request.unwrap(), &()).await.err().unwrap();
        assert_eq!(refused.code(), Code::Timeout);
        assert_eq!(refused.into_response().status(), StatusCode::REQUEST_TIMEOUT);
    }
}
