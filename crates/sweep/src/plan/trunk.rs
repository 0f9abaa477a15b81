//! Which WSD runs share a trunk, and what that saves. A trunk is only a set of checkpoints.

use std::collections::BTreeMap;

use crate::count::{Flops, Tokens};
use crate::plan::{Action, Dependency, PlannedRun, Trunk};
use crate::run::{Run, Schedule, TrunkId};

/// The step at which a run leaves its trunk: where its decay begins.
pub(crate) fn fork(run: &Run) -> Option<u64> {
    match run.train.schedule {
        Schedule::Cosine { .. } => None,
        Schedule::Wsd { decay_steps } => Some(run.train.steps.saturating_sub(decay_steps)),
    }
}

/// FLOPs of the first `steps` steps.
pub(crate) fn flops_until(run: &Run, steps: u64) -> Flops {
    let tokens = steps * u64::from(run.train.batch) * u64::from(run.model.context);
    run.model.training_flops(Tokens(tokens))
}

/// Turns runs that share a trunk into branches of it; the trunk of fewer than two is not worth a checkpoint.
pub(crate) fn share(runs: &mut [PlannedRun]) -> Vec<Trunk> {
    let mut groups: BTreeMap<TrunkId, Vec<usize>> = BTreeMap::new();
    let mut order = Vec::new();
    for (index, planned) in runs.iter().enumerate() {
        // Foreign trainers are not asked to write checkpoints at given steps: each trains its run from the start.
        let forked = fork(&planned.run).filter(|step| *step > 0 && planned.run.trainer.is_none());
        if let (Action::Run, Some(_), Some(trunk)) = (planned.action, forked, planned.run.trunk_id()) {
            let group = groups.entry(trunk).or_insert_with(|| {
                order.push(trunk);
                Vec::new()
            });
            group.push(index);
        }
    }
    let mut trunks = Vec::new();
    for trunk_id in order {
        let branches = &groups[&trunk_id];
        if branches.len() < 2 {
            continue;
        }
        let mut steps: Vec<u64> = branches.iter().filter_map(|index| fork(&runs[*index].run)).collect();
        steps.sort_unstable();
        steps.dedup();
        let longest = *branches.iter().max_by_key(|index| fork(&runs[**index].run)).expect("a group has two branches");
        let last = *steps.last().expect("every branch has a fork");
        trunks.push(Trunk {
            trunk_id,
            run: runs[longest].run.clone(),
            flops: flops_until(&runs[longest].run, last),
            memory_bytes: runs[longest].memory_bytes,
            steps,
            seconds: None,
        });
        for index in branches {
            let planned = &mut runs[*index];
            let step = fork(&planned.run).expect("only WSD runs are in a group");
            planned.action = Action::Branch;
            planned.depends_on = Some(Dependency { trunk: trunk_id, step });
            planned.why =
                format!("decays from step {step} of trunk {}, shared by {} runs", trunk_id.short(), branches.len());
        }
    }
    trunks
}
