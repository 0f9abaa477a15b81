//! One corpus to survey, as data: a process of its own can be told of it on its input and answers with JSON lines, so
//! that the memory of a survey is not the coordinator's. It starts no process.

use std::path::{Path, PathBuf};

use isoloss_corpus::{CorpusError, Progress, Stage};
use isoloss_sweep::Manifest;
use isoloss_sweep::corpus::{CorpusSpec, Source, TokenizerSpec, Validation};
use serde::{Deserialize, Serialize};

use super::blame::{Blame, blame};

/// A corpus to survey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Errand {
    /// As the sweep file has it: relative paths begin at `base`.
    pub(super) corpus: CorpusSpec,
    pub(super) base: PathBuf,
    /// The longest that will train on it.
    pub(super) context: u32,
    pub(super) corpora_dir: PathBuf,
    /// What the survey may take.
    pub(super) memory_bytes: u64,
}

/// What whoever runs an errand says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    At(Stage),
    Made(Box<Manifest>),
    Failed(Trouble),
}

/// Why there is no corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub(super) message: String,
    /// What in the sweep file is at fault; missing: this machine is.
    pub(super) blame: Option<Blame>,
}

impl Errand {
    /// Memory in bytes that the survey may take; whoever runs it in a process of its own holds it to that.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Surveys in this process.
    pub fn run(&self, progress: &mut dyn FnMut(Stage)) -> Result<Manifest, Trouble> {
        self.told(self.survey(progress))
    }

    /// The manifest of an earlier survey of the same input, if there was one.
    pub(super) fn recall(&self) -> Result<Option<Manifest>, Trouble> {
        self.told(isoloss_corpus::recall(&self.placed(), self.context, &self.corpora_dir))
    }

    fn survey(&self, progress: &mut dyn FnMut(Stage)) -> Result<Manifest, CorpusError> {
        let placed = self.placed();
        if let Some(known) = isoloss_corpus::recall(&placed, self.context, &self.corpora_dir)? {
            return Ok(known);
        }
        isoloss_corpus::weigh(&placed, self.memory_bytes)?;
        let mut report = |step: Progress| progress(step.stage);
        isoloss_corpus::survey(&placed, self.context, &self.corpora_dir, &mut report)
    }

    fn told<T>(&self, made: Result<T, CorpusError>) -> Result<T, Trouble> {
        let trouble = |error: CorpusError| {
            let blame = blame(&error, &self.corpus, &self.base);
            Trouble { message: error.to_string(), blame }
        };
        made.map_err(trouble)
    }

    fn placed(&self) -> CorpusSpec {
        at(&self.base, &self.corpus)
    }
}

/// The corpus with relative paths read from `base`.
fn at(base: &Path, corpus: &CorpusSpec) -> CorpusSpec {
    // Joining an absolute path gives that path.
    let place = |path: &String| base.join(path).to_string_lossy().into_owned();
    let mut placed = corpus.clone();
    if let Source::Files { paths, .. } = &mut placed.source {
        paths.iter_mut().for_each(|path| *path = place(path));
    }
    if let TokenizerSpec::File { path } = &mut placed.tokenizer {
        *path = place(path);
    }
    if let Validation::Files(paths) = &mut placed.validation {
        paths.iter_mut().for_each(|path| *path = place(path));
    }
    placed
}
