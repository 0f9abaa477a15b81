//! Whether one law was asked of runs that do not belong together: hot and cooled checkpoints, tokenizers, corpora, or
//! any other label. Each group gets an offset of ln loss beside the law; an offset that noise does not explain is told.
//!
//! The law is linear around its optimum here, bent by a parabola in ln params and ln tokens where the runs are many, so
//! that a law's own misfit is not taken for a group's. Errors are summed over clusters before they are squared.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::diagnosis::Chosen;
use crate::observation::Observation;
use crate::optimum;
use crate::problem::{self, Problem, Vector};
use crate::qr::{self, Line};
use crate::real::UNKNOWNS_MAX;
use crate::student;

/// What the end of a run is called, and what comes before it, in the label that clusters give by themselves.
const LAST: &str = "last of its run";
const EARLIER: &str = "before the end of its run";
/// Groups of a label that are compared, the largest ones.
const GROUPS_MAX: usize = 6;
/// Fewer runs or clusters show no offset.
const RUNS_MIN: usize = 4;
const CLUSTERS_MIN: usize = 3;
/// Chance that a fit of runs that belong together is warned about, over all its offsets.
const FALSE_ALARM: f64 = 0.01;
/// An offset of ln loss that nobody would notice.
const OFFSET_MIN: f64 = 1e-3;
/// Of a group's column, the least share that size and tokens leave over.
const SEPARABLE_MIN: f64 = 0.02;
/// Runs for each unknown that pay for the parabola, and for the check at all.
const RUNS_PER_BENT: usize = 4;
const RUNS_PER_UNKNOWN: usize = 2;
/// Times that the law is fitted again beside the offsets, and weights inside each.
const REFITS: usize = 3;
const REWEIGHTS: usize = 15;
/// Huber's threshold in standard deviations: 95 % efficient on normal noise.
const HUBER: f64 = 1.345;
const MEDIAN_TO_SIGMA: f64 = 1.4826;

/// Offsets of the groups of every label that the runs have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixingRecord {
    pub labels: Vec<LabelRecord>,
}

/// One label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelRecord {
    /// `arm`, `checkpoint`, `tokenizer`, `cooled`, or a column's name.
    pub label: String,
    /// The largest group, which the others are compared with.
    pub reference: String,
    pub reference_runs: usize,
    pub groups: Vec<GroupRecord>,
}

/// A group against the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupRecord {
    pub value: String,
    pub runs: usize,
    /// Of ln loss over the reference at equal params and tokens; absent where size and tokens tell the groups apart
    /// already, or the independent runs are too few.
    pub offset: Option<f64>,
    /// Of the offset, at the level of the fit.
    pub interval: Option<[f64; 2]>,
    /// Whether noise does not explain it.
    pub found: bool,
}

impl LabelRecord {
    pub fn found(&self) -> bool {
        self.groups.iter().any(|group| group.found)
    }
}

/// `None` where no label tells the runs apart.
pub(crate) fn mixing(chosen: &Chosen<'_>) -> Option<MixingRecord> {
    let labels: Vec<Groups> = labels(chosen.rows).into_iter().filter_map(Groups::of).collect();
    let offsets = labels.iter().map(|groups| groups.names.len() - 1).sum::<usize>().max(1);
    let labels: Vec<LabelRecord> = labels.iter().map(|groups| groups.record(chosen, offsets)).collect();
    (!labels.is_empty()).then_some(MixingRecord { labels })
}

/// The values of each label, run by run; empty where a run has none.
fn labels(rows: &[Observation]) -> Vec<(String, Vec<String>)> {
    let mut found = vec![("arm".to_owned(), rows.iter().map(|row| row.arm.clone()).collect())];
    let mut last: BTreeMap<&str, f64> = BTreeMap::new();
    for row in rows {
        let tokens = last.entry(&row.cluster).or_default();
        *tokens = tokens.max(row.tokens);
    }
    let checkpoint = |row: &Observation| if row.tokens < last[row.cluster.as_str()] { EARLIER } else { LAST };
    found.push(("checkpoint".to_owned(), rows.iter().map(|row| checkpoint(row).to_owned()).collect()));
    let said: BTreeSet<&String> = rows.iter().flat_map(|row| row.labels.keys()).collect();
    let of = |name: &String| rows.iter().map(|row| row.labels.get(name).cloned().unwrap_or_default()).collect();
    found.extend(said.into_iter().map(|name| (name.clone(), of(name))));
    found
}

