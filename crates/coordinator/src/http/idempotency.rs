//! `Idempotency-Key`: the answer to a submission, given again to whoever repeats it with the same key. A submission is
//! idempotent by its sweep's id, the digest of its plan, with one exception: it revives a sweep that was cancelled. A
//! repetition must not undo an order that came in between, so answers are on the disk before they are given, and a
//! restart knows them. Only a crash between the admission and that write leaves a key unknown, and nobody had an answer.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use isoloss_sweep::Digest;
use isoloss_wire::api::{Code, Submitted};
use serde::{Deserialize, Serialize};

use crate::http::refusal::Refused;

/// The header, also in the OpenAPI document.
pub(crate) const HEADER: &str = "idempotency-key";
/// Answers that are remembered, newest first.
const ANSWERS_MAX: usize = 1024;
/// Lines of the file before it is written anew.
const LINES_MAX: usize = 2 * ANSWERS_MAX;
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

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Answer {
    caller: String,
    key: String,
    question: Digest,
    answer: Submitted,
}

/// Answers by caller and key, in memory and in a file of JSON lines.
#[derive(Debug)]
pub(crate) struct Answers {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    answers: VecDeque<Answer>,
    file: File,
    lines: usize,
}

impl Answers {
    /// Those of a data directory. A line that was not written whole belongs to an answer that was not given.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("submissions.jsonl");
        let mut answers = VecDeque::new();
        match File::open(&path) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    answers.extend(serde_json::from_slice::<Answer>(&line?).ok());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let answers: VecDeque<Answer> = answers.into_iter().rev().take(ANSWERS_MAX).collect();
        let file = rewrite(&path, &answers)?;
        let lines = answers.len();
        Ok(Self { path, inner: Mutex::new(Inner { answers, file, lines }) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was answered to the same question under this key; refused where the question was another.
    pub(crate) fn find(&self, caller: &str, key: &Key, question: Digest) -> Result<Option<Submitted>, Refused> {
        let Some(key) = &key.0 else { return Ok(None) };
        match self.inner().answers.iter().find(|known| known.caller == caller && known.key == *key) {
            None => Ok(None),
            Some(known) if known.question == question => Ok(Some(known.answer.clone())),
            Some(_) => Err(Refused::new(Code::KeyReused, "this Idempotency-Key came with another body before")),
        }
    }

    /// Remembers an answer that is about to be given; it is on the disk then.
    pub(crate) fn keep(&self, caller: &str, key: &Key, question: Digest, answer: &Submitted) -> io::Result<()> {
        let Some(key) = &key.0 else { return Ok(()) };
        let answer = Answer { caller: caller.to_owned(), key: key.clone(), question, answer: answer.clone() };
        let mut inner = self.inner();
        inner.answers.retain(|known| known.caller != caller || known.key != *key);
        let line = line(&answer)?;
        inner.answers.push_front(answer);
        inner.answers.truncate(ANSWERS_MAX);
        if inner.lines >= LINES_MAX {
            inner.file = rewrite(&self.path, &inner.answers)?;
            inner.lines = inner.answers.len();
            return Ok(());
        }
        inner.lines += 1;
        let written = inner.file.write_all(&line).and_then(|()| inner.file.sync_data());
        if written.is_err() {
            // Half a line may stand there: the next answer writes all anew.
            inner.lines = LINES_MAX;
        }
        written
    }
}

fn line(answer: &Answer) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    Ok(line)
}

/// The file anew, oldest first, open for what follows.
fn rewrite(path: &Path, answers: &VecDeque<Answer>) -> io::Result<File> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    for answer in answers.iter().rev() {
        file.write_all(&line(answer)?)?;
    }
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use isoloss_sweep::SweepId;

    use super::*;

    fn answer(runs: u64) -> Submitted {
        let value = serde_json::json!({
            "schema_version": 1, "sweep_id": SweepId(Digest::of(b"s")), "name": "s", "runs": runs, "added": 0,
            "reused": 0, "paused": false,
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_restart_knows_the_answers_and_a_torn_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let key = |n: usize| Key(Some(format!("key-{n}")));
        let question = Digest::of(b"question");
        let answers = Answers::open(dir.path()).unwrap();
        for n in 0..LINES_MAX + 10 {
            answers.keep("someone", &key(n), question, &answer(n as u64)).unwrap();
        }
        drop(answers);
        let path = dir.path().join("submissions.jsonl");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"caller\": \"some").unwrap();
        let last = LINES_MAX + 9;
        for _ in 0..2 {
            let answers = Answers::open(dir.path()).unwrap();
            let found = |n, caller| answers.find(caller, &key(n), question).unwrap().map(|answer| answer.runs);
            assert_eq!(found(last, "someone"), Some(last as u64));
            assert_eq!(found(last + 1 - ANSWERS_MAX, "someone"), Some((last + 1 - ANSWERS_MAX) as u64));
            assert_eq!((found(last - ANSWERS_MAX, "someone"), found(last, "another")), (None, None));
            assert!(answers.find("someone", &key(last), Digest::of(b"other")).is_err());
        }
    }
}
