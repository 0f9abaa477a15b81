//! Points of the grid: which settings hold at each, after arms, axes and derived keys. It sizes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{PlanError, RUNS_MAX, Refusal};
use crate::spec::{Axis, Derived, Key, Place, Section, Setting, Settings, SweepSpec, Term, Value};

/// One combination of the axes in one arm.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) arm: String,
    /// Where the arm is named, for mistakes that no single key makes.
    pub(crate) place: Place,
    settings: BTreeMap<&'static str, (Layer, Setting)>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Derived counts that were not whole: key, as calculated, as taken.
    pub(crate) rounded: Vec<(&'static str, f64, u64)>,
}

/// Who set a value; a later one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    Default,
    File,
    Derived,
    Axis,
    Arm,
}

/// Numbers that expressions may name beside the point's own settings, such as counts.
pub(crate) type Words<'a> = &'a dyn Fn(&str) -> Option<f64>;

/// Keys of which one is meant: an arm that sets one of them silences an axis over another.
const BUDGETS: [&str; 3] = ["tokens", "tokens_per_param", "flops"];

/// Rounding a derived count by less than this changes nothing that anybody would notice, such as a token in a million.
const ROUNDING: f64 = 1e-3;

/// What is known of a point when its derived keys are calculated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Its own settings.
    Grid,
    /// The dense shape and its counts.
    Twin,
    /// The token budget too.
    Budget,
}

impl Stage {
    /// The last stage at which `key` can still be derived: what is decided from it comes after.
    fn last(key: &Key) -> Self {
        match (key.section, key.name) {
            (_, "params" | "width" | "layers" | "heads" | "ff" | "context" | "tied") => Self::Grid,
            (_, "tokens_unique" | "scored_bytes" | "curve_bytes") => Self::Budget,
            (Section::Corpus, _) => Self::Grid,
            (Section::Model, _) => Self::Twin,
            (Section::Train, name) if BUDGETS.contains(&name) => Self::Twin,
            (Section::Train, _) => Self::Budget,
        }
    }
}

impl SweepSpec {
    /// All points in order, with derived keys that need no sizes, and without those that can be excluded already.
    pub(crate) fn points(&self) -> Result<Vec<Point>, PlanError> {
        let mut points = Vec::new();
        if self.arms.is_empty() {
            let name = match self.settings.get("family") {
                Some(Setting { value: Value::Text(family), .. }) => family.clone(),
                _ if self.settings.contains_key("experts") => "moe".to_owned(),
                _ => "dense".to_owned(),
            };
            self.arm_points(&name, Place::default(), &Settings::new(), &[], &mut points)?;
        }
        for arm in &self.arms {
            self.arm_points(&arm.name, arm.place, &arm.settings, &arm.axes, &mut points)?;
        }
        let mut kept = Vec::with_capacity(points.len());
        for mut point in points {
            point.derive(self, Stage::Grid, &|_| None)?;
            if !point.excluded(self, &|_| None)? {
                kept.push(point);
            }
        }
        match self.excludes.last() {
            Some(exclude) if kept.is_empty() => {
                Err(self.refuse(Refusal::Grid, exclude.when.place, "every point of the grid is excluded"))
            }
            _ => Ok(kept),
        }
    }

    fn arm_points(
        &self,
        name: &str,
        place: Place,
        settings: &Settings,
        own: &[Axis],
        points: &mut Vec<Point>,
    ) -> Result<(), PlanError> {
        let axes = active_axes(&self.axes, settings, own);
        let combinations = axes.iter().try_fold(1_usize, |product, axis| product.checked_mul(axis.rows.len()));
        if combinations.is_none_or(|combinations| points.len() + combinations > RUNS_MAX) {
            let place = axes.last().map_or(place, |axis| axis.rows[0][0].place);
            let message = format!("the grid has more than {RUNS_MAX} points");
            return Err(self.refuse(Refusal::Grid, place, message).label("expected shorter axes"));
        }
        let mut base =
            Point { arm: name.to_owned(), place, settings: defaults(), labels: BTreeMap::new(), rounded: Vec::new() };
        base.set_all(&self.settings, Layer::File);
        let first = points.len();
        points.push(base);
        for axis in axes {
            let wider: Vec<Point> = points.drain(first..).flat_map(|point| along(axis, point)).collect();
            points.extend(wider);
        }
        for point in &mut points[first..] {
            point.set_all(settings, Layer::Arm);
        }
        Ok(())
    }
}

/// The arm's own axes replace those of the file over the same key; what the arm sets silences its axis.
fn active_axes<'a>(file: &'a [Axis], settings: &Settings, own: &'a [Axis]) -> Vec<&'a Axis> {
    let group = |name: &'static str| if BUDGETS.contains(&name) { BUDGETS[0] } else { name };
    let mut taken: BTreeSet<&str> = settings.keys().map(|name| group(name)).collect();
    taken.extend(own.iter().flat_map(|axis| axis.keys.iter().map(|key| group(key.name))));
    let silenced = |axis: &&Axis| axis.keys.iter().all(|key| taken.contains(group(key.name)));
    file.iter().filter(|axis| !silenced(axis)).chain(own).collect()
}

fn along(axis: &Axis, point: Point) -> impl Iterator<Item = Point> + '_ {
    axis.rows.iter().map(move |row| {
        let mut point = point.clone();
        for (key, setting) in axis.keys.iter().zip(row) {
            point.labels.insert(key.name.to_owned(), setting.value.label());
            point.settings.insert(key.name, (Layer::Axis, setting.clone()));
        }
        point
    })
}

