//! What runs are chosen for, from words to a question: targets, laws, budget. It asks nobody.

use std::str::FromStr;

use isoloss_fit::design::{Candidate, Question, laws_for, prices};
use isoloss_fit::{Asked, Laws, Observation, Pool, Settings};
use isoloss_sweep::spec::parse_number;

use crate::args::{Aim, Choosing};
use crate::exit::Exit;

/// Of all runs by cost, what is the target where none is said.
const DEAREST_SHARE: f64 = 0.2;

/// An amount, or a share of the whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Budget {
    Amount(f64),
    Share(f64),
}

impl Budget {
    /// `1e18`, `3E` or `30%`.
    pub(crate) fn parse(flag: &str, text: &str) -> Result<Self, Exit> {
        let wrong = || Exit::usage(format!("{flag}: expected a positive amount such as 1e18, or 30%, got {text:?}"));
        let positive = |number: &f64| number.is_finite() && *number > 0.0;
        // No run takes so few FLOPs; a pool of one's own may count its costs as it likes.
        if flag == "--choose" && parse_number(text).is_some_and(|number| number <= 100.0) {
            return Err(Exit::usage(format!("--choose: {text} FLOPs pay for no run; a share of the sweep is {text}%")));
        }
        match text.strip_suffix('%') {
            Some(share) => share.trim().parse().ok().filter(positive).map(|share| Self::Share(share / 100.0)),
            None => parse_number(text).filter(positive).map(Self::Amount),
        }
        .ok_or_else(wrong)
    }

    pub(crate) fn of(self, whole: f64) -> f64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Share(share) => share * whole,
        }
    }
}

/// The words of the command line, checked before anything is read or started.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) budget: Budget,
    pub(crate) until: Option<f64>,
    targets: Vec<Asked>,
    laws: Vec<Laws>,
}

impl Wish {
    pub(crate) fn new(flag: &str, budget: &str, aim: &Aim) -> Result<Self, Exit> {
        let until = |text: &String| {
            let share = text.strip_suffix('%').and_then(|share| share.trim().parse::<f64>().ok());
            let share = share.filter(|share| *share > 0.0 && *share < 100.0).map(|share| share / 100.0);
            share.ok_or_else(|| Exit::usage(format!("--until: expected a percentage such as 1%, got {text:?}")))
        };
        let target = |text: &String| text.parse().map_err(|error| Exit::usage(format!("--target: {error}")));
        let law = |text: &String| match Laws::from_str(text).map_err(|error| Exit::usage(format!("--laws: {error}")))? {
            Laws::Auto => Err(Exit::usage("--laws: name the laws, or leave the flag out")),
            law => Ok(law),
        };
        Ok(Self {
            budget: Budget::parse(flag, budget)?,
            until: aim.until.as_ref().map(until).transpose()?,
            targets: aim.target.iter().map(target).collect::<Result<_, _>>()?,
            laws: aim.laws.iter().map(law).collect::<Result<_, _>>()?,
        })
    }

    /// The question about a pool; where no target was said, the dearest of all runs become it and leave the pool.
    pub(crate) fn question(&self, pool: &mut Pool) -> Question {
        let whole = whole(pool);
        let Pool { known, open, trunks, .. } = pool;
        let targets = match self.targets.as_slice() {
            [] => dearest(known.rows(), open),
            asked => asked.iter().map(Asked::row).collect(),
        };
        let rows = known.rows().iter().chain(open.iter().map(|one| &one.row)).chain(&targets);
        Question {
            laws: if self.laws.is_empty() { laws_for(rows) } else { self.laws.clone() },
            targets,
            budget: self.budget.of(whole),
            trunks: trunks.clone(),
            pending: Vec::new(),
            huber_delta: Settings::default().huber_delta,
            seed: Settings::default().seed,
        }
    }
}

/// What all runs cost together, those that are there and those that are open.
pub(crate) fn whole(pool: &Pool) -> f64 {
    pool.spent + prices(pool.open.iter(), &pool.trunks).iter().sum::<f64>()
}

