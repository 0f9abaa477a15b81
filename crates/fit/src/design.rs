//! Which runs to make next: those of a pool that leave least doubt about the loss at a target for the compute that is left.
//!
//! The laws' parameters, their misfit and which law holds are one Gaussian belief (`belief.rs`), refitted after every few
//! outcomes. Within a belief the variance left at the target does not hang on outcomes yet to come, so whole sets of runs
//! can be compared before the first is made. It starts no run and reads no loss that has not been handed in.

mod belief;
mod matrix;
mod pilot;
mod prior;
mod replay;
#[cfg(test)]
mod tests;
mod voice;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::form::form;
use crate::law::{Laws, law};
use crate::observation::Observation;
use belief::Belief;
pub use replay::Replay;

/// How much a run's cost weighs in a greedy choice: gain over cost to this power. Cheap runs first or dear ones: the set
/// that leaves less doubt wins. Smaller powers buy a few dear runs, which the belief overrates while the noise is hardly
/// known.
const COST_POWERS: [f64; 3] = [1.0, 0.75, 0.5];
/// Runs beyond the parameters of the smallest law before one is asked.
const PILOT_SPARE: usize = 2;
/// A set is complete when another run would take away less than this share of the variance.
const GAIN_MIN: f64 = 1e-4;
/// Costs are sums of floating-point numbers.
const ROUNDING: f64 = 1.0 + 1e-12;

/// A run that could be made. Its loss is not read.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub row: Observation,
    /// Of the run alone, in any unit, that of the budget.
    pub cost: f64,
    /// Of the part of its trunk up to where it branches off. Runs of one cluster share their trunk, so only what goes beyond
    /// the part that is there already has to be paid.
    pub trunk: f64,
}

impl Candidate {
    /// What it costs where `trunks`, by cluster, are there already: its share of a trunk that has to be made included.
    pub fn price(&self, trunks: &BTreeMap<String, f64>) -> f64 {
        let there = trunks.get(&self.row.cluster).copied().unwrap_or(0.0);
        self.cost + (self.trunk - there).max(0.0)
    }

    /// Makes its trunk be there.
    pub fn extend(&self, trunks: &mut BTreeMap<String, f64>) {
        if self.trunk > 0.0 {
            let there = trunks.entry(self.row.cluster.clone()).or_default();
            *there = there.max(self.trunk);
        }
    }
}

/// What each of these runs costs when they are made in order, from the trunks that are there.
pub fn prices<'a>(runs: impl Iterator<Item = &'a Candidate>, trunks: &BTreeMap<String, f64>) -> Vec<f64> {
    let mut trunks = trunks.clone();
    let price = |run: &Candidate| {
        let price = run.price(&trunks);
        run.extend(&mut trunks);
        price
    };
    runs.map(price).collect()
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Question {
    /// Where the loss is wanted.
    pub targets: Vec<Observation>,
    /// Laws that may hold. A law that is a special case of another should not stand beside it: by its fewer parameters it
    /// wins while runs are few, and is surest where it is wrong.
    pub laws: Vec<Laws>,
    /// What may still be spent.
    pub budget: f64,
    /// Trunks that are there already, by cluster, as far as they are paid.
    pub trunks: BTreeMap<String, f64>,
    /// Runs that are being made: paid, and what comes of them is not known yet.
    pub pending: Vec<Observation>,
    /// Threshold of the Huber loss of the fits.
    pub huber_delta: f64,
    /// Picks the first run where there is none.
    pub seed: u64,
}

/// The runs to make, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Places in the pool.
    pub picks: Vec<usize>,
    /// Standard deviation of ln loss at the targets, root mean square, now and after these runs; `None` while there are too
    /// few runs for any law.
    pub deviation: Option<[f64; 2]>,
}

/// What the runs so far say about the targets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Loss at each target.
    pub losses: Vec<f64>,
    /// Standard deviations of ln loss, a run's own noise left out.
    pub deviations: Vec<f64>,
    /// Laws and their shares.
    pub shares: Vec<(&'static str, f64)>,
}

/// The laws to ask about such runs: the most general ones that read what varies.
pub fn laws_for<'a>(rows: impl Iterator<Item = &'a Observation> + Clone) -> Vec<Laws> {
    let varies = |of: fn(&Observation) -> f64| {
        let first = rows.clone().next().map(of);
        rows.clone().any(|row| Some(of(row)) != first)
    };
    let experts = varies(|row| f64::from(row.experts.unwrap_or(1)));
    let repeats = rows.clone().any(|row| row.tokens_unique.is_some_and(|unique| unique < row.tokens));
    let names: &[&str] = match (experts, varies(|row| row.tokens)) {
        (true, false) => &["separable", "joint-moe-size"],
        (true, true) => &["joint-moe"],
        (false, _) if repeats => &["data-constrained", "qlaw"],
        (false, true) => &["qlaw", "kaplan"],
        (false, false) => &["power-params"],
    };
    let named = |name: &&str| law(name).map(Laws::One).or_else(|| form(name).map(Laws::Form));
    names.iter().filter_map(named).collect()
}

