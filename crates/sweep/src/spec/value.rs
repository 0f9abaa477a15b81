//! As-written values of keys, read from the tree by kind. It does not fill defaults in.

use super::diagnostic::Place;
use super::document::{Entry, Item, Node};
use super::fields::Reader;
use super::key::{Key, Kind};
use super::{SpecError, quantity};
use crate::corpus::{TokenizerSpec, Transform, Unit, Validation};
use crate::hyper::HyperParameter;

/// What `tune = "learning_rate"` tries: a factor of four either way, in steps that a parabola can be drawn through.
const TUNE_FACTORS: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];

/// A value of one key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Count(u64),
    Number(f64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Schedule(ScheduleSpec),
    Tokenizer(TokenizerSpec),
    Validation(Validation),
    Transforms(Vec<Transform>),
    /// Factors on hyper-parameters, in the order of the file.
    Tune(Vec<(HyperParameter, Vec<f64>)>),
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// A schedule as written: shares, not steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ScheduleSpec {
    Cosine { final_ratio: f64 },
    Wsd { decay: f64 },
}

impl ScheduleSpec {
    /// Decay to a tenth of the peak: Hoffmann 2203.15556, section B.
    pub(crate) const COSINE: Self = Self::Cosine { final_ratio: 0.1 };
    /// Decay over a fifth of the budget: Hägele 2405.18392.
    pub(crate) const WSD: Self = Self::Wsd { decay: 0.2 };
}

impl Value {
    /// A number that an expression gave, as a value of `key`.
    pub(crate) fn of_number(key: &Key, number: f64) -> Option<Self> {
        match key.kind {
            Kind::Count(least) => {
                let rounded = number.round();
                (rounded >= least as f64 && rounded < 9.2e18).then_some(Self::Count(rounded as u64))
            }
            Kind::Number(least, most) => (least..=most).contains(&number).then_some(Self::Number(number)),
            Kind::Positive => (number > 0.0 && number.is_finite()).then_some(Self::Number(number)),
            _ => None,
        }
    }

    /// As an axis label and a word of expressions.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Text(text) => text.clone(),
            Self::Texts(texts) => texts.join(" "),
            Self::Schedule(ScheduleSpec::Cosine { .. }) => "cosine".to_owned(),
            Self::Schedule(ScheduleSpec::Wsd { decay }) => format!("wsd {decay}"),
            Self::Tokenizer(TokenizerSpec::Bytes) => "bytes".to_owned(),
            Self::Tokenizer(TokenizerSpec::Bpe { vocab }) => format!("bpe {vocab}"),
            Self::Tokenizer(TokenizerSpec::File { path }) => path.clone(),
            Self::Validation(Validation::Fraction(share)) => share.to_string(),
            Self::Validation(Validation::Tail(share)) => format!("tail {share}"),
            Self::Validation(Validation::Files(files)) => files.join(" "),
            Self::Tune(tune) => tune.iter().map(tune_label).collect::<Vec<_>>().join(", "),
            Self::Transforms(list) => list.iter().map(transform_label).collect::<Vec<_>>().join(", "),
        }
    }
}

fn tune_label((parameter, factors): &(HyperParameter, Vec<f64>)) -> String {
    let factors: Vec<String> = factors.iter().map(f64::to_string).collect();
    format!("{parameter} x{}", factors.join("/"))
}

fn transform_label(transform: &Transform) -> String {
    match transform {
        Transform::Duplicate { fraction, copies } => format!("duplicate {fraction} x{copies}"),
        Transform::Deduplicate => "deduplicate".to_owned(),
        Transform::Shuffle { unit: Unit::Sentences } => "shuffle sentences".to_owned(),
        Transform::Shuffle { unit: Unit::Words } => "shuffle words".to_owned(),
        Transform::Noise { fraction } => format!("noise {fraction}"),
    }
}

