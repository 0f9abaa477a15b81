//! The corpus that a point asks for. It reads no file: surveys are made from what this returns.

use crate::corpus::{CorpusSpec, Preset, Source, TokenizerSpec, Transform, Validation};
use crate::plan::point::Point;
use crate::plan::{PlanError, Refusal, Survey};
use crate::spec::{Place, SweepSpec, Value};

/// Enough for a 256 KiB score from 5 % of it, and for the quickstart's largest budget without repeats.
const SYNTHETIC_BYTES: u64 = 16 << 20;
/// The share that INTERFACES names as usual.
const VALIDATION: f64 = 0.05;

impl SweepSpec {
    /// The distinct corpora of the sweep, to be surveyed before planning.
    pub fn corpora(&self) -> Result<Vec<Survey>, PlanError> {
        let mut surveys: Vec<Survey> = Vec::new();
        for point in self.points()? {
            let corpus = point.corpus(self)?;
            let context = point.context(self)?;
            match surveys.iter_mut().find(|survey| survey.corpus == corpus) {
                Some(survey) => survey.context = survey.context.max(context),
                None => surveys.push(Survey { corpus, context }),
            }
        }
        Ok(surveys)
    }

    /// A refusal of `corpus`, which could not be surveyed, at the first of `keys` that the file sets for it, and there
    /// at `word` if the value holds it.
    pub fn refuse_corpus(
        &self,
        corpus: &CorpusSpec,
        keys: &[&str],
        word: Option<&str>,
        message: impl Into<String>,
        expected: &str,
    ) -> PlanError {
        let points = self.points().unwrap_or_default();
        let asked = points.iter().find(|point| point.corpus(self).is_ok_and(|asked| asked == *corpus));
        let place = asked.map(|point| {
            let key = keys.iter().find(|key| point.is_set(key)).or(keys.first());
            point.place_of(key.copied().unwrap_or_default())
        });
        let place = place.map_or_else(Place::default, |place| self.narrowed(place, word));
        self.refuse(Refusal::Corpus, place, message).label(expected)
    }

    /// Where `word` stands in the place, quotes included, or the whole place.
    fn narrowed(&self, place: Place, word: Option<&str>) -> Place {
        let text = self.sources.get(place.source).and_then(|source| source.text.get(place.start..place.end));
        let found = text.zip(word).and_then(|(text, word)| {
            let quoted = [format!("\"{word}\""), format!("'{word}'")];
            quoted.iter().find_map(|quoted| Some((text.find(quoted.as_str())?, quoted.len())))
        });
        found.map_or(place, |(at, length)| Place { start: place.start + at, end: place.start + at + length, ..place })
    }
}

impl Point {
    pub(crate) fn context(&self, spec: &SweepSpec) -> Result<u32, PlanError> {
        self.small(spec, "context").map(|context| context.unwrap_or(256))
    }

    /// A count that models hold in 32 bits.
    pub(crate) fn small(&self, spec: &SweepSpec, name: &str) -> Result<Option<u32>, PlanError> {
        self.count(name)
            .map(|count| {
                u32::try_from(count).map_err(|_| {
                    let message = format!("`{name}` is too large");
                    spec.refuse(Refusal::Shape, self.place_of(name), message).label("expected under 2^32")
                })
            })
            .transpose()
    }

    /// The wanted kinds of sentences; none, or every kind, is the whole language.
    fn sentences(&self, spec: &SweepSpec) -> Result<Option<String>, PlanError> {
        const KINDS: &str = "UGKQRN";
        let Some(letters) = self.text("sentences") else {
            return Ok(None);
        };
        if letters.is_empty() || !letters.chars().all(|letter| KINDS.contains(letter)) {
            let message = format!("`sentences` = {letters:?} names no kinds of sentences");
            let wrong = spec.refuse(Refusal::Corpus, self.place_of("sentences"), message);
            return Err(wrong.label("expected letters among UGKQRN"));
        }
        // In the order of the language, each once, so that equal wishes are one corpus.
        let wanted: String = KINDS.chars().filter(|kind| letters.contains(*kind)).collect();
        Ok((wanted != KINDS).then_some(wanted))
    }

    pub(crate) fn corpus(&self, spec: &SweepSpec) -> Result<CorpusSpec, PlanError> {
        let files = match self.text("source") {
            Some(source) => source == "files",
            None => self.get("paths").is_some(),
        };
        let source = match (files, self.get("paths")) {
            (true, Some(Value::Texts(paths))) => Source::Files {
                paths: paths.clone(),
                separator: self.text("separator").map(str::to_owned),
                field: self.text("field").unwrap_or("text").to_owned(),
            },
            (true, _) => {
                let missing = spec.refuse(Refusal::Corpus, self.place_of("source"), "a corpus of files needs `paths`");
                return Err(missing.label("expected [corpus] paths = [\"..\"]"));
            }
            (false, Some(_)) => {
                let both = spec.refuse(Refusal::Corpus, self.place_of("paths"), "synthetic text has no paths");
                return Err(both.label("expected source = \"files\", or no paths"));
            }
            (false, None) => Source::Synthetic {
                preset: match self.text("preset") {
                    Some("small") => Preset::Small,
                    Some("large") => Preset::Large,
                    _ => Preset::Tiny,
                },
                sentences: self.sentences(spec)?,
                seed: self.count("corpus.seed").unwrap_or(1),
                bytes: self.count("bytes").unwrap_or(SYNTHETIC_BYTES),
            },
        };
        Ok(CorpusSpec {
            source,
            tokenizer: match self.get("tokenizer") {
                Some(Value::Tokenizer(tokenizer)) => tokenizer.clone(),
                _ => TokenizerSpec::Bytes,
            },
            validation: match self.get("validation") {
                Some(Value::Validation(validation)) => validation.clone(),
                _ => Validation::Fraction(VALIDATION),
            },
            transforms: self.transforms(),
        })
    }

    fn transforms(&self) -> Vec<Transform> {
        match self.get("transforms") {
            Some(Value::Transforms(transforms)) => transforms.clone(),
            _ => Vec::new(),
        }
    }
}