/// Values that expressions may read and that no recipe decides.
fn defaults() -> BTreeMap<&'static str, (Layer, Setting)> {
    let counts =
        [("context", 256), ("top_k", 2), ("granularity", 1), ("shared_ff", 0), ("seed", 1), ("corpus.seed", 1)];
    let words = [("engine", "auto"), ("precision", "f32"), ("match", "active"), ("preset", "tiny")];
    let counts = counts.map(|(name, count)| (name, Value::Count(count)));
    let words = words.map(|(name, word)| (name, Value::Text(word.to_owned())));
    let flags = [("tied", Value::Flag(false))];
    counts
        .into_iter()
        .chain(words)
        .chain(flags)
        .map(|(name, value)| (name, (Layer::Default, Setting { value, place: Place::default() })))
        .collect()
}

impl Point {
    fn set_all(&mut self, settings: &Settings, layer: Layer) {
        for (name, setting) in settings {
            self.settings.insert(name, (layer, setting.clone()));
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: Value) {
        if let Some(key) = Key::named(name) {
            self.labels.insert(key.name.to_owned(), value.label());
            let place = self.place_of(key.name);
            self.settings.insert(key.name, (Layer::Axis, Setting { value, place }));
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.settings.get(name).map(|(_, setting)| &setting.value)
    }

    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Count(count)) => Some(*count),
            _ => None,
        }
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether the file sets `name` for this point.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.settings.get(name).is_some_and(|(layer, _)| *layer > Layer::Default)
    }

    /// Where `name` was set, else where the arm is named.
    pub(crate) fn place_of(&self, name: &str) -> Place {
        match self.settings.get(name) {
            Some((layer, setting)) if *layer > Layer::Default => setting.place,
            _ => self.place,
        }
    }

    /// The budget key that holds here: the one of the highest layer.
    pub(crate) fn budget_key(&self, spec: &SweepSpec) -> Result<&'static str, PlanError> {
        let mut set: Vec<(Layer, &'static str)> =
            BUDGETS.iter().filter_map(|name| Some((self.settings.get(name)?.0, *name))).collect();
        set.sort_by_key(|(layer, _)| std::cmp::Reverse(*layer));
        match set.as_slice() {
            [] => {
                let message = format!("arm `{}` has no training budget", self.arm);
                let expected = "expected `tokens`, `tokens_per_param` or `flops` in [axes], [train] or the arm";
                Err(spec.refuse(Refusal::Training, self.place, message).label(expected))
            }
            [(first, one), (second, two), ..] if first == second => {
                let message = format!("`{one}` and `{two}` both set the budget");
                Err(spec.refuse(Refusal::Training, self.place_of(two), message).label("expected one of the two"))
            }
            [(_, name), ..] => Ok(name),
        }
    }

    /// The word's value here; `more` knows further words, such as counts.
    fn term(&self, word: &str, more: Words<'_>) -> Option<Term> {
        if let Some(number) = more(word) {
            return Some(Term::Number(number));
        }
        if word == "arm" {
            return Some(Term::Text(self.arm.clone()));
        }
        Some(match self.get(word)? {
            Value::Count(count) => Term::Number(*count as f64),
            Value::Number(number) => Term::Number(*number),
            Value::Flag(flag) => Term::Flag(*flag),
            other => Term::Text(other.label()),
        })
    }

    /// Sets every derived key that may still change and whose words have values, until none is left.
    pub(crate) fn derive(&mut self, spec: &SweepSpec, stage: Stage, more: Words<'_>) -> Result<(), PlanError> {
        loop {
            let open: Vec<&Derived> = spec.derived.iter().filter(|derived| self.may_derive(derived)).collect();
            let value = |word: &str| {
                let waits = open.iter().any(|other| other.key.name == word);
                if waits { None } else { self.term(word, more) }
            };
            let ready = |derived: &&&Derived| Stage::last(derived.key) >= stage && derived.expression.ready(&value);
            let next = open.iter().find(ready);
            let Some(Derived { key, expression }) = next else {
                return Ok(());
            };
            let number = expression.number(&value).map_err(|mistake| spec.mistaken(mistake))?;
            let place = expression.place;
            let value = Value::of_number(key, number).ok_or_else(|| {
                let message = format!("`{}` cannot be {number} (arm `{}`)", key.name, self.arm);
                spec.refuse(Refusal::Expression, place, message).label("out of range for this key")
            })?;
            if let Value::Count(taken) = value
                && (number - taken as f64).abs() > ROUNDING * number.abs()
            {
                self.rounded.push((key.name, number, taken));
            }
            self.settings.insert(key.name, (Layer::Derived, Setting { value, place }));
        }
    }

    /// A derived key gives way to axes and arms, and is calculated once.
    fn may_derive(&self, derived: &Derived) -> bool {
        self.settings.get(derived.key.name).is_none_or(|(layer, _)| *layer < Layer::Derived)
    }

    /// Refuses derived keys that found no value.
    pub(crate) fn check_derived(&self, spec: &SweepSpec) -> Result<(), PlanError> {
        match spec.derived.iter().find(|derived| self.may_derive(derived)) {
            None => Ok(()),
            Some(derived) => {
                let message = format!("`{}` cannot be derived in arm `{}`", derived.key.name, self.arm);
                let expected = "some name in it has no value here, or not before this key is known";
                Err(spec.refuse(Refusal::Expression, derived.expression.place, message).label(expected))
            }
        }
    }

    /// Whether an exclude whose words all have values holds here.
    pub(crate) fn excluded(&self, spec: &SweepSpec, more: Words<'_>) -> Result<bool, PlanError> {
        let environment = |word: &str| self.term(word, more);
        for exclude in &spec.excludes {
            if exclude.when.ready(&environment) && exclude.when.condition(&environment).map_err(|m| spec.mistaken(m))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