impl Reader<'_> {
    /// The value of `key` that `node` holds.
    pub(crate) fn setting(&self, key: &Key, node: &Node) -> Result<Setting, SpecError> {
        let name = key.short();
        let value = match key.kind {
            Kind::Count(least) => Value::Count(self.count(name, node, least)?),
            Kind::Number(least, most) => Value::Number(self.number_within(name, node, least, most)?),
            Kind::Positive => Value::Number(self.positive(name, node)?),
            Kind::Flag => Value::Flag(self.flag(name, node)?),
            Kind::Word(words) => Value::Text(self.word(name, node, words)?.to_owned()),
            Kind::Text => Value::Text(self.text(name, node)?),
            Kind::Texts => Value::Texts(self.texts(name, node)?),
            Kind::Bytes => Value::Count(self.bytes(name, node)?),
            Kind::Schedule => Value::Schedule(self.schedule(node)?),
            Kind::Tokenizer => Value::Tokenizer(self.tokenizer(node)?),
            Kind::Validation => Value::Validation(self.validation(node)?),
            Kind::Transforms => Value::Transforms(self.transforms(node)?),
            Kind::Tune => Value::Tune(self.tune(node)?),
        };
        Ok(Setting { value, place: node.place })
    }

    fn schedule(&self, node: &Node) -> Result<ScheduleSpec, SpecError> {
        const EXPECTED: &str =
            "expected \"cosine\", \"wsd\", { cosine = { final_ratio = 0.1 } } or { wsd = { decay = 0.2 } }";
        if let Item::Text(_) = node.item {
            let word = self.word("schedule", node, &["cosine", "wsd"])?;
            return Ok(if word == "wsd" { ScheduleSpec::WSD } else { ScheduleSpec::COSINE });
        }
        let entry = self.variant("schedule", node, &["cosine", "wsd"], EXPECTED)?;
        let mut fields = self.fields(&entry.key, &entry.node)?;
        let schedule = if entry.key == "wsd" {
            let decay = fields.take("decay");
            ScheduleSpec::Wsd { decay: decay.map_or(Ok(0.2), |node| self.number_within("decay", &node, 0.0, 1.0))? }
        } else {
            let ratio = fields.take("final_ratio");
            ScheduleSpec::Cosine {
                final_ratio: ratio.map_or(Ok(0.1), |node| self.number_within("final_ratio", &node, 0.0, 1.0))?,
            }
        };
        fields.finish()?;
        Ok(schedule)
    }

    fn tokenizer(&self, node: &Node) -> Result<TokenizerSpec, SpecError> {
        const EXPECTED: &str = "expected \"bytes\", { bpe = { vocab = 4096 } } or { file = \"tokenizer.json\" }";
        if let Item::Text(_) = node.item {
            self.word("tokenizer", node, &["bytes"])?;
            return Ok(TokenizerSpec::Bytes);
        }
        let entry = self.variant("tokenizer", node, &["bpe", "file"], EXPECTED)?;
        if entry.key == "file" {
            let path = self.text("file", &entry.node)?;
            return Ok(TokenizerSpec::File { path });
        }
        let mut fields = self.fields("bpe", &entry.node)?;
        let vocab = fields.require("vocab")?;
        fields.finish()?;
        // 256 byte symbols and the boundary are always there.
        let vocab = self.count("vocab", &vocab, 257)?;
        let vocab =
            u32::try_from(vocab).map_err(|_| self.wrong(&entry.node, "vocab is too large", "expected under 2^32"))?;
        Ok(TokenizerSpec::Bpe { vocab })
    }

    fn validation(&self, node: &Node) -> Result<Validation, SpecError> {
        if let Item::Number(_) = node.item {
            return Ok(Validation::Fraction(self.number_within("validation", node, 0.0, 0.9)?));
        }
        let entry = self.variant(
            "validation",
            node,
            &["tail", "files"],
            "expected a share such as 0.05, { tail = 0.1 } or { files = [..] }",
        )?;
        Ok(match entry.key.as_str() {
            "tail" => Validation::Tail(self.number_within("tail", &entry.node, 0.0, 0.9)?),
            _ => Validation::Files(self.texts("files", &entry.node)?),
        })
    }

    /// `"learning_rate"`, or a table of factors by hyper-parameter.
    fn tune(&self, node: &Node) -> Result<Vec<(HyperParameter, Vec<f64>)>, SpecError> {
        if let Item::Text(_) = node.item {
            let word = self.word("tune", node, &HyperParameter::NAMES)?;
            return Ok(vec![(word.parse().expect("a word of the list"), TUNE_FACTORS.to_vec())]);
        }
        let entries = self.fields("tune", node)?.rest();
        if entries.is_empty() {
            return Err(self.wrong(node, "`tune` is empty", "expected { learning_rate = [0.5, 1, 2] }"));
        }
        let one = |entry: &Entry| {
            let Ok(parameter) = entry.key.parse() else {
                return Err(self.unknown("tune", entry, HyperParameter::NAMES));
            };
            let Item::List(items) = &entry.node.item else {
                return Err(self.wrong_kind(&entry.key, &entry.node, "a list of factors such as [0.5, 1, 2]"));
            };
            let factors: Vec<f64> =
                items.iter().map(|item| self.positive(&entry.key, item)).collect::<Result<_, _>>()?;
            let distinct = factors.iter().enumerate().all(|(at, factor)| !factors[..at].contains(factor));
            if factors.len() < 2 || !distinct {
                return Err(self.wrong(
                    &entry.node,
                    "too little to choose from",
                    "expected at least two different factors",
                ));
            }
            Ok((parameter, factors))
        };
        entries.iter().map(one).collect()
    }

    fn transforms(&self, node: &Node) -> Result<Vec<Transform>, SpecError> {
        let Item::List(items) = &node.item else {
            return Err(self.wrong_kind("transforms", node, "a list such as [{ noise = 0.05 }]"));
        };
        items.iter().map(|item| self.transform(item)).collect()
    }

    fn transform(&self, node: &Node) -> Result<Transform, SpecError> {
        const NAMES: [&str; 3] = ["duplicate", "shuffle", "noise"];
        if let Item::Text(_) = node.item {
            self.word("transform", node, &["deduplicate"])?;
            return Ok(Transform::Deduplicate);
        }
        let Entry { key, node, .. } = self.variant(
            "transform",
            node,
            &NAMES,
            "expected \"deduplicate\", { duplicate = { fraction, copies } }, { shuffle = .. } or { noise = .. }",
        )?;
        match key.as_str() {
            "noise" => Ok(Transform::Noise { fraction: self.number_within("noise", node, 0.0, 1.0)? }),
            "shuffle" => Ok(Transform::Shuffle {
                unit: match self.word("shuffle", node, &["sentences", "words"])? {
                    "sentences" => Unit::Sentences,
                    _ => Unit::Words,
                },
            }),
            _ => {
                let mut fields = self.fields("duplicate", node)?;
                let fraction = self.number_within("fraction", &fields.require("fraction")?, 0.0, 1.0)?;
                let copies = self.count("copies", &fields.require("copies")?, 1)?;
                fields.finish()?;
                let copies = u32::try_from(copies)
                    .map_err(|_| self.wrong(node, "copies is too large", "expected under 2^32"))?;
                Ok(Transform::Duplicate { fraction, copies })
            }
        }
    }

    pub(crate) fn bytes(&self, name: &str, node: &Node) -> Result<u64, SpecError> {
        let bytes = match &node.item {
            Item::Text(text) => quantity::parse_bytes(text),
            Item::Number(number) => quantity::whole(*number),
            _ => None,
        };
        bytes.ok_or_else(|| {
            let expected = format!("expected a size for `{name}` such as \"80GiB\"");
            self.wrong(node, format!("`{name}` is not a size"), expected)
        })
    }
}
