//! TOML text to [`SweepSpec`], table by table. The first mistake ends it.

use super::diagnostic::Place;
use super::document::{Entry, Item, Node, read};
use super::fields::Reader;
use super::key::{KEYS, Key, Section};
use super::value::{Setting, Value};
use super::{Arm, Axis, Derived, Exclude, Expression, SCHEMA, Settings, SpecError, SweepSpec};
use crate::hyper::HyperParameter;

/// Words of expressions that are no keys: counts of the realised model, and the arm's name.
pub(crate) const COUNT_WORDS: [&str; 5] =
    ["params_total", "params_non_embedding", "params_active", "params_active_non_embedding", "flops_per_token"];

/// Reads a sweep file; each override is `key=value` in TOML, as in `corpus.paths=["a.txt"]`.
pub fn parse(file: &str, text: &str, overrides: &[String]) -> Result<SweepSpec, SpecError> {
    let (sources, root) = read(file, text, overrides)?;
    let reader = Reader { sources: &sources };
    let mut top = reader.fields("", &root)?;
    let schema = top.take("schema");
    let name = top.take("name");
    let seed = top.take("seed");
    let mut settings = Settings::new();
    for section in Section::ALL {
        if let Some(node) = top.take(section.name()) {
            reader.section(section, &node, &mut settings)?;
        }
    }
    if let Some(node) = seed {
        let key = Key::named("seed").expect("seed is in the key table");
        settings.entry(key.name).or_insert(reader.setting(key, &node)?);
    }
    let axes = reader.axes(&mut top)?;
    let arms = reader.arms(top.take("arm"))?;
    let derived = reader.derived(top.take("derive"), &axes)?;
    let mut fit = reader.fit(top.take("fit"))?;
    fit.best_of.extend(tuned(&settings, &axes, &arms));
    fit.best_of.sort_unstable();
    fit.best_of.dedup();
    let (resources, memory_place) = reader.resources(top.take("resources"))?;
    let spec = SweepSpec {
        name: reader.name(name)?,
        axes,
        arms,
        derived,
        excludes: reader.excludes(top.take("exclude"))?,
        replicates: reader.replicates(top.take("replicates"))?,
        budget: reader.budget(top.take("budget"))?,
        retry: reader.retry(top.take("retry"))?,
        fit,
        trainer: reader.trainer(top.take("trainer"))?,
        resources,
        memory_place,
        settings,
        sources: Vec::new(),
    };
    top.finish()?;
    reader.schema(schema, &root)?;
    Ok(SweepSpec { sources, ..spec })
}

/// What any part of the file tunes: its fit is one of the best runs.
fn tuned(settings: &Settings, axes: &[Axis], arms: &[Arm]) -> Vec<HyperParameter> {
    let rows = |axes: &[Axis]| axes.iter().flat_map(|axis| axis.rows.iter().flatten()).cloned().collect::<Vec<_>>();
    let mut all: Vec<Setting> = settings.values().cloned().chain(rows(axes)).collect();
    for arm in arms {
        all.extend(arm.settings.values().cloned().chain(rows(&arm.axes)));
    }
    let of = |setting: Setting| match setting.value {
        Value::Tune(tune) => tune.into_iter().map(|(parameter, _)| parameter).collect(),
        _ => Vec::new(),
    };
    all.into_iter().flat_map(of).collect()
}

