//! The exact entropy of the language in closed form, and expected bits and bytes of each kind of sentence.
//!
//! The entropy rate is a ratio of expectations over documents (renewal-reward): bits of a document over its bytes.

use super::Language;
use super::alias::Alias;
use super::grammar::{PHRASES, Symbol};
use super::lexicon::Words;
use super::shape::{self, Kind};

/// Expected bits and bytes of one sentence, its letter and line end included, its choice of kind not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    pub bits: f64,
    pub bytes: f64,
}

/// What is known exactly of a language.
#[derive(Debug, Clone, PartialEq)]
pub struct Entropy {
    pub document: Expected,
    /// E: the loss that no model can go below.
    pub bits_per_byte: f64,
    /// The loss of a reader who knows all but the facts and the parity tasks.
    pub bits_per_byte_unlearned: f64,
    /// By kind, in the order of [`Kind::ALL`].
    pub sentences: [Expected; 6],
    /// Information in the fact table.
    pub fact_bits: f64,
    /// Information in the parity tasks.
    pub parity_bits: f64,
    /// Information that a sentence's kind holds on the next one's.
    pub order_bits: f64,
}

impl Entropy {
    pub(super) fn of(language: &Language) -> Self {
        let shape = &language.shape;
        let sentences = Kind::ALL.map(|kind| sentence(language, kind));
        let mean = |value: fn(&Expected) -> f64| -> f64 {
            shape.mix.iter().zip(&sentences).map(|(p, expected)| p * value(expected)).sum()
        };
        let count = shape::SENTENCES_MEAN;
        let kind_bits = language.first.entropy();
        let next_bits: f64 = shape.mix.iter().zip(&language.next).map(|(p, law)| p * law.entropy()).sum();
        let stop_bits = binary_entropy(1.0 / count);
        let topic_bits = (shape.topics as f64).log2();
        let document = Expected {
            bits: topic_bits + kind_bits + count * (mean(|e| e.bits) + stop_bits) + (count - 1.0) * next_bits,
            bytes: 3.0 + count * mean(|e| e.bytes) + 1.0,
        };
        let value_bits = 5.0 * shape.value_symbols as f64;
        let per_sentence = shape.mix[Kind::Fact.index()] * value_bits + shape.mix[Kind::Parity.index()];
        let bits = shape.bits as f64;
        Self {
            bits_per_byte: document.bits / document.bytes,
            bits_per_byte_unlearned: (document.bits + count * per_sentence) / document.bytes,
            document,
            sentences,
            fact_bits: (shape.entities * shape.attributes) as f64 * value_bits,
            // PARITY_BITS = 3 of the bits, unordered.
            parity_bits: shape.tasks as f64 * (bits * (bits - 1.0) * (bits - 2.0) / 6.0).log2(),
            order_bits: kind_bits - next_bits,
        }
    }
}

/// Entropy of a coin with bias `p`, in bits.
fn binary_entropy(p: f64) -> f64 {
    -p * p.log2() - (1.0 - p) * (1.0 - p).log2()
}

fn sentence(language: &Language, kind: Kind) -> Expected {
    let shape = &language.shape;
    let lexicon = &language.lexicon;
    let string = shape::STRING_SYMBOLS as f64;
    let (bits, bytes_between) = match kind {
        Kind::Unigram => {
            // A geometric number of words: 1 / stop of them, each with its stop decision.
            let stop = shape::UNIGRAM_STOP;
            let word = word_bytes(language, &lexicon.unigrams, &language.unigrams) + 1.0;
            let bits = (language.unigrams.entropy() + binary_entropy(stop)) / stop;
            (bits, word / stop - 1.0)
        }
        Kind::Grammar => return grammar(language),
        Kind::Fact => {
            let choices = (shape.attributes as f64).log2() + (shape::TEMPLATES as f64).log2();
            let entity: f64 = expected_bytes(&lexicon.entities, language.entities.probabilities(), 0);
            let words = mean_bytes(&lexicon.templates) + entity + mean_bytes(&lexicon.attributes);
            (language.entities.entropy() + choices, words + 3.0 + shape.value_symbols as f64)
        }
        Kind::Parity => {
            let bits = shape.bits as f64;
            let task = expected_bytes(&lexicon.tasks, language.tasks.probabilities(), 0);
            (language.tasks.entropy() + bits, task + 1.0 + bits + 2.0)
        }
        Kind::Copy => (6.0 * string, 2.0 * string + 1.0),
        Kind::Noise => (6.0 * string, string),
    };
    Expected { bits, bytes: 1.0 + bytes_between + 1.0 }
}

