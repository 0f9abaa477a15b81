//! The best hyper-parameters of each size and budget: which runs of a tuned sweep the laws are fitted to. A ladder in
//! which some sizes are trained worse than others bends the law, so only the best of each cell goes in.

use std::collections::BTreeMap;

use isoloss_sweep::HyperParameter;
use serde::{Deserialize, Serialize};

use crate::observation::{Observation, Observations};
use crate::response::{self, ResponseRecord};

/// Budgets of one cell may differ by this: steps are whole, so that a larger batch rounds a budget further up.
const SAME_BUDGET: f64 = 1.05;

/// What tuning chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TuningRecord {
    pub over: Vec<HyperParameter>,
    /// Runs of all settings.
    pub tried: usize,
    /// Ids of the runs that are the best of their cell, in the order of the observations.
    pub kept: Vec<String>,
    pub cells: Vec<CellRecord>,
    /// How the best value moves with size and budget.
    pub responses: Vec<ResponseRecord>,
}

/// One arm, size and budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    pub arm: String,
    pub params: f64,
    pub tokens: f64,
    /// Mean loss over the seeds of the best setting.
    pub loss: f64,
    /// Different settings that were tried.
    pub settings: usize,
    /// How many of them diverged in every seed.
    #[serde(default)]
    pub diverged: usize,
    pub best: BTreeMap<HyperParameter, f64>,
    /// What tells it from other cells of its arm, size and budget.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub apart: BTreeMap<HyperParameter, f64>,
    /// Least and largest value tried.
    pub range: BTreeMap<HyperParameter, [f64; 2]>,
    /// Hyper-parameters whose best value is the least or largest tried: the optimum may lie beyond.
    pub edges: Vec<HyperParameter>,
}

/// The tuned hyper-parameters of one run, comparable by bits.
type Setting = Vec<u64>;

/// Rows of equal arm, size and budget, by setting.
#[derive(Debug)]
pub(crate) struct Cell<'a> {
    pub(crate) rows: Vec<&'a Observation>,
}

impl Cell<'_> {
    /// Mean loss of each setting of `over`, over its seeds, best first.
    pub(crate) fn settings(&self, over: &[HyperParameter]) -> Vec<(Vec<f64>, f64)> {
        let mut groups: BTreeMap<Setting, Vec<&Observation>> = BTreeMap::new();
        for row in &self.rows {
            groups.entry(setting(row, over)).or_default().push(row);
        }
        let mean = |rows: &[&Observation]| rows.iter().map(|row| row.loss).sum::<f64>() / rows.len() as f64;
        let value = |key: &Setting| key.iter().map(|bits| f64::from_bits(*bits)).collect();
        let mut means: Vec<(Vec<f64>, f64)> = groups.iter().map(|(key, rows)| (value(key), mean(rows))).collect();
        means.sort_by(|a, b| a.1.total_cmp(&b.1));
        means
    }
}

fn setting(row: &Observation, over: &[HyperParameter]) -> Setting {
    over.iter().map(|parameter| row.hyper.get(parameter).copied().unwrap_or(f64::NAN).to_bits()).collect()
}

/// The rows with the best setting of each cell, and what was chosen; `None` where nothing is tuned or no row says what
/// was tried.
pub(crate) fn best(observations: &Observations, over: &[HyperParameter]) -> Option<(Observations, TuningRecord)> {
    let asked: Vec<HyperParameter> = over.iter().copied().filter(|p| observations.knows(*p)).collect();
    if asked.is_empty() {
        return None;
    }
    // The best batch is asked at its best rate, whether or not the rate is asked for.
    let with_rate = asked.contains(&HyperParameter::Batch) && observations.knows(HyperParameter::LearningRate);
    let mut over: Vec<HyperParameter> =
        asked.iter().copied().chain(with_rate.then_some(HyperParameter::LearningRate)).collect();
    over.sort_unstable();
    over.dedup();
    let all: Vec<Observation> = observations.rows().iter().chain(observations.diverged()).cloned().collect();
    let mut cells = cells(&all, &over);
    // A cell in which everything diverged has no best.
    cells.retain(|cell| cell.rows.iter().any(|row| row.loss.is_finite()));
    let mut kept: Vec<&str> = Vec::new();
    let mut records = Vec::new();
    for cell in &cells {
        let settings = cell.settings(&over);
        let (best, loss) = &settings[0];
        let bits: Setting = best.iter().map(|value| value.to_bits()).collect();
        let rows = cell.rows.iter().filter(|row| setting(row, &over) == bits);
        kept.extend(rows.map(|row| row.id.as_str()));
        let record = record(cell, &settings, &over, best, *loss);
        records.push(CellRecord { apart: apart(cell, &cells, &over), ..record });
    }
    kept.sort_unstable();
    let mut chosen = observations.subset(|row| kept.binary_search(&row.id.as_str()).is_ok());
    chosen.set_excluded(observations.excluded().to_vec());
    let record = TuningRecord {
        tried: all.len(),
        kept: chosen.rows().iter().map(|row| row.id.clone()).collect(),
        responses: response::all(&cells, &over, &asked),
        cells: records,
        over,
    };
    Some((chosen, record))
}

