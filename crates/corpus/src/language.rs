//! The synthetic language: text whose true surprisal and entropy are known exactly. It samples and calculates; it does
//! not split, tokenize or store.
//!
//! A document is a topic header `#z`, then sentences of six kinds chosen by a sticky chain, then a blank line. Words
//! are spelled so that a text has one derivation only, so the entropy of the bytes is the entropy of the derivation.

mod alias;
mod document;
mod entropy;
mod grammar;
mod lexicon;
mod shape;
#[cfg(test)]
mod tests;

use isoloss_sweep::corpus::Preset;
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use crate::mix::mix_all;
use alias::Alias;
use lexicon::Lexicon;
use shape::Shape;

pub use document::{Document, Sentence};
pub use entropy::{Entropy, Expected};
pub use shape::Kind;

/// Rises when the same preset and seed would give other text.
pub const LANGUAGE_VERSION: u32 = 1;

/// Random streams of one seed: stream 0 builds the world, stream n + 1 writes document n.
const WORLD_STREAM: u64 = 0;

/// A language: one world (lexicon, facts, parity tasks) and the laws of its text.
#[derive(Debug, Clone)]
pub struct Language {
    shape: Shape,
    seed: u64,
    lexicon: Lexicon,
    /// Bit positions whose parity each task asks for.
    parities: Vec<Vec<usize>>,
    unigrams: Alias,
    nouns: Alias,
    verbs: Alias,
    adjectives: Alias,
    entities: Alias,
    tasks: Alias,
    /// The law of the first sentence's kind, and after each kind that of the next.
    first: Alias,
    next: Vec<Alias>,
}

impl Language {
    /// The language of a preset; facts and parity tasks are drawn from `seed`.
    pub fn new(preset: Preset, seed: u64) -> Self {
        Self::of(Shape::of(preset), seed)
    }

    /// The same with only the kinds of sentences whose letters are given, their shares in proportion.
    pub fn with_sentences(preset: Preset, letters: &str, seed: u64) -> Self {
        Self::of(Shape::of(preset).only(letters), seed)
    }

    fn of(shape: Shape, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(WORLD_STREAM);
        let parities =
            (0..shape.tasks).map(|_| index::sample(&mut rng, shape.bits, shape::PARITY_BITS).into_vec()).collect();
        Self {
            seed,
            lexicon: Lexicon::new(&shape),
            parities,
            unigrams: Alias::zipf(shape.unigrams, shape::UNIGRAM_EXPONENT),
            nouns: Alias::zipf(shape.nouns, shape::GRAMMAR_EXPONENT),
            verbs: Alias::zipf(shape.verbs, shape::GRAMMAR_EXPONENT),
            adjectives: Alias::zipf(shape.adjectives, shape::GRAMMAR_EXPONENT),
            entities: Alias::zipf(shape.entities, shape::ENTITY_EXPONENT),
            tasks: Alias::zipf(shape.tasks, shape::TASK_EXPONENT),
            first: Alias::new(&shape.mix),
            next: Kind::ALL.iter().map(|&kind| Alias::new(&shape::transition(&shape.mix, kind))).collect(),
            shape,
        }
    }

    /// The exact entropy of this language and what it is made of.
    pub fn entropy(&self) -> Entropy {
        Entropy::of(self)
    }

    /// The value of a fact, one of `32^symbols`: drawn once per world, found again by hashing instead of a table.
    fn fact(&self, entity: usize, attribute: usize) -> u64 {
        mix_all(&[self.seed, entity as u64, attribute as u64]) >> (64 - 5 * self.shape.value_symbols)
    }
}