/// Bits and bytes of a grammar sentence: x = own + M x over phrases, where M counts phrases in one expansion.
fn grammar(language: &Language) -> Expected {
    let place = |symbol: Symbol| PHRASES.iter().position(|&phrase| phrase == symbol);
    let mut system = [[0.0; 6]; 6];
    let (mut bits, mut bytes) = ([0.0; 6], [0.0; 6]);
    for (row, phrase) in PHRASES.iter().enumerate() {
        system[row][row] = 1.0;
        for &(p, symbols) in phrase.rules() {
            bits[row] -= p * p.log2();
            for &symbol in symbols {
                if let Some(column) = place(symbol) {
                    system[row][column] -= p;
                } else {
                    let word = terminal(language, symbol);
                    bits[row] += p * word.bits;
                    bytes[row] += p * word.bytes;
                }
            }
        }
    }
    // Each word is followed by a space, the last one by the line end.
    Expected { bits: solve(system, bits)[0], bytes: 1.0 + solve(system, bytes)[0] }
}

/// Bits of a terminal's choice, and its bytes with the space after it.
fn terminal(language: &Language, symbol: Symbol) -> Expected {
    let lexicon = &language.lexicon;
    let uniform = |words: &Words| ((words.len() as f64).log2(), mean_bytes(words));
    let zipf = |words: &Words, law: &Alias| (law.entropy(), word_bytes(language, words, law));
    let (bits, bytes) = match symbol {
        Symbol::Determiner(number) => uniform(lexicon.determiners(number)),
        Symbol::Preposition => uniform(&lexicon.prepositions),
        Symbol::That => uniform(&lexicon.that),
        Symbol::Close => (0.0, 1.0),
        Symbol::Adjective => zipf(&lexicon.adjectives, &language.adjectives),
        Symbol::Noun(number) => zipf(lexicon.nouns(number), &language.nouns),
        Symbol::Verb(number) => zipf(lexicon.verbs(number), &language.verbs),
        Symbol::Sentence | Symbol::NounPhrase(_) | Symbol::VerbPhrase(_) | Symbol::Object => {
            unreachable!("a phrase has rules and no word")
        }
    };
    Expected { bits, bytes: bytes + 1.0 }
}

fn mean_bytes(words: &Words) -> f64 {
    (0..words.len()).map(|i| words.get(i).len() as f64).sum::<f64>() / words.len() as f64
}

/// Mean length where rank r is word (r + shift) mod count.
fn expected_bytes(words: &Words, probabilities: &[f64], shift: usize) -> f64 {
    let count = words.len();
    probabilities.iter().enumerate().map(|(rank, p)| p * words.get((rank + shift) % count).len() as f64).sum()
}

/// Mean length over the topics, which are equally likely.
fn word_bytes(language: &Language, words: &Words, law: &Alias) -> f64 {
    let topics = language.shape.topics;
    let total: f64 = (0..topics)
        .map(|topic| expected_bytes(words, law.probabilities(), language.shape.shift(topic, words.len())))
        .sum();
    total / topics as f64
}

/// Gaussian elimination; `system` is I - M with M non-negative and of spectral radius below 1, so pivots stay positive.
fn solve(mut system: [[f64; 6]; 6], mut right: [f64; 6]) -> [f64; 6] {
    for pivot in 0..6 {
        for row in (0..6).filter(|&row| row != pivot) {
            let factor = system[row][pivot] / system[pivot][pivot];
            let subtracted = system[pivot];
            for (cell, value) in system[row].iter_mut().zip(subtracted) {
                *cell -= factor * value;
            }
            right[row] -= factor * right[pivot];
        }
    }
    std::array::from_fn(|row| right[row] / system[row][row])
}
