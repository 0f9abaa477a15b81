//! TOML text to a tree in which every node knows its place, with `--set` laid over it. It does not know any key.

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::SpecError;
use super::diagnostic::{Diagnostic, Place, Source};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) item: Item,
    pub(crate) place: Place,
}

#[derive(Debug, Clone)]
pub(crate) enum Item {
    Text(String),
    Number(f64),
    Flag(bool),
    Datetime,
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key, where it stands, and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

impl Node {
    /// What a person calls this kind of value.
    pub(crate) fn kind(&self) -> &'static str {
        match self.item {
            Item::Text(_) => "a string",
            Item::Number(_) => "a number",
            Item::Flag(_) => "a boolean",
            Item::Datetime => "a date",
            Item::List(_) => "a list",
            Item::Table(_) => "a table",
        }
    }
}

/// The file's tree with each override laid over it, and the sources that its places point into.
pub(crate) fn read(file: &str, text: &str, overrides: &[String]) -> Result<(Vec<Source>, Node), SpecError> {
    let mut sources = vec![Source { name: file.to_owned(), text: text.to_owned() }];
    let mut root = parse(&sources, 0)?;
    for (index, text) in overrides.iter().enumerate() {
        sources.push(Source { name: "--set".to_owned(), text: text.clone() });
        let overlay = parse(&sources, index + 1)
            .map_err(|e| e.help("write key=value with a TOML value; a string needs its own quotes: name='\"x\"'"))?;
        lay_over(&sources, &mut root, overlay);
    }
    Ok((sources, root))
}

fn parse(sources: &[Source], index: usize) -> Result<Node, SpecError> {
    let table = DeTable::parse(&sources[index].text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let place = place(index, span);
        SpecError::from(Diagnostic::new(sources, place, "not valid TOML").label(error.message().replace('\n', "; ")))
    })?;
    let span = table.span();
    Ok(Node { item: Item::Table(entries(index, table.into_inner())), place: place(index, span) })
}

fn place(source: usize, span: std::ops::Range<usize>) -> Place {
    Place { source, start: span.start, end: span.end }
}

fn entries(source: usize, table: DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| Entry {
            place: place(source, key.span()),
            key: key.into_inner().into_owned(),
            node: node(source, value),
        })
        .collect();
    // The parser sorts by name; people read their own order back in plans and errors.
    entries.sort_by_key(|entry| entry.place.start);
    entries
}

fn node(source: usize, value: Spanned<DeValue<'_>>) -> Node {
    let place = place(source, value.span());
    let item = match value.into_inner() {
        DeValue::String(text) => Item::Text(text.into_owned()),
        DeValue::Integer(integer) => Item::Number(
            i128::from_str_radix(integer.as_str(), integer.radix()).map_or(f64::INFINITY, |value| value as f64),
        ),
        DeValue::Float(float) => Item::Number(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Item::Flag(flag),
        DeValue::Datetime(_) => Item::Datetime,
        DeValue::Array(list) => Item::List(list.into_iter().map(|value| node(source, value)).collect()),
        DeValue::Table(table) => Item::Table(entries(source, table)),
    };
    Node { item, place }
}

/// Tables merge key by key; anything else, an inline table too, replaces what was there.
fn lay_over(sources: &[Source], base: &mut Node, overlay: Node) {
    let inline = sources[overlay.place.source].text[overlay.place.start..].starts_with('{');
    match (&mut base.item, overlay.item) {
        (Item::Table(below), Item::Table(above)) if !inline => {
            for entry in above {
                match below.iter_mut().find(|old| old.key == entry.key) {
                    Some(old) => lay_over(sources, &mut old.node, entry.node),
                    None => below.push(entry),
                }
            }
        }
        (_, item) => {
            *base = Node { item, place: overlay.place };
        }
    }
}