/// The runs by one label.
struct Groups {
    label: String,
    /// The largest first.
    names: Vec<String>,
    runs: Vec<usize>,
    /// Of each run; `None` for those of groups too small to compare.
    of_row: Vec<Option<usize>>,
}

impl Groups {
    fn of((label, values): (String, Vec<String>)) -> Option<Self> {
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        values.iter().for_each(|value| *sizes.entry(value).or_default() += 1);
        let mut sizes: Vec<(&str, usize)> = sizes.into_iter().filter(|(_, runs)| *runs >= RUNS_MIN).collect();
        sizes.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        sizes.truncate(GROUPS_MAX);
        let of_row = values.iter().map(|value| sizes.iter().position(|(name, _)| name == value)).collect();
        let (names, runs) = (sizes.iter().map(|(name, _)| (*name).to_owned()).collect(), sizes.iter().map(|s| s.1));
        (sizes.len() > 1).then_some(Self { label, names, runs: runs.collect(), of_row })
    }

    fn record(&self, chosen: &Chosen<'_>, offsets: usize) -> LabelRecord {
        let estimates = Mixed::new(chosen, self).map(|mixed| mixed.offsets(chosen, self));
        let group = |at: usize| {
            let estimate = estimates.as_ref().and_then(|all| all[at].as_ref());
            let interval = estimate.map(|one| {
                let half = student::quantile(chosen.level, one.degrees) * one.error;
                [one.offset - half, one.offset + half]
            });
            let found = estimate.is_some_and(|one| {
                let far = student::quantile(1.0 - FALSE_ALARM / offsets as f64, one.degrees) * one.error;
                one.offset.abs() > far.max(OFFSET_MIN)
            });
            let (value, runs) = (self.names[at].clone(), self.runs[at]);
            GroupRecord { value, runs, offset: estimate.map(|one| one.offset), interval, found }
        };
        LabelRecord {
            label: self.label.clone(),
            reference: self.names[0].clone(),
            reference_runs: self.runs[0],
            groups: (1..self.names.len()).map(group).collect(),
        }
    }

    /// Different clusters of a group.
    fn clusters(&self, rows: &[Observation], group: usize) -> usize {
        let of = rows.iter().zip(&self.of_row).filter(|(_, at)| **at == Some(group));
        of.map(|(row, _)| row.cluster.as_str()).collect::<BTreeSet<_>>().len()
    }
}

/// An offset with its standard error.
struct Estimate {
    offset: f64,
    error: f64,
    degrees: usize,
}

/// The law with the offsets beside it, linear at its optimum.
struct Mixed {
    /// `[slopes of the law, parabola, groups, residual]` of the compared runs.
    lines: Vec<Line>,
    /// Which run each line is.
    run: Vec<usize>,
    /// Unknowns before the groups, and all.
    before: usize,
    count: usize,
    /// Offsets by group; the reference's is zero.
    offsets: Vec<f64>,
    scale: f64,
}

impl Mixed {
    /// `None` where the runs are too few.
    fn new(chosen: &Chosen<'_>, groups: &Groups) -> Option<Self> {
        let mut problem = chosen.fit.problem.clone();
        for (row, group) in problem.rows.iter_mut().zip(&groups.of_row) {
            row.weight = if group.is_some() { 1.0 } else { 0.0 };
        }
        let mut offsets = vec![0.0; groups.names.len()];
        let mut theta = chosen.fit.search.best.theta;
        let mut mixed = None;
        for _ in 0..REFITS {
            let mut next = Self::at(&problem, &theta, groups)?;
            next.solve()?;
            // The lines see what earlier offsets left.
            next.offsets.iter_mut().zip(&offsets).for_each(|(new, known)| *new += known);
            offsets = next.offsets.clone();
            for ((row, known), group) in problem.rows.iter_mut().zip(&chosen.fit.problem.rows).zip(&groups.of_row) {
                row.y = known.y - group.map_or(0.0, |group| offsets[group]);
            }
            theta = optimum::refit(&problem, &chosen.fit.search).theta;
            mixed = Some(next);
        }
        mixed
    }

