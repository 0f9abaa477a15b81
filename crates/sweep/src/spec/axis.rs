//! Axes: lists, ranges and zips of values. Their product is the grid, which `plan` walks.

use std::collections::BTreeSet;

use super::document::{Entry, Item, Node};
use super::fields::{Fields, Reader};
use super::key::{Key, Kind};
use super::value::Setting;
use super::{Axis, SpecError};

/// Values of one axis: more is a typing error, and the product is bounded again by the plan.
const AXIS_VALUES_MAX: u64 = 10_000;

impl Reader<'_> {
    pub(super) fn axes(self, top: &mut Fields<'_>) -> Result<Vec<Axis>, SpecError> {
        let mut axes = Vec::new();
        if let Some(node) = top.take("axes") {
            for entry in self.fields("axes", &node)?.rest() {
                for (key, entry) in self.keyed("axes", entry)? {
                    axes.push(self.axis(key, &entry)?);
                }
            }
        }
        for (_, node) in self.tables("zip", top.take("zip"))? {
            axes.push(self.zip(&node)?);
        }
        let mut seen = BTreeSet::new();
        for axis in &axes {
            for (key, value) in axis.keys.iter().zip(&axis.rows[0]) {
                if !seen.insert(key.name) {
                    let twice = self.at(value.place, format!("`{}` is an axis twice", key.name));
                    return Err(twice.label("again here").into());
                }
            }
        }
        Ok(axes)
    }

    pub(super) fn axis(self, key: &'static Key, entry: &Entry) -> Result<Axis, SpecError> {
        let rows = self.values(key, entry)?.into_iter().map(|value| vec![value]).collect();
        Ok(Axis { keys: vec![key], rows })
    }

    /// The values of an axis: a list or a range.
    fn values(self, key: &Key, entry: &Entry) -> Result<Vec<Setting>, SpecError> {
        let node = &entry.node;
        match &node.item {
            Item::List(items) if items.is_empty() => {
                let empty = self.at(node.place, format!("the axis `{}` is empty: the grid has no points", key.name));
                Err(empty.label("expected at least one value").into())
            }
            Item::List(items) => items.iter().map(|item| self.setting(key, item)).collect(),
            Item::Table(_) => self.range(key, node),
            _ => Err(self.wrong_kind(key.name, node, "a list of values, or a range { log = [lo, hi], n = 5 }")),
        }
    }

    fn range(self, key: &Key, node: &Node) -> Result<Vec<Setting>, SpecError> {
        let mut fields = self.fields(key.name, node)?;
        let (log, linear, n) = (fields.take("log"), fields.take("linear"), fields.require("n")?);
        fields.finish()?;
        let n = self.count("n", &n, 2)?;
        let (ends, logarithmic) = match (log, linear) {
            (Some(ends), None) => (ends, true),
            (None, Some(ends)) => (ends, false),
            _ => return Err(self.wrong(node, "a range has one scale", "expected either `log` or `linear`")),
        };
        let Item::List(pair) = &ends.item else {
            return Err(self.wrong_kind("range", &ends, "two ends [lo, hi]"));
        };
        let [low, high] = pair.as_slice() else {
            return Err(self.wrong(&ends, "a range has two ends", "expected [lo, hi]"));
        };
        let (low, high) = (self.number("lo", low)?, self.number("hi", high)?);
        if low >= high || (logarithmic && low <= 0.0) || n > AXIS_VALUES_MAX {
            let expected = format!("expected lo below hi, above 0 on a log scale, and n up to {AXIS_VALUES_MAX}");
            return Err(self.wrong(node, "this range has no sense", expected));
        }
        let at = |i: u64| {
            let share = i as f64 / (n - 1) as f64;
            if logarithmic { low * (high / low).powf(share) } else { low + (high - low) * share }
        };
        let whole = matches!(key.kind, Kind::Count(_) | Kind::Bytes);
        let mut settings: Vec<Setting> = Vec::new();
        for number in (0..n).map(at) {
            let number = if whole { number.round() } else { number };
            let setting = self.setting(key, &Node { item: Item::Number(number), place: node.place })?;
            if settings.last() != Some(&setting) {
                settings.push(setting);
            }
        }
        Ok(settings)
    }

    fn zip(self, node: &Node) -> Result<Axis, SpecError> {
        let mut keys = Vec::new();
        let mut columns: Vec<Vec<Setting>> = Vec::new();
        for entry in self.fields("zip", node)?.rest() {
            for (key, entry) in self.keyed("zip", entry)? {
                let column = self.values(key, &entry)?;
                if columns.first().is_some_and(|first| first.len() != column.len()) {
                    let expected = format!("expected {} values, got {}", columns[0].len(), column.len());
                    return Err(self.wrong(&entry.node, "zipped keys move together", expected));
                }
                keys.push(key);
                columns.push(column);
            }
        }
        let Some(first) = columns.first() else {
            return Err(self.wrong(node, "[[zip]] is empty", "expected keys with lists of equal length"));
        };
        let rows = (0..first.len()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect();
        Ok(Axis { keys, rows })
    }
}
