//! Submissions whose corpora are being read, so that people see that something happens. In memory only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use isoloss_corpus::Stage;
use isoloss_wire::api::Survey;

/// All surveys under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surveys(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    under_way: BTreeMap<u64, (String, &'static str, Instant)>,
}

/// One survey; it is over when this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    surveys: Surveys,
    number: u64,
}

impl Surveys {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn begin(&self, file: &str) -> UnderWay {
        let number = self.with(|inner| {
            inner.next += 1;
            inner.under_way.insert(inner.next, (file.to_owned(), "planning", Instant::now()));
            inner.next
        });
        UnderWay { surveys: self.clone(), number }
    }

    /// By number, in which they began.
    pub(crate) fn list(&self) -> Vec<(u64, Survey)> {
        let row = |(number, (file, phase, since)): (&u64, &(String, &'static str, Instant))| {
            let (file, phase) = (file.clone(), (*phase).to_owned());
            (*number, Survey { file, phase, seconds: since.elapsed().as_secs_f64() })
        };
        self.with(|inner| inner.under_way.iter().map(row).collect())
    }
}

impl UnderWay {
    pub(crate) fn at(&self, stage: Stage) {
        let phase = match stage {
            Stage::Read => "reading the text",
            Stage::Split => "splitting the text",
            Stage::Tokenizer => "training the tokenizer",
            Stage::Encode => "encoding the text",
            Stage::Baselines => "compressing the validation text with gzip and xz",
            Stage::Write => "writing the corpus",
        };
        self.surveys.with(|inner| {
            if let Some((_, now, _)) = inner.under_way.get_mut(&self.number) {
                *now = phase;
            }
        });
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.surveys.with(|inner| inner.under_way.remove(&self.number));
    }
}
