//! The words: spelled from global word ids in a fixed order of allocation, so that every spelling is unique.

use super::grammar::Number;
use super::shape::{self, Shape};

const CONSONANTS: &[u8; 20] = b"bcdfghjklmnpqrstvwxz";
const VOWELS: &[u8; 5] = b"aeiou";

/// A list of words in one buffer.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    letters: Vec<u8>,
    /// End of each word; it starts where the one before ends.
    ends: Vec<u32>,
}

impl Words {
    fn push(&mut self, word: &[u8]) {
        self.letters.extend_from_slice(word);
        self.ends.push(self.letters.len() as u32);
    }

    /// The same words with one letter more.
    fn suffixed(&self, suffix: u8) -> Self {
        let mut words = Self::default();
        for index in 0..self.len() {
            words.push(&[self.get(index), &[suffix]].concat());
        }
        words
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.letters[start..self.ends[index] as usize]
    }
}

/// Every word of a language.
#[derive(Debug, Clone)]
pub(super) struct Lexicon {
    determiners: [Words; 2],
    pub(super) that: Words,
    pub(super) prepositions: Words,
    pub(super) attributes: Words,
    pub(super) templates: Words,
    pub(super) unigrams: Words,
    nouns: [Words; 2],
    verbs: [Words; 2],
    pub(super) adjectives: Words,
    pub(super) entities: Words,
    pub(super) tasks: Words,
}

impl Lexicon {
    /// Spells the words of `shape`. The order of the fields' allocation is part of the definition.
    pub(super) fn new(shape: &Shape) -> Self {
        let mut next = 1;
        let mut allocate = |count: usize| {
            let mut words = Words::default();
            for id in next..next + count {
                words.push(&spell(id));
            }
            next += count;
            words
        };
        let determiners = [allocate(shape::DETERMINERS), allocate(shape::DETERMINERS)];
        let that = allocate(1);
        let prepositions = allocate(shape::PREPOSITIONS);
        let attributes = allocate(shape.attributes);
        let templates = allocate(shape::TEMPLATES);
        let unigrams = allocate(shape.unigrams);
        let nouns = allocate(shape.nouns);
        let verbs = allocate(shape.verbs);
        Self {
            determiners,
            that,
            prepositions,
            attributes,
            templates,
            unigrams,
            nouns: [nouns.clone(), nouns.suffixed(b'n')],
            verbs: [verbs.suffixed(b't'), verbs],
            adjectives: allocate(shape.adjectives),
            entities: allocate(shape.entities),
            tasks: allocate(shape.tasks),
        }
    }

    pub(super) fn determiners(&self, number: Number) -> &Words {
        &self.determiners[number as usize]
    }

    pub(super) fn nouns(&self, number: Number) -> &Words {
        &self.nouns[number as usize]
    }

    pub(super) fn verbs(&self, number: Number) -> &Words {
        &self.verbs[number as usize]
    }
}

/// The spelling of word id `id` >= 1: bijective base 100, a syllable for each digit.
fn spell(mut id: usize) -> Vec<u8> {
    let mut letters = Vec::with_capacity(8);
    while id > 0 {
        id -= 1;
        letters.push(VOWELS[id % 5]);
        letters.push(CONSONANTS[id % 100 / 5]);
        id /= 100;
    }
    letters.reverse();
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_spelled_in_bijective_base_100() {
        let spelled = |id| String::from_utf8(spell(id)).unwrap();
        assert_eq!(spelled(1), "ba");
        assert_eq!(spelled(6), "ca");
        assert_eq!(spelled(100), "zu");
        assert_eq!(spelled(101), "baba");
        assert_eq!(spelled(10_100), "zuzu");
        assert_eq!(spelled(10_101), "bababa");
    }
}
