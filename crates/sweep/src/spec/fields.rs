//! Reading a table key by key: typed scalars, required keys, and an error at the first key that nobody asked for.

use super::diagnostic::{Diagnostic, Place, Source};
use super::document::{Entry, Item, Node};
use super::{SpecError, quantity};

/// Reads nodes of these sources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'s> {
    pub(crate) sources: &'s [Source],
}

/// The keys of one table that are still unread.
#[derive(Debug)]
pub(crate) struct Fields<'s> {
    reader: Reader<'s>,
    name: String,
    place: Place,
    entries: Vec<Entry>,
    known: Vec<&'static str>,
}

impl Fields<'_> {
    /// The value of `key`, which is known from now on.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.take_entry(key).map(|entry| entry.node)
    }

    pub(crate) fn take_entry(&mut self, key: &'static str) -> Option<Entry> {
        self.known.push(key);
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(at))
    }

    pub(crate) fn require(&mut self, key: &'static str) -> Result<Node, SpecError> {
        let (place, name) = (self.place, self.name.clone());
        self.take(key).ok_or_else(|| {
            self.reader.at(place, format!("[{name}] lacks `{key}`")).label(format!("expected `{key}` here")).into()
        })
    }

    /// The unread keys, for tables whose keys are not fixed.
    pub(crate) fn rest(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Refuses the first unread key.
    pub(crate) fn finish(self) -> Result<(), SpecError> {
        match self.entries.first() {
            None => Ok(()),
            Some(entry) => Err(self.reader.unknown(&self.name, entry, self.known.iter().copied())),
        }
    }
}

impl<'s> Reader<'s> {
    pub(crate) fn at(self, place: Place, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.sources, place, message)
    }

    pub(crate) fn wrong(self, node: &Node, message: impl Into<String>, expected: impl Into<String>) -> SpecError {
        self.at(node.place, message).label(expected).into()
    }

    pub(crate) fn wrong_kind(self, name: &str, node: &Node, expected: &str) -> SpecError {
        self.wrong(node, format!("`{name}` has the wrong type"), format!("expected {expected}, got {}", node.kind()))
    }

    pub(crate) fn unknown<'k>(self, table: &str, entry: &Entry, known: impl IntoIterator<Item = &'k str>) -> SpecError {
        let place = if table.is_empty() { "at the top".to_owned() } else { format!("in [{table}]") };
        self.at(entry.place, format!("unknown key `{}` {place}", entry.key))
            .label("not a known key")
            .nearest(&entry.key, known)
            .into()
    }

    pub(crate) fn fields(self, name: &str, node: &Node) -> Result<Fields<'s>, SpecError> {
        let Item::Table(entries) = &node.item else {
            return Err(self.wrong_kind(name, node, "a table"));
        };
        Ok(Fields {
            reader: self,
            name: name.to_owned(),
            place: node.place,
            entries: entries.clone(),
            known: Vec::new(),
        })
    }

    /// The one entry of a table that stands for a choice, such as `{ tail = 0.1 }`.
    pub(crate) fn variant<'n>(
        self,
        name: &str,
        node: &'n Node,
        known: &[&str],
        expected: &str,
    ) -> Result<&'n Entry, SpecError> {
        match &node.item {
            Item::Table(entries) if entries.len() == 1 => {
                let entry = &entries[0];
                if known.contains(&entry.key.as_str()) {
                    return Ok(entry);
                }
                Err(self.unknown(name, entry, known.iter().copied()))
            }
            _ => Err(self.wrong(node, format!("`{name}` has the wrong form"), expected)),
        }
    }

    pub(crate) fn number(self, name: &str, node: &Node) -> Result<f64, SpecError> {
        let number = match &node.item {
            Item::Number(number) => Some(*number),
            Item::Text(text) => quantity::parse_number(text),
            _ => None,
        };
        number.filter(|number| number.is_finite()).ok_or_else(|| {
            const EXPECTED: &str = "a number such as 3e-3 or \"20M\"";
            let got = match &node.item {
                Item::Text(text) => format!("{text:?}"),
                Item::Number(number) => number.to_string().to_lowercase(),
                _ => return self.wrong_kind(name, node, EXPECTED),
            };
            self.wrong(node, format!("`{name}` is not a number"), format!("expected {EXPECTED}, got {got}"))
        })
    }

    pub(crate) fn number_within(self, name: &str, node: &Node, least: f64, most: f64) -> Result<f64, SpecError> {
        let number = self.number(name, node)?;
        if (least..=most).contains(&number) {
            return Ok(number);
        }
        let expected = format!("expected a number from {least} to {most}");
        Err(self.wrong(node, format!("`{name}` is out of range"), expected))
    }

    pub(crate) fn positive(self, name: &str, node: &Node) -> Result<f64, SpecError> {
        let number = self.number(name, node)?;
        if number > 0.0 {
            return Ok(number);
        }
        Err(self.wrong(node, format!("`{name}` is out of range"), "expected a number above 0"))
    }

    pub(crate) fn count(self, name: &str, node: &Node, least: u64) -> Result<u64, SpecError> {
        if !matches!(node.item, Item::Number(_) | Item::Text(_)) {
            return Err(self.wrong_kind(name, node, "a count such as 20000 or \"20M\""));
        }
        let number = self.number(name, node)?;
        quantity::whole(number).filter(|count| *count >= least).ok_or_else(|| {
            let expected = format!("expected a whole number, at least {least}");
            self.wrong(node, format!("`{name}` is not a possible count"), expected)
        })
    }

    pub(crate) fn flag(self, name: &str, node: &Node) -> Result<bool, SpecError> {
        match node.item {
            Item::Flag(flag) => Ok(flag),
            _ => Err(self.wrong_kind(name, node, "true or false")),
        }
    }

    pub(crate) fn text(self, name: &str, node: &Node) -> Result<String, SpecError> {
        match &node.item {
            Item::Text(text) if !text.is_empty() => Ok(text.clone()),
            Item::Text(_) => Err(self.wrong(node, format!("`{name}` is empty"), "expected some text")),
            _ => Err(self.wrong_kind(name, node, "a string")),
        }
    }

    pub(crate) fn texts(self, name: &str, node: &Node) -> Result<Vec<String>, SpecError> {
        let Item::List(items) = &node.item else {
            return Err(self.wrong_kind(name, node, "a list of strings"));
        };
        if items.is_empty() {
            return Err(self.wrong(node, format!("`{name}` is empty"), "expected at least one string"));
        }
        items.iter().map(|item| self.text(name, item)).collect()
    }

    pub(crate) fn word(self, name: &str, node: &Node, words: &[&'static str]) -> Result<&'static str, SpecError> {
        let Item::Text(text) = &node.item else {
            return Err(self.wrong_kind(name, node, &format!("one of {}", quoted(words))));
        };
        words.iter().copied().find(|word| word == text).ok_or_else(|| {
            self.at(node.place, format!("`{name}` cannot be \"{text}\""))
                .label(format!("expected {}", quoted(words)))
                .nearest(text, words.iter().copied())
                .into()
        })
    }

    pub(crate) fn seconds(self, name: &str, node: &Node) -> Result<f64, SpecError> {
        match &node.item {
            Item::Text(text) => quantity::parse_seconds(text).filter(|seconds| *seconds > 0.0),
            _ => None,
        }
        .ok_or_else(|| self.wrong(node, format!("`{name}` is not a duration"), "expected a duration such as \"10min\""))
    }
}

fn quoted(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    quoted.join(" or ")
}
