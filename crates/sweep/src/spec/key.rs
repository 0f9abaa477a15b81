//! Every key that a run can be described with: its name, section, kind and sense. Errors, axes and the JSON Schema
//! all read this one table; defaults are the recipe's.

/// The table that a key is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Corpus,
    Model,
    Train,
}

impl Section {
    pub(crate) const ALL: [Self; 3] = [Self::Corpus, Self::Model, Self::Train];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Corpus => "corpus",
            Self::Model => "model",
            Self::Train => "train",
        }
    }
}

/// What a key's value may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// A whole number, at least this.
    Count(u64),
    /// A number from the first to the second, both included.
    Number(f64, f64),
    /// A number above 0.
    Positive,
    Flag,
    Word(&'static [&'static str]),
    Text,
    Texts,
    /// A size in bytes.
    Bytes,
    Schedule,
    Tokenizer,
    Validation,
    Transforms,
    Tune,
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    /// Unique among all keys; an axis is named by it.
    pub(crate) name: &'static str,
    pub(crate) section: Section,
    pub(crate) kind: Kind,
    /// For people, in the JSON Schema.
    pub(crate) doc: &'static str,
}

const fn key(section: Section, name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, section, kind, doc }
}

use Kind::{Bytes, Count, Flag, Number, Positive, Text, Texts, Word};
use Section::{Corpus, Model, Train};

/// All keys. Where an axis would be ambiguous the name carries its section: `corpus.seed`.
pub(crate) static KEYS: &[Key] = &[
    key(Corpus, "source", Word(&["synthetic", "files"]), "where the text comes from"),
    key(Corpus, "paths", Texts, "files and globs of plain, .gz, .zst or .jsonl text"),
    key(Corpus, "separator", Text, "a line that ends a document inside a file; without it a file is a document"),
    key(Corpus, "field", Text, "the key of a .jsonl line that holds the text (default \"text\")"),
    key(Corpus, "preset", Word(&["tiny", "small", "large"]), "size of the synthetic language"),
    key(
        Corpus,
        "sentences",
        Text,
        "letters of the kinds of sentences in the synthetic language, among UGKQRN (default all)",
    ),
    key(Corpus, "corpus.seed", Count(0), "seed of the synthetic world and of its sampled text (default 1)"),
    key(Corpus, "bytes", Bytes, "bytes of synthetic text, validation included (default \"16MiB\")"),
    key(Corpus, "tokenizer", Kind::Tokenizer, "\"bytes\", { bpe = { vocab = 4096 } } or { file = \"tokenizer.json\" }"),
    key(
        Corpus,
        "validation",
        Kind::Validation,
        "share of the text kept from training, { tail = 0.1 } or { files = [..] }",
    ),
    key(Corpus, "transforms", Kind::Transforms, "changes of the training text, in order"),
    key(Corpus, "tokens_unique", Count(1), "distinct training tokens offered; a longer run repeats them"),
    key(Corpus, "scored_bytes", Bytes, "validation bytes that score the final loss (default \"256KiB\")"),
    key(Corpus, "curve_bytes", Bytes, "validation bytes that score a point of the training curve (default \"32KiB\")"),
    key(Model, "family", Word(&["dense", "moe"]), "every weight per token, or a mixture of experts"),
    key(
        Model,
        "params",
        Count(1),
        "target of params_non_embedding; the ladder picks width and layers (of the dense twin, for experts)",
    ),
    key(Model, "width", Count(2), "residual width"),
    key(Model, "layers", Count(1), "depth"),
    key(Model, "heads", Count(1), "attention heads"),
    key(Model, "ff", Count(1), "feed-forward width of the dense model"),
    key(Model, "context", Count(2), "tokens a position may look back on, itself included (default 256)"),
    key(Model, "tied", Flag, "whether the output head is the embedding table transposed (default false)"),
    key(Model, "experts", Count(1), "routed experts per layer, before granularity splits them"),
    key(Model, "top_k", Count(1), "experts that each token is sent to, before granularity (default 2)"),
    key(Model, "granularity", Count(1), "splits each expert in so many, and multiplies top_k by it (default 1)"),
    key(Model, "expert_ff", Count(1), "width of one routed expert; without it `match` decides"),
    key(Model, "shared_ff", Count(0), "width of the expert that every token passes (default 0: none)"),
    key(
        Model,
        "match",
        Word(&["active", "total", "flops"]),
        "what a mixture of experts shares with its dense twin (default \"active\")",
    ),
    key(Model, "aux_loss_coef", Number(0.0, 1e3), "weight of the load-balance loss"),
    key(Model, "router_z_loss_coef", Number(0.0, 1e3), "weight of the router z-loss"),
    key(Model, "bias_update", Number(0.0, 1.0), "step of the bias-based balancing; 0 for none"),
    key(
        Model,
        "capacity_factor",
        Positive,
        "slots per expert over the even share, in training; without it no token is dropped",
    ),
    key(Train, "recipe", Word(crate::plan::RECIPES), "rules that give the hyper-parameters from size and tokens"),
    key(Train, "tokens", Count(1), "training tokens, repeats included"),
    key(
        Train,
        "tokens_per_param",
        Positive,
        "training tokens over params_non_embedding (of the dense twin, for experts)",
    ),
    key(Train, "flops", Positive, "exact training FLOPs; tokens follow (isoFLOP)"),
    key(
        Train,
        "reference_tokens",
        Count(1),
        "budget that the recipe reads under WSD (default: geometric mean of the size's budgets)",
    ),
    key(Train, "batch", Count(1), "sequences of one context per step"),
    key(Train, "learning_rate", Positive, "peak learning rate"),
    key(
        Train,
        "warmup",
        Number(0.0, 0.9),
        "share of the budget (of the reference budget, under WSD) over which the rate rises",
    ),
    key(
        Train,
        "schedule",
        Kind::Schedule,
        "\"cosine\", \"wsd\", { cosine = { final_ratio = 0.1 } } or { wsd = { decay = 0.2 } }",
    ),
    key(Train, "weight_decay", Number(0.0, 1e3), "decoupled weight decay"),
    key(
        Train,
        "tune",
        Kind::Tune,
        "factors to try on the recipe's numbers, such as { learning_rate = [0.5, 1, 2] }; the fit keeps the best of each size and budget",
    ),
    key(Train, "beta1", Number(0.0, 0.999_999), "AdamW's first moment"),
    key(Train, "beta2", Number(0.0, 0.999_999), "AdamW's second moment"),
    key(Train, "epsilon", Positive, "AdamW's epsilon"),
    key(Train, "clip", Positive, "largest global gradient norm"),
    key(Train, "seed", Count(0), "seed of initialisation and data order"),
    key(Train, "precision", Word(&["f32", "bf16"]), "number format of the matrix products"),
    key(Train, "engine", Word(&["auto", "cpu", "cuda", "reference"]), "implementation of the training step"),
];

impl Key {
    /// The name inside its own section.
    pub(crate) fn short(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// Whether a list as this key's value can only mean several values.
    pub(crate) fn takes_no_list(&self) -> bool {
        !matches!(self.kind, Kind::Texts | Kind::Transforms)
    }

    /// The key that an axis or arm calls `name`.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        // `depth` is what papers call layers, so it is accepted and nowhere printed.
        let name = if name == "depth" { "layers" } else { name };
        KEYS.iter().find(|key| key.name == name)
    }

    /// The key written `name` in the table of `section`.
    pub(crate) fn within(section: Section, name: &str) -> Option<&'static Self> {
        let name = if name == "depth" { "layers" } else { name };
        KEYS.iter().find(|key| key.section == section && key.short() == name)
    }
}
