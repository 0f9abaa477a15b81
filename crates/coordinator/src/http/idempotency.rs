//! `Idempotency-Key`: the answer to a submission, given again to whoever repeats it with the same key. A submission is
//! idempotent by itself, because a sweep's id is the digest of its plan: without a key, or after a restart has forgotten
//! the key, a repetition admits nothing twice and differs only in the number of runs that it calls new. So the memory
//! here is small and is not written down.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use isoloss_sweep::Digest;
use isoloss_wire::api::{Code, Submitted};

use crate::http::refusal::Refused;

/// The header, also in the OpenAPI document.
pub(crate) const HEADER: &str = "idempotency-key";
/// Answers that are remembered, newest first.
const ANSWERS_MAX: usize = 1024;
const KEY_BYTES_MAX: usize = 255;

/// The key of a request, if it has one.
#[derive(Debug)]
pub(crate) struct Key(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let Some(value) = parts.headers.get(HEADER) else {
            return Ok(Self(None));
        };
        match value.to_str() {
            Ok(key) if !key.is_empty() && key.len() <= KEY_BYTES_MAX => Ok(Self(Some(key.to_owned()))),
            _ => {
                let detail = format!("an Idempotency-Key has 1 to {KEY_BYTES_MAX} visible ASCII characters");
                Err(Refused::new(Code::BadRequest, detail))
            }
        }
    }
}

#[derive(Debug)]
struct Answer {
    caller: String,
    key: String,
    question: Digest,
    answer: Submitted,
}

/// Answers by caller and key.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<VecDeque<Answer>>);

impl Answers {
    /// What was answered to the same question under this key; refused where the question was another.
    pub(crate) fn find(&self, caller: &str, key: &Key, question: Digest) -> Result<Option<Submitted>, Refused> {
        let Some(key) = &key.0 else { return Ok(None) };
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answers.iter().find(|known| known.caller == caller && known.key == *key) {
            None => Ok(None),
            Some(known) if known.question == question => Ok(Some(known.answer.clone())),
            Some(_) => Err(Refused::new(Code::KeyReused, "this Idempotency-Key came with another body before")),
        }
    }

    pub(crate) fn keep(&self, caller: &str, key: Key, question: Digest, answer: &Submitted) {
        let Some(key) = key.0 else { return };
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|known| known.caller != caller || known.key != key);
        answers.push_front(Answer { caller: caller.to_owned(), key, question, answer: answer.clone() });
        answers.truncate(ANSWERS_MAX);
    }
}
