//! The grammar of expressions: text to tokens to nodes, by precedence climbing. Evaluates nothing.

use super::super::diagnostic::Place;
use super::super::quantity;
use super::{Mistake, Node, Operator, Term, mistake};

const LOOSEST: usize = 0;
const COMPARISON: usize = 2;
const POWER: usize = 5;
const UNARY: usize = 6;
/// 64 parentheses of six levels each; deeper is no sweep's arithmetic, and the bound keeps the recursion small.
const DEPTH_MAX: usize = 64 * 6;

pub(super) fn parse(text: &str, place: Place, exact: bool) -> Result<Node, Mistake> {
    let at = |start: usize, end: usize| {
        if exact { Place { start: place.start + start, end: place.start + end, ..place } } else { place }
    };
    let tokens = tokens(text, &at)?;
    let end = at(text.len(), text.len());
    let mut parser = Parser { tokens, next: 0, end, depth: 0 };
    let node = parser.level(LOOSEST)?;
    match parser.tokens.get(parser.next) {
        None => Ok(node),
        Some((_, place)) => {
            Err(mistake(*place, "the expression goes on after its end", "expected an operator or the end"))
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Value(Term),
    Word(String),
    Operator(Operator),
    Not,
    Open,
    Close,
}

struct Parser {
    tokens: Vec<(Token, Place)>,
    next: usize,
    end: Place,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn place(&self) -> Place {
        self.tokens.get(self.next).map_or(self.end, |(_, place)| *place)
    }

    /// Binary operators from loosest to tightest; the power binds to the right.
    fn level(&mut self, level: usize) -> Result<Node, Mistake> {
        if level == UNARY {
            return self.unary();
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(mistake(self.place(), "the expression is too deep", "expected fewer parentheses"));
        }
        let mut left = self.level(level + 1)?;
        while let Some(Token::Operator(operator)) = self.peek().cloned() {
            if tightness(operator) != level {
                break;
            }
            let place = self.place();
            self.next += 1;
            let right = self.level(if level == POWER { POWER } else { level + 1 })?;
            left = Node::Binary(Box::new(left), operator, Box::new(right), place);
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, Mistake> {
        let place = self.place();
        let Some((token, _)) = self.tokens.get(self.next).cloned() else {
            return Err(mistake(place, "the expression ends too early", "expected a number or a name"));
        };
        self.next += 1;
        match token {
            Token::Value(term) => Ok(Node::Value(term)),
            Token::Word(word) => Ok(Node::Word(word, place)),
            // -a ^ b is -(a ^ b), and `not` takes the whole comparison.
            Token::Operator(Operator::Minus) => Ok(Node::Negate(Box::new(self.level(POWER)?), place)),
            Token::Not => Ok(Node::Not(Box::new(self.level(COMPARISON)?), place)),
            Token::Open => {
                let inner = self.level(LOOSEST)?;
                let place = self.place();
                if self.peek() != Some(&Token::Close) {
                    return Err(mistake(place, "a parenthesis is not closed", "expected `)`"));
                }
                self.next += 1;
                Ok(inner)
            }
            Token::Operator(_) | Token::Close => {
                Err(mistake(place, "the expression is not well formed", "expected a number or a name"))
            }
        }
    }
}

fn tightness(operator: Operator) -> usize {
    match operator {
        Operator::Or => LOOSEST,
        Operator::And => 1,
        Operator::Equal
        | Operator::Differs
        | Operator::Less
        | Operator::AtMost
        | Operator::More
        | Operator::AtLeast => COMPARISON,
        Operator::Plus | Operator::Minus => 3,
        Operator::Times | Operator::Over => 4,
        Operator::Power => POWER,
    }
}

fn tokens(text: &str, at: &dyn Fn(usize, usize) -> Place) -> Result<Vec<(Token, Place)>, Mistake> {
    const SYMBOLS: [(&str, Token); 13] = [
        ("==", Token::Operator(Operator::Equal)),
        ("!=", Token::Operator(Operator::Differs)),
        ("<=", Token::Operator(Operator::AtMost)),
        (">=", Token::Operator(Operator::AtLeast)),
        ("<", Token::Operator(Operator::Less)),
        (">", Token::Operator(Operator::More)),
        ("+", Token::Operator(Operator::Plus)),
        ("-", Token::Operator(Operator::Minus)),
        ("*", Token::Operator(Operator::Times)),
        ("/", Token::Operator(Operator::Over)),
        ("^", Token::Operator(Operator::Power)),
        ("(", Token::Open),
        (")", Token::Close),
    ];
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let rest = &text[start..];
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if let Some((symbol, token)) = SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
            tokens.push((token.clone(), at(start, start + symbol.len())));
            symbol.len()
        } else {
            let (token, length) = long_token(rest, first).ok_or_else(|| {
                mistake(
                    at(start, start + first.len_utf8()),
                    "this cannot be read",
                    "expected a number, a name or an operator",
                )
            })?;
            tokens.push((token, at(start, start + length)));
            length
        };
        start += length;
    }
    Ok(tokens)
}

/// A number with its suffix, a quoted word, or a name, and its length in bytes.
fn long_token(rest: &str, first: char) -> Option<(Token, usize)> {
    if first == '\'' || first == '"' {
        let inner = rest[1..].find(first)?;
        return Some((Token::Value(Term::Text(rest[1..=inner].to_owned())), inner + 2));
    }
    let length = |allowed: &dyn Fn(char) -> bool| rest.find(|c| !allowed(c)).unwrap_or(rest.len());
    if first.is_ascii_digit() || first == '.' {
        let mut end = length(&|c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
        // A signed exponent: the sign follows directly on `1e`.
        let signed = rest[..end].ends_with(['e', 'E']) && rest[end..].starts_with(['-', '+']);
        if signed {
            end += 1 + rest[end + 1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - end - 1);
        }
        let number = quantity::parse_number(&rest[..end])?;
        return Some((Token::Value(Term::Number(number)), end));
    }
    if !first.is_alphabetic() && first != '_' {
        return None;
    }
    let end = length(&|c| c.is_alphanumeric() || c == '_' || c == '.');
    let token = match &rest[..end] {
        "and" => Token::Operator(Operator::And),
        "or" => Token::Operator(Operator::Or),
        "not" => Token::Not,
        "true" => Token::Value(Term::Flag(true)),
        "false" => Token::Value(Term::Flag(false)),
        "depth" => Token::Word("layers".to_owned()),
        word => Token::Word(word.to_owned()),
    };
    Some((token, end))
}