    fn at(problem: &Problem, theta: &Vector, groups: &Groups) -> Option<Self> {
        let run: Vec<usize> = (0..groups.of_row.len()).filter(|at| groups.of_row[*at].is_some()).collect();
        let points: Vec<_> = run.iter().map(|at| problem::point(problem.law, theta, problem.rows[*at].x)).collect();
        // A term that has vanished has no slope to speak of.
        let seen = |at: &usize| points.iter().any(|point| point.gradient[*at].abs() > 1e-9);
        let slopes: Vec<usize> = (0..problem.law.dimension()).filter(seen).collect();
        let least = slopes.len() + groups.names.len() - 1;
        let bent = least + 3 <= UNKNOWNS_MAX && run.len() >= RUNS_PER_BENT * (least + 3);
        let before = slopes.len() + if bent { 3 } else { 0 };
        let count = before + groups.names.len() - 1;
        if count > UNKNOWNS_MAX || run.len() < RUNS_PER_UNKNOWN * count {
            return None;
        }
        let line = |(at, point): (&usize, &problem::Point)| {
            let (row, mut line) = (&problem.rows[*at], [0.0; UNKNOWNS_MAX + 1]);
            slopes.iter().zip(&mut line).for_each(|(from, to)| *to = point.gradient[*from]);
            if bent {
                let [n, d] = row.x;
                line[slopes.len()..before].copy_from_slice(&[n * n, n * d, d * d]);
            }
            if let Some(group) = groups.of_row[*at].filter(|group| *group > 0) {
                line[before + group - 1] = 1.0;
            }
            line[count] = row.y - point.value;
            line
        };
        let lines = run.iter().zip(&points).map(line).collect();
        Some(Self { lines, run, before, count, offsets: vec![0.0; groups.names.len()], scale: 0.0 })
    }

    /// Robust least squares; leaves the residuals in the lines' last place.
    fn solve(&mut self) -> Option<()> {
        let count = self.count;
        let mut weights = vec![1.0_f64; self.lines.len()];
        let mut residuals = Vec::new();
        for _ in 0..REWEIGHTS {
            let weighted = |(line, weight): (&Line, &f64)| line.map(|value| value * weight.sqrt());
            let solution = qr::solve(self.lines.iter().zip(&weights).map(weighted).collect(), count)?;
            let left = |line: &Line| line[count] - (0..count).map(|at| line[at] * solution[at]).sum::<f64>();
            residuals = self.lines.iter().map(left).collect::<Vec<f64>>();
            let mut sizes: Vec<f64> = residuals.iter().map(|r| r.abs()).collect();
            sizes.sort_by(f64::total_cmp);
            self.scale = (MEDIAN_TO_SIGMA * sizes[sizes.len() / 2]).max(1e-12);
            let far = HUBER * self.scale;
            weights = residuals.iter().map(|r| if r.abs() > far { far / r.abs() } else { 1.0 }).collect();
            self.offsets[1..].copy_from_slice(&solution[self.before..]);
        }
        self.lines.iter_mut().zip(residuals).for_each(|(line, r)| line[count] = r);
        Some(())
    }

