//! Every refusal as a problem (RFC 9457), those of the framework included. The log keeps causes; a client sees a
//! message and a code.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use isoloss_store::{Refusal, StoreError};
use isoloss_wire::api::{Code, PROBLEM_TYPE, Problem};
use serde::de::DeserializeOwned;

use crate::authority::{AuthorityError, Gone};
use crate::planning::PlanningError;

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Problem);

/// What handlers return.
pub(crate) type Answer<T> = Result<Json<T>, Refused>;

impl Refused {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Problem::new(code, detail))
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
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
        response
    }
}

impl From<AuthorityError> for Refused {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::Refused(refusal) => refusal.into(),
            AuthorityError::UnknownWorker(_) => Self::new(Code::UnknownWorker, error.to_string()),
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
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
            let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let code = if too_large { Code::TooLarge } else { Code::BadRequest };
            Refused::new(code, rejection.body_text())
        })?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Refused::new(Code::BadRequest, format!("the body is not what is expected: {error}")))?;
        Ok(Self(value))
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