/// Loss at the targets; `None` where no law has runs enough.
pub fn forecast(observed: &[Observation], question: &Question) -> Option<Forecast> {
    let belief = belief(observed, &question.targets, question)?;
    Some(Forecast {
        losses: belief.mean.iter().map(|mean| mean.exp()).collect(),
        deviations: (0..belief.mean.len()).map(|at| belief.covariance.at(at, at).max(0.0).sqrt()).collect(),
        shares: belief.shares,
    })
}

/// The best set of runs from the pool that the budget pays for; first runs, cheap and far apart, while no law can be fitted.
pub fn choose(observed: &[Observation], pool: &[Candidate], question: &Question) -> Choice {
    let needed = question.laws.iter().filter_map(|law| voice::dimension(*law)).min().unwrap_or(0) + PILOT_SPARE;
    let informed = if observed.len() < needed { None } else { informed(observed, pool, question) };
    informed.unwrap_or_else(|| {
        let known: Vec<&Observation> = observed.iter().chain(&question.pending).collect();
        let picks = pilot::pilot(&known, pool, needed.saturating_sub(known.len()), question);
        Choice { picks, deviation: None }
    })
}

fn informed(observed: &[Observation], pool: &[Candidate], question: &Question) -> Option<Choice> {
    let targets = question.targets.len();
    // What cannot be paid need not be thought about.
    let purse = Purse::of(question);
    let affordable: Vec<&Candidate> = pool.iter().filter(|one| purse.pays(one)).collect();
    let rows = affordable.iter().map(|one| &one.row);
    let places: Vec<Observation> = question.targets.iter().chain(rows).chain(&question.pending).cloned().collect();
    let mut belief = belief(observed, &places, question)?;
    (targets + affordable.len()..places.len()).for_each(|place| belief.observe(place));
    let sets = COST_POWERS.map(|power| greedy(belief.clone(), targets, &affordable, purse.clone(), power));
    let (picks, left) = sets.into_iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let deviation = |variance: f64| (variance / targets.max(1) as f64).sqrt();
    let places: Vec<usize> = (0..pool.len()).filter(|at| purse.pays(&pool[*at])).collect();
    Some(Choice {
        picks: picks.into_iter().map(|at| places[at]).collect(),
        deviation: Some([belief.variance(targets), left].map(deviation)),
    })
}

fn belief(observed: &[Observation], places: &[Observation], question: &Question) -> Option<Belief> {
    let voices: Vec<voice::Voice> =
        question.laws.iter().flat_map(|law| voice::voices(*law, observed, places, question.huber_delta)).collect();
    Belief::of(&voices)
}

/// What is left to spend, and the trunks that are there.
#[derive(Debug, Clone)]
pub(crate) struct Purse {
    left: f64,
    trunks: BTreeMap<String, f64>,
}

impl Purse {
    fn of(question: &Question) -> Self {
        Self { left: question.budget, trunks: question.trunks.clone() }
    }

    fn price(&self, candidate: &Candidate) -> f64 {
        candidate.price(&self.trunks)
    }

    fn pays(&self, candidate: &Candidate) -> bool {
        self.price(candidate) <= self.left * ROUNDING
    }

    fn spend(&mut self, candidate: &Candidate) {
        self.left -= self.price(candidate);
        candidate.extend(&mut self.trunks);
    }
}

/// Takes the run of most gain over price to a power, again and again while the budget lasts; the variance left at the end.
fn greedy(mut belief: Belief, targets: usize, pool: &[&Candidate], mut purse: Purse, power: f64) -> (Vec<usize>, f64) {
    let mut picks = Vec::new();
    let mut open: Vec<usize> = (0..pool.len()).collect();
    loop {
        open.retain(|at| purse.pays(pool[*at]));
        let floor = GAIN_MIN * belief.variance(targets);
        let gains = open.iter().map(|at| (*at, belief.gain(targets, targets + at)));
        let worth = gains.filter(|(_, gain)| *gain > floor);
        let worth = worth.map(|(at, gain)| (at, gain / purse.price(pool[at]).max(f64::MIN_POSITIVE).powf(power)));
        // The first of equal ones.
        let best = worth.reduce(|best, other| if other.1 > best.1 { other } else { best });
        let Some((at, _)) = best else {
            return (picks, belief.variance(targets));
        };
        belief.observe(targets + at);
        purse.spend(pool[at]);
        open.retain(|other| *other != at);
        picks.push(at);
    }
}
