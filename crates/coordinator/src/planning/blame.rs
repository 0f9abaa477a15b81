//! Which key of the sweep file a corpus error is about, so that it is shown with its line like any other mistake. What
//! no key can mend (a full disk, a damaged corpus) blames none.

use std::path::Path;

use isoloss_corpus::{CorpusError, SourceError, SplitError};
use isoloss_sweep::corpus::{CorpusSpec, Source, Validation};
use serde::{Deserialize, Serialize};

/// Keys to look for, best first, the word in the value that is meant, and what was expected there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Blame {
    pub(super) keys: Vec<String>,
    pub(super) word: Option<String>,
    pub(super) expected: String,
}

impl Blame {
    fn of(keys: &[&str], word: Option<&str>, expected: &str) -> Self {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Self { keys, word: word.map(str::to_owned), expected: expected.to_owned() }
    }

    /// Of more text than memory holds.
    pub(super) fn size() -> Self {
        Self::of(
            &["bytes", "paths", "source"],
            None,
            "expected less text, or a coordinator with a larger --survey-memory",
        )
    }
}

const PATHS: &[&str] = &["paths", "source"];
const VALIDATION: &[&str] = &["validation", "source"];
const AMOUNT: &[&str] = &["paths", "bytes", "validation", "source"];

/// The key that `error` is about; `corpus` is as written, with paths relative to `base`.
pub(super) fn blame(error: &CorpusError, corpus: &CorpusSpec, base: &Path) -> Option<Blame> {
    let at = |keys, expected| Some(Blame::of(keys, None, expected));
    match error {
        CorpusError::TooLarge { .. } => Some(Blame::size()),
        CorpusError::Source(error) => Some(source(error, corpus, base)),
        CorpusError::Split(SplitError::Fraction { .. }) => at(VALIDATION, "expected a fraction between 0 and 1"),
        CorpusError::Split(SplitError::NothingToTrainOn) => at(VALIDATION, "expected other files than those of paths"),
        CorpusError::Split(_) => at(AMOUNT, "expected more text"),
        CorpusError::Tokenizer(_) => at(&["tokenizer", "source"], "expected a tokenizer that keeps every text"),
        CorpusError::Transform(_) => at(&["transforms", "source"], "expected a possible transform"),
        _ => None,
    }
}

fn source(error: &SourceError, corpus: &CorpusSpec, base: &Path) -> Blame {
    let expected = match error {
        SourceError::NoPaths => "expected at least one file or glob",
        SourceError::Missing { .. } => "expected a file",
        SourceError::NoMatch { .. } => "expected a glob that matches a file",
        SourceError::Glob { .. } => "expected a file, or a glob such as texts/*.txt",
        SourceError::NotAFile { .. } => "expected a regular file",
        SourceError::Folder { .. } => "expected files, not a folder",
        SourceError::Parquet { .. } => "expected text, .zst, .gz or .jsonl files",
        SourceError::Unreadable { .. } => "expected a file that can be read",
        SourceError::Line { .. } => "expected JSON lines with text under this key",
        SourceError::Empty { .. } => "expected files with text",
    };
    let meant = match error {
        SourceError::Missing { pattern, .. }
        | SourceError::NoMatch { pattern, .. }
        | SourceError::Glob { pattern, .. } => Some(Path::new(pattern)),
        SourceError::NotAFile { path }
        | SourceError::Folder { path }
        | SourceError::Parquet { path }
        | SourceError::Unreadable { path, .. }
        | SourceError::Line { path, .. } => Some(path.as_path()),
        SourceError::NoPaths | SourceError::Empty { .. } => None,
    };
    fn written<'a>(words: &'a [String], meant: Option<&Path>, base: &Path) -> Option<&'a String> {
        words.iter().find(|word| meant == Some(base.join(word).as_path()))
    }
    if let Validation::Files(files) = &corpus.validation
        && let Some(word) = written(files, meant, base)
    {
        return Blame::of(VALIDATION, Some(word), expected);
    }
    let word = match &corpus.source {
        Source::Files { paths, .. } => written(paths, meant, base).map(String::as_str),
        Source::Synthetic { .. } => None,
    };
    match error {
        SourceError::Line { .. } => Blame::of(&["field", "paths", "source"], None, expected),
        _ => Blame::of(PATHS, word, expected),
    }
}
