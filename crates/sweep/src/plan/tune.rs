//! Tuning: each draft once for every combination of the factors that the file tries on the recipe's numbers. Which of
//! them is best is the fit's to say, from the outcomes.

use std::collections::BTreeMap;

use crate::hyper::HyperParameter;
use crate::plan::draft::Draft;
use crate::plan::{PlanError, RUNS_MAX, Refusal};
use crate::spec::{SweepSpec, Value};

/// What the recipe's numbers are multiplied by; 1 where nothing is said.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Factors(BTreeMap<HyperParameter, f64>);

impl Factors {
    pub(crate) fn of(&self, parameter: HyperParameter) -> f64 {
        self.0.get(&parameter).copied().unwrap_or(1.0)
    }

    /// The hyper-parameters that are tuned.
    pub(crate) fn tuned(&self) -> impl Iterator<Item = HyperParameter> + '_ {
        self.0.keys().copied()
    }
}

/// Every draft with every combination of its factors, in the order of the file.
pub(crate) fn expand<'m>(spec: &SweepSpec, drafts: Vec<Draft<'m>>) -> Result<Vec<Draft<'m>>, PlanError> {
    let mut all = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let Some(Value::Tune(tune)) = draft.point.get("tune").cloned() else {
            all.push(draft);
            continue;
        };
        let place = draft.point.place_of("tune");
        let combinations: usize = tune.iter().map(|(_, factors)| factors.len()).product();
        if all.len() + combinations > RUNS_MAX {
            let message = format!("tuning makes more than {RUNS_MAX} runs");
            return Err(spec.refuse(Refusal::Grid, place, message).label("expected fewer factors"));
        }
        let mut own = vec![draft];
        for (parameter, factors) in &tune {
            let with = |draft: &Draft<'m>, factor: f64| {
                let mut draft = draft.clone();
                draft.factors.0.insert(*parameter, factor);
                draft
            };
            own = own.iter().flat_map(|draft| factors.iter().map(|factor| with(draft, *factor))).collect();
        }
        all.extend(own);
    }
    Ok(all)
}