impl Reader<'_> {
    fn schema(self, node: Option<Node>, root: &Node) -> Result<(), SpecError> {
        let Some(node) = node else {
            let place = Place { end: 0, ..root.place };
            let missing = self.at(Place { start: 0, ..place }, "the file does not say its schema");
            return Err(missing.label("expected `schema = 1` first").into());
        };
        match self.count("schema", &node, 1)? {
            SCHEMA => Ok(()),
            _ => Err(self.wrong(&node, "unknown schema", format!("expected {SCHEMA}"))),
        }
    }

    fn name(self, node: Option<Node>) -> Result<String, SpecError> {
        let Some(node) = node else {
            return Ok("sweep".to_owned());
        };
        let name = self.text("name", &node)?;
        if name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Ok(name);
        }
        Err(self.wrong(&node, "`name` cannot name a folder", "expected up to 64 letters, digits, `-`, `_` or `.`"))
    }

    fn section(self, section: Section, node: &Node, settings: &mut Settings) -> Result<(), SpecError> {
        for entry in self.fields(section.name(), node)?.rest() {
            let Some(key) = Key::within(section, &entry.key) else {
                let known = KEYS.iter().filter(|key| key.section == section).map(Key::short);
                return Err(self.unknown(section.name(), &entry, known));
            };
            let setting = self.setting(key, &entry.node)?;
            self.insert(settings, key, setting, &entry)?;
        }
        Ok(())
    }

    fn insert(self, settings: &mut Settings, key: &Key, setting: Setting, entry: &Entry) -> Result<(), SpecError> {
        match settings.insert(key.name, setting) {
            None => Ok(()),
            Some(_) => Err(self.at(entry.place, format!("`{}` is set twice", key.name)).label("set again here").into()),
        }
    }

    /// The key that an entry of `[axes]`, `[[zip]]`, `[derive]` or an arm names, with the entry that holds its value:
    /// `corpus.seed = [..]` is a table inside.
    pub(super) fn keyed(self, table: &str, entry: Entry) -> Result<Vec<(&'static Key, Entry)>, SpecError> {
        if let Some(section) = Section::ALL.into_iter().find(|section| section.name() == entry.key) {
            let mut inner = self.fields(section.name(), &entry.node)?;
            return inner
                .rest()
                .into_iter()
                .map(|entry| match Key::within(section, &entry.key) {
                    Some(key) => Ok((key, entry)),
                    None => {
                        let known = KEYS.iter().filter(|key| key.section == section).map(Key::short);
                        Err(self.unknown(&format!("{table}.{}", section.name()), &entry, known))
                    }
                })
                .collect();
        }
        match Key::named(&entry.key) {
            Some(key) => Ok(vec![(key, entry)]),
            None => Err(self.unknown(table, &entry, KEYS.iter().map(|key| key.name))),
        }
    }

    /// The tables of an array of tables.
    pub(super) fn tables(self, name: &str, node: Option<Node>) -> Result<Vec<(usize, Node)>, SpecError> {
        match node {
            None => Ok(Vec::new()),
            Some(Node { item: Item::List(items), .. }) => Ok(items.into_iter().enumerate().collect()),
            Some(node) => Err(self.wrong_kind(name, &node, &format!("[[{name}]] tables"))),
        }
    }

    fn arms(self, node: Option<Node>) -> Result<Vec<Arm>, SpecError> {
        let mut arms: Vec<Arm> = Vec::new();
        for (_, node) in self.tables("arm", node)? {
            let mut fields = self.fields("arm", &node)?;
            let name_node = fields.require("name")?;
            let name = self.text("name", &name_node)?;
            if arms.iter().any(|arm| arm.name == name) {
                let twice = self.at(name_node.place, format!("there are two arms called \"{name}\""));
                return Err(twice.label("expected a name of its own").into());
            }
            let mut arm = Arm { name, place: name_node.place, settings: Settings::new(), axes: Vec::new() };
            for entry in fields.rest() {
                for (key, entry) in self.keyed("arm", entry)? {
                    self.arm_key(&mut arm, key, &entry)?;
                }
            }
            arms.push(arm);
        }
        Ok(arms)
    }

    /// A list in an arm is an axis of its own, where a list cannot be the value itself.
    fn arm_key(self, arm: &mut Arm, key: &'static Key, entry: &Entry) -> Result<(), SpecError> {
        if matches!(entry.node.item, Item::List(_)) && key.takes_no_list() {
            arm.axes.push(self.axis(key, entry)?);
            return Ok(());
        }
        let setting = self.setting(key, &entry.node)?;
        self.insert(&mut arm.settings, key, setting, entry)
    }

    fn derived(self, node: Option<Node>, axes: &[Axis]) -> Result<Vec<Derived>, SpecError> {
        let Some(node) = node else {
            return Ok(Vec::new());
        };
        let mut derived = Vec::new();
        for entry in self.fields("derive", &node)?.rest() {
            for (key, entry) in self.keyed("derive", entry)? {
                if axes.iter().any(|axis| axis.keys.iter().any(|axis| axis.name == key.name)) {
                    let both = self.at(entry.place, format!("`{}` is both an axis and derived", key.name));
                    return Err(both.label("expected one of the two").into());
                }
                let expression = self.expression(key.name, &entry.node)?;
                derived.push(Derived { key, expression });
            }
        }
        Ok(derived)
    }

    fn excludes(self, node: Option<Node>) -> Result<Vec<Exclude>, SpecError> {
        self.tables("exclude", node)?
            .into_iter()
            .map(|(_, node)| {
                let mut fields = self.fields("exclude", &node)?;
                let when = self.expression("when", &fields.require("when")?)?;
                fields.finish()?;
                Ok(Exclude { when })
            })
            .collect()
    }

    fn expression(self, name: &str, node: &Node) -> Result<Expression, SpecError> {
        let text = self.text(name, node)?;
        // Columns inside the string are exact when it holds no escapes, and point at the whole of it otherwise.
        let inside = Place { start: node.place.start + 1, end: node.place.end.saturating_sub(1), ..node.place };
        let plain = self.sources[node.place.source].text.get(inside.start..inside.end) == Some(text.as_str());
        let place = if plain { inside } else { node.place };
        Expression::parse(&text, place, plain)
            .and_then(|expression| {
                let known: Vec<&str> =
                    KEYS.iter().map(|key| key.name).chain(COUNT_WORDS).chain(["arm", "depth"]).collect();
                expression.check_words(&known)?;
                Ok(expression)
            })
            .map_err(|mistake| {
                let diagnostic = self.at(mistake.place, mistake.message).label(mistake.expected);
                match mistake.unknown {
                    Some((got, known)) => diagnostic.nearest(&got, known.iter().map(String::as_str)).into(),
                    None => diagnostic.into(),
                }
            })
    }
}