fn record(
    cell: &Cell<'_>,
    settings: &[(Vec<f64>, f64)],
    over: &[HyperParameter],
    best: &[f64],
    loss: f64,
) -> CellRecord {
    let first = cell.rows[0];
    let batch = over.iter().position(|parameter| *parameter == HyperParameter::Batch);
    let range = |at: usize| {
        // The recipe moves the rate with the batch, so a rate has neighbours among those of its own batch only.
        let within = batch.filter(|_| over[at] == HyperParameter::LearningRate);
        let near = settings.iter().filter(|(values, _)| within.is_none_or(|batch| values[batch] == best[batch]));
        near.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], (v, _)| [low.min(v[at]), high.max(v[at])])
    };
    let ranges: BTreeMap<HyperParameter, [f64; 2]> =
        over.iter().enumerate().map(|(at, parameter)| (*parameter, range(at))).collect();
    let at_edge = |at: usize| {
        let [low, high] = range(at);
        // Nothing is below one sequence a step.
        let bottom = over[at] == HyperParameter::Batch && low <= 1.0;
        low < high && ((best[at] == low && !bottom) || best[at] == high)
    };
    CellRecord {
        arm: first.arm.clone(),
        params: first.params,
        tokens: first.tokens,
        loss,
        settings: settings.len(),
        diverged: settings.iter().filter(|(_, loss)| loss.is_infinite()).count(),
        best: over.iter().copied().zip(best.iter().copied()).collect(),
        apart: BTreeMap::new(),
        range: ranges,
        edges: (0..over.len()).filter(|at| at_edge(*at)).map(|at| over[at]).collect(),
    }
}

/// Hyper-parameters that are not tuned and differ between `cell` and others of its arm, size and budget.
fn apart(cell: &Cell<'_>, cells: &[Cell<'_>], over: &[HyperParameter]) -> BTreeMap<HyperParameter, f64> {
    let own = cell.rows[0];
    let same = |other: &&Observation| {
        let ratio = own.tokens / other.tokens;
        own.arm == other.arm && own.params == other.params && (1.0 / SAME_BUDGET..SAME_BUDGET).contains(&ratio)
    };
    let others: Vec<&Observation> = cells.iter().map(|cell| cell.rows[0]).filter(same).collect();
    let differs =
        |parameter: &HyperParameter| others.iter().any(|row| row.hyper.get(parameter) != own.hyper.get(parameter));
    kept_apart(over).filter(differs).filter_map(|parameter| Some((parameter, *own.hyper.get(&parameter)?))).collect()
}

/// Hyper-parameters whose values keep cells apart: all that are not tuned, but not the warmup, whose share of whole steps
/// differs a little from batch to batch.
fn kept_apart(over: &[HyperParameter]) -> impl Iterator<Item = HyperParameter> + '_ {
    HyperParameter::ALL.into_iter().filter(|p| !over.contains(p) && *p != HyperParameter::Warmup)
}

/// Cells in the order of arm, size and budget.
fn cells<'a>(rows: &'a [Observation], over: &[HyperParameter]) -> Vec<Cell<'a>> {
    let apart: Vec<HyperParameter> = kept_apart(over).collect();
    let shape = |row: &Observation| {
        let counts = [row.params, row.params_active, row.params_total].map(f64::to_bits);
        (row.arm.clone(), counts, row.experts, row.top_k, setting(row, &apart))
    };
    let mut sizes: BTreeMap<_, Vec<&Observation>> = BTreeMap::new();
    for row in rows {
        sizes.entry(shape(row)).or_default().push(row);
    }
    let mut cells = Vec::new();
    for mut rows in sizes.into_values() {
        rows.sort_by(|a, b| a.tokens.total_cmp(&b.tokens));
        let budgets = rows.chunk_by(|a, b| b.tokens / a.tokens < SAME_BUDGET);
        cells.extend(budgets.map(|rows| Cell { rows: rows.to_vec() }));
    }
    cells.sort_by(|a, b| {
        let key = |cell: &Cell<'_>| (cell.rows[0].params, cell.rows[0].tokens);
        let (a_key, b_key) = (key(a), key(b));
        a.rows[0].arm.cmp(&b.rows[0].arm).then(a_key.0.total_cmp(&b_key.0)).then(a_key.1.total_cmp(&b_key.1))
    });
    cells
}
