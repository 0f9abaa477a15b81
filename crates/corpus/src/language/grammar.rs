//! The context-free grammar of grammar sentences: symbols and weighted rules. Writing and entropy both walk this table.

use Number::{Plural, Singular};
use Symbol::{Adjective, Close, Determiner, Noun, NounPhrase, Object, Preposition, Sentence, That, Verb, VerbPhrase};

/// Grammatical number, which subject and verb share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Singular = 0,
    Plural = 1,
}

/// A symbol of the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    Sentence,
    NounPhrase(Number),
    VerbPhrase(Number),
    /// A noun phrase of either number.
    Object,
    Determiner(Number),
    Adjective,
    Noun(Number),
    Verb(Number),
    That,
    Preposition,
    /// Ends a relative clause, so that attachment is unambiguous.
    Close,
}

/// A rule's probability and right-hand side.
pub(super) type Rule = (f64, &'static [Symbol]);

/// The symbols that have rules.
pub(super) const PHRASES: [Symbol; 6] =
    [Sentence, NounPhrase(Singular), NounPhrase(Plural), VerbPhrase(Singular), VerbPhrase(Plural), Object];

impl Symbol {
    /// The rules of a phrase; none for a terminal.
    pub(super) fn rules(self) -> &'static [Rule] {
        match self {
            Sentence => &[
                (0.6, &[NounPhrase(Singular), VerbPhrase(Singular)]),
                (0.4, &[NounPhrase(Plural), VerbPhrase(Plural)]),
            ],
            Object => &[(0.5, &[NounPhrase(Singular)]), (0.5, &[NounPhrase(Plural)])],
            NounPhrase(Singular) => &[
                (0.5, &[Determiner(Singular), Noun(Singular)]),
                (0.35, &[Determiner(Singular), Adjective, Noun(Singular)]),
                (0.15, &[Determiner(Singular), Noun(Singular), That, VerbPhrase(Singular), Close]),
            ],
            NounPhrase(Plural) => &[
                (0.5, &[Determiner(Plural), Noun(Plural)]),
                (0.35, &[Determiner(Plural), Adjective, Noun(Plural)]),
                (0.15, &[Determiner(Plural), Noun(Plural), That, VerbPhrase(Plural), Close]),
            ],
            VerbPhrase(Singular) => &[
                (0.3, &[Verb(Singular)]),
                (0.5, &[Verb(Singular), Object]),
                (0.2, &[Verb(Singular), Object, Preposition, Object]),
            ],
            VerbPhrase(Plural) => &[
                (0.3, &[Verb(Plural)]),
                (0.5, &[Verb(Plural), Object]),
                (0.2, &[Verb(Plural), Object, Preposition, Object]),
            ],
            Determiner(_) | Adjective | Noun(_) | Verb(_) | That | Preposition | Close => &[],
        }
    }
}