/// The dearest fifth of all runs, taken from the pool where they lie in it.
fn dearest(seen: &[Observation], pool: &mut Vec<Candidate>) -> Vec<Observation> {
    let all = seen.len() + pool.len();
    let count = ((DEAREST_SHARE * all as f64).round() as usize).max(1);
    let mut rows: Vec<&Observation> = seen.iter().chain(pool.iter().map(|one| &one.row)).collect();
    // Of equal ones the larger model, then whatever name comes last: never more than a fifth.
    let key = |row: &&Observation| (row.flops, row.params);
    rows.sort_by(|a, b| key(b).partial_cmp(&key(a)).unwrap_or(std::cmp::Ordering::Equal).then(b.id.cmp(&a.id)));
    let targets: Vec<Observation> = rows.into_iter().take(count).cloned().collect();
    pool.retain(|one| !targets.iter().any(|target| target.id == one.row.id));
    targets
}

impl Choosing {
    /// What runs are chosen for, where not all of them are made.
    pub(crate) fn wish(&self) -> Result<Option<Wish>, Exit> {
        match &self.choose {
            Some(budget) => Wish::new("--choose", budget, &self.aim).map(Some),
            None if self.aim.target.is_empty() && self.aim.until.is_none() && self.aim.laws.is_empty() => Ok(None),
            None => Err(Exit::usage("--target, --until and --laws go with --choose")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use isoloss_fit::Observations;

    use super::*;

    fn aim(target: &[&str]) -> Aim {
        Aim { target: target.iter().map(|&text| text.to_owned()).collect(), until: None, laws: Vec::new() }
    }

    #[test]
    fn budgets_are_amounts_or_shares() {
        assert_eq!(Budget::parse("--budget", "30%").unwrap().of(200.0), 60.0);
        assert_eq!(Budget::parse("--budget", "1e18").unwrap().of(200.0), 1e18);
        for wrong in ["0", "-1%", "x", "%", "inf"] {
            assert!(Budget::parse("--budget", wrong).is_err(), "{wrong}");
        }
        let until = Aim { until: Some("2".to_owned()), ..aim(&[]) };
        assert!(Wish::new("--budget", "1", &until).is_err());
        let laws = Aim { laws: vec!["auto".to_owned()], ..aim(&[]) };
        assert!(Wish::new("--budget", "1", &laws).is_err());
    }

    #[test]
    fn the_dearest_fifth_is_the_target_unless_one_is_said() {
        let run = |at: i32| Observation::dense(at.to_string(), 1e6 * f64::from(at), 1e8, f64::NAN);
        let pool = |run: &dyn Fn(i32) -> Observation| Pool {
            known: Observations::new(vec![], vec![], "params"),
            open: (1..=10).map(run).map(|row| Candidate { cost: row.flops, trunk: 0.0, row }).collect(),
            spent: 0.0,
            trunks: BTreeMap::new(),
        };
        let mut all = pool(&run);
        let question = Wish::new("--budget", "50%", &aim(&[])).unwrap().question(&mut all);
        assert_eq!((all.open.len(), question.targets.len()), (8, 2));
        assert!((question.budget / (0.5 * 6e14 * 55.0) - 1.0).abs() < 1e-12);
        let mut all = pool(&run);
        let said = Wish::new("--budget", "50%", &aim(&["params=1e9,tokens=1e10"])).unwrap();
        let question = said.question(&mut all);
        assert_eq!((all.open.len(), question.targets.len()), (10, 1));
        assert_eq!(question.targets[0].params, 1e9);
        // Runs of one cost are not all the dearest.
        let mut equal = pool(&|at| Observation { flops: 1e15, ..run(at) });
        let question = Wish::new("--budget", "50%", &aim(&[])).unwrap().question(&mut equal);
        assert_eq!((equal.open.len(), question.targets.len()), (8, 2));
    }
}
