//! Refusals as RFC 9457 problems. The log keeps the cause chain; a client sees a short message and a code.

use serde::{Deserialize, Serialize};

/// Content type of a [`Problem`].
pub const PROBLEM_TYPE: &str = "application/problem+json";

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// `urn:isoloss:problem:` and the code.
    pub r#type: String,
    pub title: String,
    pub status: u16,
    /// For people: one clear message, several lines when it points into a sweep file.
    pub detail: String,
    /// For programs.
    pub code: Code,
}

/// What kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    TooLarge,
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
            Self::ForeignOrigin => 403,
            Self::NotFound => 404,
            Self::Ambiguous | Self::StaleToken | Self::UnknownWorker | Self::Version | Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::InvalidSweep | Self::RefusedPlan | Self::NotIdentified => 422,
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
            Self::TooLarge => "too-large",
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
            code,
        }
    }
}
