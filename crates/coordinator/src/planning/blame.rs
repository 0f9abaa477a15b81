//! Which key of the sweep file a corpus error is about, so that it is shown with its line like any other mistake. What
//! no key can mend (a full disk, a damaged corpus) blames none.

use std::path::Path;

use isoloss_corpus::{CorpusError, SourceError, SplitError};
use isoloss_sweep::corpus::{CorpusSpec, Source, Validation};

/// Keys to look for, best first, the word in the value that is meant, and what was expected there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blame<'a> {
    pub(super) keys: &'static [&'static str],
    pub(super) word: Option<&'a str>,
    pub(super) expected: &'static str,
}

const PATHS: &[&str] = &["paths", "source"];
const VALIDATION: &[&str] = &["validation", "source"];
const AMOUNT: &[&str] = &["paths", "bytes", "validation", "source"];

/// The key that `error` is about; `corpus` is as written, with paths relative to `base`.
pub(super) fn blame<'a>(error: &CorpusError, corpus: &'a CorpusSpec, base: &Path) -> Option<Blame<'a>> {
    let at = |keys, expected| Some(Blame { keys, word: None, expected });
    match error {
        CorpusError::Source(error) => Some(source(error, corpus, base)),
        CorpusError::Split(SplitError::Fraction { .. }) => at(VALIDATION, "expected a fraction between 0 and 1"),
        CorpusError::Split(SplitError::NothingToTrainOn) => at(VALIDATION, "expected other files than those of paths"),
        CorpusError::Split(_) => at(AMOUNT, "expected more text"),
        CorpusError::Tokenizer(_) => at(&["tokenizer", "source"], "expected a tokenizer that keeps every text"),
        CorpusError::Transform(_) => at(&["transforms", "source"], "expected a possible transform"),
        _ => None,
    }
}

fn source<'a>(error: &SourceError, corpus: &'a CorpusSpec, base: &Path) -> Blame<'a> {
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
    let written = |words: &'a [String]| words.iter().find(|word| meant == Some(base.join(word).as_path()));
    if let Validation::Files(files) = &corpus.validation
        && let Some(word) = written(files)
    {
        return Blame { keys: VALIDATION, word: Some(word), expected };
    }
    let word = match &corpus.source {
        Source::Files { paths, .. } => written(paths).map(String::as_str),
        Source::Synthetic { .. } => None,
    };
    match error {
        SourceError::Line { .. } => Blame { keys: &["field", "paths", "source"], word: None, expected },
        _ => Blame { keys: PATHS, word, expected },
    }
}