    /// By group, the reference first, which has none.
    fn offsets(&self, chosen: &Chosen<'_>, groups: &Groups) -> Vec<Option<Estimate>> {
        let Some(reach) = qr::Reach::of(self.lines.clone(), self.count) else {
            return groups.names.iter().map(|_| None).collect();
        };
        let far = HUBER * self.scale;
        let inside = self.lines.iter().filter(|line| line[self.count].abs() <= far).count();
        let share = inside as f64 / self.lines.len() as f64;
        let estimate = |group: usize| {
            let column = (group > 0).then(|| self.before + group - 1)?;
            let mut unit = [0.0; UNKNOWNS_MAX + 1];
            unit[column] = 1.0;
            let along = reach.inverse_times(&unit);
            let separable = 1.0 / (along[column] * groups.runs[group] as f64);
            let clusters = groups.clusters(chosen.rows, group).min(groups.clusters(chosen.rows, 0));
            if separable < SEPARABLE_MIN || clusters < CLUSTERS_MIN {
                return None;
            }
            let mut pulls: BTreeMap<&str, f64> = BTreeMap::new();
            for (line, run) in self.lines.iter().zip(&self.run) {
                let weight: f64 = (0..self.count).map(|at| line[at] * along[at]).sum();
                // The residual as of a run that was not fitted.
                let r = line[self.count].clamp(-far, far) / (1.0 - reach.leverage(line)).max(0.05);
                *pulls.entry(&chosen.rows[*run].cluster).or_default() += weight * r / share;
            }
            let all = pulls.len() as f64;
            let variance = pulls.values().map(|pull| pull * pull).sum::<f64>() * all / (all - 1.0);
            Some(Estimate { offset: self.offsets[group], error: variance.sqrt(), degrees: clusters - 1 })
        };
        (0..groups.names.len()).map(estimate).collect()
    }
}

pub(crate) fn warnings(record: &MixingRecord) -> Vec<String> {
    let of_label = |label: &LabelRecord| {
        let found = label.groups.iter().filter(|group| group.found);
        found.map(|group| warning(label, group)).collect::<Vec<String>>()
    };
    record.labels.iter().flat_map(of_label).collect()
}

fn warning(label: &LabelRecord, group: &GroupRecord) -> String {
    let percent = |ln: f64| format!("{:+.2}", 100.0 * ln.exp_m1());
    let offset = group.offset.map(percent).unwrap_or_default();
    let range = group.interval.map(|[low, high]| format!(" [{}, {}]", percent(low), percent(high))).unwrap_or_default();
    let advice = match label.label.as_str() {
        "tokenizer" => {
            "losses per token of two tokenizers are not comparable: fit bits per byte, or one tokenizer alone"
        }
        "cooled" => "fit only runs whose learning rate has come down, or only those whose has not",
        "checkpoint" => "checkpoints inside a schedule are no final losses: fit the last of each run alone",
        "arm" => "one law does not hold for both: fit each arm alone",
        _ => "one law does not hold for both: fit each group alone",
    };
    format!(
        "{} {} ({} runs) lies {offset} %{range} off {} ({} runs) at equal params and tokens, which noise does not \
         explain: {advice}",
        label.label,
        named(&group.value),
        group.runs,
        named(&label.reference),
        label.reference_runs
    )
}

fn named(value: &str) -> String {
    if value.is_empty() { "(empty)".to_owned() } else { format!("{value:?}") }
}

/// One sentence for each label that is no warning.
pub fn sentences(record: &MixingRecord) -> Vec<String> {
    let quiet = |label: &&LabelRecord| !label.found();
    let sentence = |label: &LabelRecord| {
        let known: Vec<(f64, f64)> =
            label.groups.iter().filter_map(|g| Some((g.offset?.abs(), (g.interval?[1] - g.offset?).abs()))).collect();
        let (name, groups) = (&label.label, label.groups.len() + 1);
        match known.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((most, half)) => format!(
                "{groups} groups by {name}: none off the largest by more than noise explains (at most {:.2} %, give or take \
                 {:.2} %)",
                100.0 * most,
                100.0 * half
            ),
            None => format!(
                "{groups} groups by {name}: whether they belong together cannot be told, for want of independent runs or \
                 because each has sizes and tokens of its own"
            ),
        }
    };
    record.labels.iter().filter(quiet).map(sentence).collect()
}
