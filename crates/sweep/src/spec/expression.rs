//! Small typed arithmetic and conditions over named values: `20 * params`, `params > 1M and arm == 'moe'`.
//! No functions, no state; `^` is the power, and a number may carry a suffix as everywhere in the file.

mod grammar;
#[cfg(test)]
mod tests;

use super::diagnostic::Place;

/// A value of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Term {
    Number(f64),
    Text(String),
    Flag(bool),
}

impl Term {
    fn kind(&self) -> &'static str {
        match self {
            Self::Number(_) => "a number",
            Self::Text(_) => "a word",
            Self::Flag(_) => "a condition",
        }
    }
}

/// A parsed expression; every node keeps its place.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    pub(crate) place: Place,
    node: Node,
}

/// What is wrong with an expression, and where.
#[derive(Debug, Clone)]
pub(crate) struct Mistake {
    pub(crate) place: Place,
    pub(crate) message: String,
    pub(crate) expected: String,
    /// An unknown word and those that are known.
    pub(crate) unknown: Option<(String, Vec<String>)>,
}

#[derive(Debug, Clone)]
enum Node {
    Value(Term),
    Word(String, Place),
    Negate(Box<Node>, Place),
    Not(Box<Node>, Place),
    Binary(Box<Node>, Operator, Box<Node>, Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    Differs,
    Less,
    AtMost,
    More,
    AtLeast,
    Plus,
    Minus,
    Times,
    Over,
    Power,
}

fn mistake(place: Place, message: impl Into<String>, expected: impl Into<String>) -> Mistake {
    Mistake { place, message: message.into(), expected: expected.into(), unknown: None }
}

impl Expression {
    /// Parses `text`, which stands at `place`; `exact` says that its bytes are those of the source.
    pub(crate) fn parse(text: &str, place: Place, exact: bool) -> Result<Self, Mistake> {
        let node = grammar::parse(text, place, exact)?;
        Ok(Self { place, node })
    }

    /// Refuses words that are not `known`.
    pub(crate) fn check_words(&self, known: &[&str]) -> Result<(), Mistake> {
        let mut result = Ok(());
        self.node.words(&mut |word, place| {
            if result.is_ok() && !known.contains(&word) {
                let unknown = (word.to_owned(), known.iter().map(|&word| word.to_owned()).collect());
                let wrong = mistake(place, format!("unknown name `{word}`"), "expected a key or a count");
                result = Err(Mistake { unknown: Some(unknown), ..wrong });
            }
        });
        result
    }

    /// Whether every word has a value under `environment`.
    pub(crate) fn ready(&self, environment: &dyn Fn(&str) -> Option<Term>) -> bool {
        let mut ready = true;
        self.node.words(&mut |word, _| ready &= environment(word).is_some());
        ready
    }

    pub(crate) fn evaluate(&self, environment: &dyn Fn(&str) -> Option<Term>) -> Result<Term, Mistake> {
        self.node.evaluate(environment)
    }

    pub(crate) fn number(&self, environment: &dyn Fn(&str) -> Option<Term>) -> Result<f64, Mistake> {
        match self.evaluate(environment)? {
            Term::Number(number) => Ok(number),
            other => {
                Err(mistake(self.place, "this must be arithmetic", format!("expected a number, got {}", other.kind())))
            }
        }
    }

    pub(crate) fn condition(&self, environment: &dyn Fn(&str) -> Option<Term>) -> Result<bool, Mistake> {
        match self.evaluate(environment)? {
            Term::Flag(flag) => Ok(flag),
            other => Err(mistake(
                self.place,
                "this must be a condition",
                format!("expected a comparison, got {}", other.kind()),
            )),
        }
    }
}

impl Node {
    fn words(&self, visit: &mut dyn FnMut(&str, Place)) {
        match self {
            Self::Value(_) => {}
            Self::Word(word, place) => visit(word, *place),
            Self::Negate(inner, _) | Self::Not(inner, _) => inner.words(visit),
            Self::Binary(left, _, right, _) => {
                left.words(visit);
                right.words(visit);
            }
        }
    }

    fn evaluate(&self, environment: &dyn Fn(&str) -> Option<Term>) -> Result<Term, Mistake> {
        match self {
            Self::Value(term) => Ok(term.clone()),
            Self::Word(word, place) => environment(word)
                .ok_or_else(|| mistake(*place, format!("`{word}` has no value here"), "not set at this point")),
            Self::Negate(inner, place) => match inner.evaluate(environment)? {
                Term::Number(number) => Ok(Term::Number(-number)),
                other => Err(mistake(*place, "only a number has a sign", format!("got {}", other.kind()))),
            },
            Self::Not(inner, place) => match inner.evaluate(environment)? {
                Term::Flag(flag) => Ok(Term::Flag(!flag)),
                other => Err(mistake(*place, "`not` needs a condition", format!("got {}", other.kind()))),
            },
            Self::Binary(left, operator, right, place) => {
                let (left, right) = (left.evaluate(environment)?, right.evaluate(environment)?);
                apply(&left, *operator, &right).ok_or_else(|| {
                    let got = format!("got {} and {}", left.kind(), right.kind());
                    mistake(*place, "these two do not go together", got)
                })
            }
        }
    }
}

fn apply(left: &Term, operator: Operator, right: &Term) -> Option<Term> {
    use Operator::{And, AtLeast, AtMost, Differs, Equal, Less, Minus, More, Or, Over, Plus, Power, Times};
    Some(match (left, right) {
        (Term::Number(a), Term::Number(b)) => match operator {
            Plus => Term::Number(a + b),
            Minus => Term::Number(a - b),
            Times => Term::Number(a * b),
            Over => Term::Number(a / b),
            Power => Term::Number(a.powf(*b)),
            Equal => Term::Flag(a == b),
            Differs => Term::Flag(a != b),
            Less => Term::Flag(a < b),
            AtMost => Term::Flag(a <= b),
            More => Term::Flag(a > b),
            AtLeast => Term::Flag(a >= b),
            And | Or => return None,
        },
        (Term::Flag(a), Term::Flag(b)) => match operator {
            And => Term::Flag(*a && *b),
            Or => Term::Flag(*a || *b),
            Equal => Term::Flag(a == b),
            Differs => Term::Flag(a != b),
            _ => return None,
        },
        (Term::Text(a), Term::Text(b)) => match operator {
            Equal => Term::Flag(a == b),
            Differs => Term::Flag(a != b),
            _ => return None,
        },
        _ => return None,
    })
}
