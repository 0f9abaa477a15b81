//! Writing documents: sampled text with its exact surprisal, in all and for each sentence.

use std::ops::Range;

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Language;
use super::alias::Alias;
use super::grammar::Symbol;
use super::lexicon::Words;
use super::shape::{self, Kind};

/// One document and its surprisal under the language.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub text: Vec<u8>,
    /// -log2 of the document's probability: header, and all of its sentences.
    pub bits: f64,
    pub sentences: Vec<Sentence>,
}

/// Where a sentence stands and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentence {
    pub kind: Kind,
    /// Bytes of the text, letter and line end included.
    pub range: Range<usize>,
    /// The choice of its kind, and whether the document ends after it.
    pub discourse_bits: f64,
    /// What it says, given its kind.
    pub content_bits: f64,
}

impl Language {
    /// Document number `index` of this language's endless text; any of them can be had without the others.
    pub fn document(&self, index: u64) -> Document {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(index + 1);
        let topic = rng.random_range(0..self.shape.topics);
        let mut pen = Pen { language: self, rng, topic, text: Vec::with_capacity(1024), bits: 0.0 };
        let mut bits = (self.shape.topics as f64).log2();
        let mut sentences = Vec::with_capacity(32);
        pen.text.extend_from_slice(&[b'#', shape::SYMBOLS[topic], b'\n']);
        let stop = 1.0 / shape::SENTENCES_MEAN;
        let (mut kind, mut kind_bits) = self.first.draw(&mut pen.rng);
        loop {
            let start = pen.text.len();
            pen.bits = 0.0;
            pen.sentence(Kind::ALL[kind]);
            let (ends, end_bits) = pen.coin(stop);
            bits += pen.bits + kind_bits + end_bits;
            sentences.push(Sentence {
                kind: Kind::ALL[kind],
                range: start..pen.text.len(),
                discourse_bits: kind_bits + end_bits,
                content_bits: pen.bits,
            });
            if ends {
                break;
            }
            (kind, kind_bits) = self.next[kind].draw(&mut pen.rng);
        }
        pen.text.push(b'\n');
        Document { text: pen.text, bits, sentences }
    }
}

impl Language {
    /// The start of the endless text: whole documents until `bytes` bytes are there.
    pub fn text(&self, bytes: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes + 1024);
        for index in 0.. {
            if text.len() >= bytes {
                break;
            }
            text.extend_from_slice(&self.document(index).text);
        }
        text
    }
}

/// The state of writing one document.
struct Pen<'a> {
    language: &'a Language,
    rng: ChaCha8Rng,
    topic: usize,
    text: Vec<u8>,
    /// Surprisal of the sentence so far.
    bits: f64,
}

impl Pen<'_> {
    fn sentence(&mut self, kind: Kind) {
        self.text.push(kind.letter());
        match kind {
            Kind::Unigram => self.unigram(),
            Kind::Grammar => self.grammar(),
            Kind::Fact => self.fact(),
            Kind::Parity => self.parity(),
            Kind::Copy => {
                let start = self.text.len();
                self.string();
                self.text.push(b'|');
                self.text.extend_from_within(start..start + shape::STRING_SYMBOLS);
            }
            Kind::Noise => self.string(),
        }
        self.text.push(b'\n');
    }

    fn unigram(&mut self) {
        let language = self.language;
        loop {
            self.topical(&language.lexicon.unigrams, &language.unigrams);
            let (ends, bits) = self.coin(shape::UNIGRAM_STOP);
            self.bits += bits;
            if ends {
                break;
            }
            self.text.push(b' ');
        }
    }

    fn grammar(&mut self) {
        let language = self.language;
        let lexicon = &language.lexicon;
        let mut open = vec![Symbol::Sentence];
        while let Some(symbol) = open.pop() {
            match symbol {
                Symbol::Determiner(number) => self.uniform(lexicon.determiners(number)),
                Symbol::Preposition => self.uniform(&lexicon.prepositions),
                Symbol::That => self.uniform(&lexicon.that),
                Symbol::Close => self.text.push(b';'),
                Symbol::Adjective => self.topical(&lexicon.adjectives, &language.adjectives),
                Symbol::Noun(number) => self.topical(lexicon.nouns(number), &language.nouns),
                Symbol::Verb(number) => self.topical(lexicon.verbs(number), &language.verbs),
                Symbol::Sentence | Symbol::NounPhrase(_) | Symbol::VerbPhrase(_) | Symbol::Object => {
                    open.extend(self.expand(symbol).iter().rev());
                    continue;
                }
            }
            if !open.is_empty() {
                self.text.push(b' ');
            }
        }
    }

    /// Chooses a rule of a phrase.
    fn expand(&mut self, phrase: Symbol) -> &'static [Symbol] {
        let mut point: f64 = self.rng.random();
        let rules = phrase.rules();
        let (last, before) = rules.split_last().expect("a phrase has rules");
        let (p, symbols) = before
            .iter()
            .find(|(p, _)| {
                point -= p;
                point < 0.0
            })
            .unwrap_or(last);
        self.bits -= p.log2();
        symbols
    }

    fn fact(&mut self) {
        let language = self.language;
        let lexicon = &language.lexicon;
        self.uniform(&lexicon.templates);
        self.text.push(b' ');
        let (entity, bits) = language.entities.draw(&mut self.rng);
        self.bits += bits;
        self.text.extend_from_slice(lexicon.entities.get(entity));
        self.text.push(b' ');
        let attribute = self.pick(&lexicon.attributes);
        self.text.push(b' ');
        let value = language.fact(entity, attribute);
        for symbol in (0..language.shape.value_symbols).rev() {
            self.text.push(shape::VALUES[(value >> (5 * symbol)) as usize % 32]);
        }
    }

    fn parity(&mut self) {
        let language = self.language;
        let (task, bits) = language.tasks.draw(&mut self.rng);
        let count = language.shape.bits;
        self.bits += bits + count as f64;
        self.text.extend_from_slice(language.lexicon.tasks.get(task));
        self.text.push(b' ');
        let word = self.rng.next_u32();
        self.text.extend((0..count).map(|bit| b'0' + (word >> bit & 1) as u8));
        let parity = language.parities[task].iter().fold(0, |sum, &bit| sum ^ (word >> bit & 1));
        self.text.extend_from_slice(&[b'=', b'0' + parity as u8]);
    }

    fn string(&mut self) {
        self.bits += 6.0 * shape::STRING_SYMBOLS as f64;
        for _ in 0..shape::STRING_SYMBOLS {
            self.text.push(shape::SYMBOLS[(self.rng.next_u32() >> 26) as usize]);
        }
    }

    /// A word of a lexicon whose ranks the topic shifts.
    fn topical(&mut self, words: &Words, law: &Alias) {
        let (rank, bits) = law.draw(&mut self.rng);
        self.bits += bits;
        let shift = self.language.shape.shift(self.topic, words.len());
        self.text.extend_from_slice(words.get((rank + shift) % words.len()));
    }

    /// A word of a list, each equally likely.
    fn uniform(&mut self, words: &Words) {
        self.pick(words);
    }

    /// As `uniform`, and says which word it was.
    fn pick(&mut self, words: &Words) -> usize {
        let index = self.rng.random_range(0..words.len());
        self.bits += (words.len() as f64).log2();
        self.text.extend_from_slice(words.get(index));
        index
    }

    /// Whether an event of probability `p` happens, and the surprisal of the answer.
    fn coin(&mut self, p: f64) -> (bool, f64) {
        let happens = self.rng.random_bool(p);
        (happens, -(if happens { p } else { 1.0 - p }).log2())
    }
}
