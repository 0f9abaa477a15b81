//! Refusals as RFC 9457 problems. The log keeps the cause chain; a client sees a short message and a code.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Content type of a [`Problem`].
pub const PROBLEM_TYPE: &str = "application/problem+json";

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// `urn:isoloss:problem:` and the code.
    pub r#type: String,
    pub title: String,
    pub status: u16,
    /// For people: one clear message, several lines when it points into a sweep file.
    pub detail: String,
    /// The path that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// For programs.
    pub code: Code,
}

/// What kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request itself is not understood.
    BadRequest,
    /// The sweep file or its corpus is wrong.
    InvalidSweep,
    /// The plan refuses: over budget, or nothing here can run it.
    RefusedPlan,
    NotFound,
    /// The word names more than one thing.
    Ambiguous,
    /// No or a wrong bearer token.
    Unauthorized,
    /// A Host or Origin that is not this coordinator's own.
    ForeignOrigin,
    /// The token's role does not go so far.
    Forbidden,
    /// The attempt was leased to another: the key that was shown is not the lease's.
    WrongKey,
    /// The path knows other methods.
    MethodNotAllowed,
    /// The body did not arrive in time.
    Timeout,
    TooLarge,
    /// The body is not said to be JSON.
    UnsupportedMedia,
    /// An `Idempotency-Key` was used before, with another body.
    KeyReused,
    /// Too many requests of this kind; `Retry-After` says when the next may come.
    TooMany,
    /// A newer attempt holds the run, or it has ended: this result is not recorded.
    StaleToken,
    /// The coordinator does not know this worker (it restarted): register again.
    UnknownWorker,
    /// Client and coordinator speak different versions.
    Version,
    /// What was asked does not go with the present state.
    Conflict,
    /// Not enough results for a fit.
    NotIdentified,
    /// Try again later.
    Busy,
    Internal,
}

impl Code {
    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::ForeignOrigin | Self::Forbidden | Self::WrongKey => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::Ambiguous | Self::StaleToken | Self::UnknownWorker | Self::Version | Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMedia => 415,
            Self::InvalidSweep | Self::RefusedPlan | Self::NotIdentified | Self::KeyReused => 422,
            Self::TooMany => 429,
            Self::Busy => 503,
            Self::Internal => 500,
        }
    }

    /// The code as it stands in JSON, with hyphens for the problem's type.
    fn slug(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::InvalidSweep => "invalid-sweep",
            Self::RefusedPlan => "refused-plan",
            Self::NotFound => "not-found",
            Self::Ambiguous => "ambiguous",
            Self::Unauthorized => "unauthorized",
            Self::ForeignOrigin => "foreign-origin",
            Self::Forbidden => "forbidden",
            Self::WrongKey => "wrong-key",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Timeout => "timeout",
            Self::TooLarge => "too-large",
            Self::UnsupportedMedia => "unsupported-media",
            Self::KeyReused => "key-reused",
            Self::TooMany => "too-many",
            Self::StaleToken => "stale-token",
            Self::UnknownWorker => "unknown-worker",
            Self::Version => "version",
            Self::Conflict => "conflict",
            Self::NotIdentified => "not-identified",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let slug = code.slug();
        Self {
            r#type: format!("urn:isoloss:problem:{slug}"),
            title: slug.replace('-', " "),
            status: code.status(),
            detail: detail.into(),
            instance: None,
            code,
        }
    }
}
