//! The constants of the language: what all presets share and what each sets. No arithmetic beyond lookup.

use isoloss_sweep::corpus::Preset;

/// Probability of each kind of sentence, in the order of [`Kind::ALL`].
pub(super) const MIX: [f64; 6] = [0.30, 0.30, 0.20, 0.10, 0.05, 0.05];
/// Probability that a sentence's kind is kept rather than drawn afresh.
pub(super) const STICKINESS: f64 = 0.5;
/// Mean sentences in a document; each is the last with probability one in this many.
pub(super) const SENTENCES_MEAN: f64 = 16.0;
/// Probability that a word of a unigram sentence is its last.
pub(super) const UNIGRAM_STOP: f64 = 0.125;
pub(super) const UNIGRAM_EXPONENT: f64 = 1.0;
pub(super) const GRAMMAR_EXPONENT: f64 = 1.0;
pub(super) const ENTITY_EXPONENT: f64 = 1.5;
pub(super) const TASK_EXPONENT: f64 = 1.4;
/// Ways to state a fact.
pub(super) const TEMPLATES: usize = 2;
pub(super) const DETERMINERS: usize = 3;
pub(super) const PREPOSITIONS: usize = 6;
/// Bits that enter one parity.
pub(super) const PARITY_BITS: usize = 3;
/// Symbols of a copy or noise string.
pub(super) const STRING_SYMBOLS: usize = 12;
/// Symbols of headers, copies and noise: 6 bits each.
pub(super) const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijklmnopqrstuvwxyz+/";
/// Symbols of fact values: 5 bits each.
pub(super) const VALUES: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/// A kind of sentence: each isolates one thing that a model can learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Words of a Zipf lexicon.
    Unigram,
    /// A sentence of a small context-free grammar with agreement.
    Grammar,
    /// An entity, an attribute and its stored value.
    Fact,
    /// Random bits and the parity of three of them.
    Parity,
    /// A random string, twice.
    Copy,
    /// A random string.
    Noise,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Unigram, Self::Grammar, Self::Fact, Self::Parity, Self::Copy, Self::Noise];

    /// The letter that opens such a sentence.
    pub fn letter(self) -> u8 {
        match self {
            Self::Unigram => b'U',
            Self::Grammar => b'G',
            Self::Fact => b'K',
            Self::Parity => b'Q',
            Self::Copy => b'R',
            Self::Noise => b'N',
        }
    }

    /// Its place in [`Kind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The law of the kind that follows `kind`: a sticky chain whose stationary law is `mix`.
pub(super) fn transition(mix: &[f64; 6], kind: Kind) -> [f64; 6] {
    let mut law = mix.map(|p| (1.0 - STICKINESS) * p);
    law[kind.index()] += STICKINESS;
    law
}

/// The sizes that a preset sets.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Stationary law of the kinds of sentences, in the order of [`Kind::ALL`].
    pub(super) mix: [f64; 6],
    pub(super) topics: usize,
    pub(super) unigrams: usize,
    pub(super) nouns: usize,
    pub(super) verbs: usize,
    pub(super) adjectives: usize,
    pub(super) entities: usize,
    pub(super) attributes: usize,
    /// Symbols of a fact's value.
    pub(super) value_symbols: usize,
    pub(super) tasks: usize,
    /// Bits of a parity sentence.
    pub(super) bits: usize,
}

impl Shape {
    pub(super) fn of(preset: Preset) -> Self {
        let tiny = Self {
            mix: MIX,
            topics: 8,
            unigrams: 300,
            nouns: 200,
            verbs: 100,
            adjectives: 50,
            entities: 512,
            attributes: 4,
            value_symbols: 2,
            tasks: 64,
            bits: 12,
        };
        match preset {
            Preset::Tiny => tiny,
            Preset::Small => Self {
                topics: 32,
                unigrams: 3_000,
                nouns: 2_000,
                verbs: 800,
                adjectives: 400,
                entities: 16_384,
                tasks: 256,
                ..tiny
            },
            Preset::Large => Self {
                topics: 64,
                unigrams: 20_000,
                nouns: 20_000,
                verbs: 8_000,
                adjectives: 4_000,
                entities: 1 << 20,
                attributes: 6,
                value_symbols: 3,
                tasks: 1_024,
                bits: 16,
                ..tiny
            },
        }
    }

    /// The same sizes with only the kinds of sentences that `letters` name, their shares in proportion.
    pub(super) fn only(mut self, letters: &str) -> Self {
        for kind in Kind::ALL {
            if !letters.as_bytes().contains(&kind.letter()) {
                self.mix[kind.index()] = 0.0;
            }
        }
        let sum: f64 = self.mix.iter().sum();
        assert!(sum > 0.0, "no kind of sentence among {letters:?}");
        self.mix = self.mix.map(|share| share / sum);
        self
    }

    /// Words that topic `topic` shifts a lexicon of `words` by: rank r is word (r + shift) mod words.
    pub(super) fn shift(&self, topic: usize, words: usize) -> usize {
        topic * words / self.topics
    }
}
