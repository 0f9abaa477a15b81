use super::*;
use crate::law::law;
use crate::scaling::ScalingLaw;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Losses of a planted law with multiplicative noise.
struct World {
    law: ScalingLaw,
    rng: ChaCha8Rng,
    noise: f64,
}

impl World {
    fn new(seed: u64, noise: f64) -> Self {
        let values = [("E", 1.7), ("A", 400.0), ("B", 1200.0), ("alpha", 0.34), ("beta", 0.36), ("q", 0.7)];
        let map = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let law = ScalingLaw::new(law("qlaw").unwrap(), &map).unwrap();
        Self { law, rng: ChaCha8Rng::seed_from_u64(seed), noise }
    }

    fn run(&mut self, params: f64, tokens: f64) -> Observation {
        let noise: f64 = (0..12).map(|_| self.rng.random::<f64>()).sum::<f64>() - 6.0;
        let loss = self.law.loss(params, tokens) * (self.noise * noise).exp();
        Observation::dense(format!("{params:e} {tokens:e}"), params, tokens, loss)
    }

    /// Seven sizes by seven budgets.
    fn grid(&mut self) -> Vec<Candidate> {
        let steps = |low: f64| (0..7).map(move |at| low * 2f64.powi(at));
        let pairs = steps(1e6).flat_map(|params| steps(2e7).map(move |tokens| (params, tokens)));
        pairs.map(|(params, tokens)| candidate(self.run(params, tokens))).collect()
    }
}

fn candidate(row: Observation) -> Candidate {
    Candidate { cost: row.flops, trunk: 0.0, row }
}

fn question(budget: f64) -> Question {
    Question {
        targets: vec![Observation::dense("target", 3e8, 1e10, 1.0)],
        laws: vec![Laws::One(law("qlaw").unwrap()), Laws::One(law("kaplan").unwrap())],
        budget,
        trunks: BTreeMap::new(),
        pending: Vec::new(),
        huber_delta: 1e-3,
        seed: 1,
    }
}

#[test]
fn a_tenth_of_the_grid_s_cost_tells_the_target_within_its_deviation() {
    for seed in 1..=5 {
        let mut world = World::new(seed, 0.003);
        let pool = world.grid();
        let whole: f64 = pool.iter().map(|one| one.cost).sum();
        let mut replay = Replay::new(pool, seed);
        let mut looks = 0;
        replay.until(0.1 * whole, &question(0.0), &mut |_| looks += 1);
        let spent: f64 = replay.seen().iter().map(|row| row.flops).sum();
        assert!((spent / replay.spent() - 1.0).abs() < 1e-9 && looks > 1);
        assert!(spent <= 0.1 * whole * ROUNDING, "seed {seed} spent {}", spent / whole);
        let told = forecast(replay.seen(), &question(0.0)).unwrap();
        let error = (told.losses[0] / world.law.loss(3e8, 1e10)).ln();
        assert!(error.abs() < 3.0 * told.deviations[0] + 1e-3, "seed {seed}: {error} with {:?}", told.deviations);
        assert!(error.abs() < 0.05, "seed {seed}: {error}");
    }
}

#[test]
fn the_losses_of_the_pool_are_not_read_and_the_order_of_the_pool_moves_no_set() {
    let mut world = World::new(9, 0.003);
    let pool = world.grid();
    let seen: Vec<Observation> = pool.iter().step_by(5).map(|one| one.row.clone()).collect();
    let rest: Vec<Candidate> = pool.iter().filter(|one| !seen.contains(&one.row)).cloned().collect();
    let ids = |pool: &[Candidate]| {
        let mut ids: Vec<String> =
            choose(&seen, pool, &question(1e18)).picks.into_iter().map(|at| pool[at].row.id.clone()).collect();
        ids.sort();
        ids
    };
    let blind: Vec<Candidate> = rest
        .iter()
        .map(|one| Candidate { row: Observation { loss: f64::NAN, ..one.row.clone() }, ..one.clone() })
        .collect();
    let turned: Vec<Candidate> = rest.iter().rev().cloned().collect();
    let all = ids(&rest);
    assert!(!all.is_empty());
    assert_eq!(all, ids(&blind));
    assert_eq!(all, ids(&turned));
}

#[test]
fn a_run_near_the_target_is_worth_more_than_one_like_those_that_are_there() {
    let mut world = World::new(3, 0.003);
    let seen: Vec<Observation> =
        world.grid().into_iter().map(|one| one.row).filter(|row| row.params < 2e7 && row.tokens < 4e8).collect();
    let near = Candidate { cost: 1.0, ..candidate(world.run(6e7, 1.2e9)) };
    let known = Candidate { cost: 1.0, ..candidate(world.run(2e6, 4e7)) };
    let choice = choose(&seen, &[known, near], &question(1.0));
    assert_eq!(choice.picks, [1]);
    let [before, after] = choice.deviation.unwrap();
    assert!(after < before, "{before} to {after}");
}

#[test]
fn a_trunk_is_paid_once_and_as_far_as_its_branches_need() {
    let branch = |trunk: f64, name: &str| {
        let row = Observation { cluster: "trunk".to_owned(), ..Observation::dense(name, 1e6, 1e8 * trunk, 1.0) };
        Candidate { row, cost: 1.0, trunk }
    };
    let mut purse = Purse::of(&question(10.0));
    assert_eq!(purse.price(&branch(4.0, "long")), 5.0);
    purse.spend(&branch(4.0, "long"));
    assert_eq!(purse.price(&branch(2.0, "short")), 1.0);
    assert_eq!(purse.price(&branch(6.0, "longer")), 3.0);
    assert!(purse.pays(&branch(8.0, "longest")) && !purse.pays(&branch(8.5, "too long")));
    let paid = Question { trunks: BTreeMap::from([("trunk".to_owned(), 4.0)]), ..question(10.0) };
    assert_eq!(Purse::of(&paid).price(&branch(4.0, "long")), 1.0);
}

#[test]
fn first_runs_are_cheap_and_apart_and_the_laws_follow_what_varies() {
    let mut world = World::new(1, 0.0);
    let pool = world.grid();
    let whole: f64 = pool.iter().map(|one| one.cost).sum();
    let choice = choose(&[], &pool, &question(0.2 * whole));
    assert_eq!((choice.picks.len(), choice.deviation), (7, None));
    let cost: f64 = choice.picks.iter().map(|at| pool[*at].cost).sum();
    assert!(cost <= 0.05 * whole);
    let sizes: std::collections::BTreeSet<u64> = choice.picks.iter().map(|at| pool[*at].row.params as u64).collect();
    assert!(sizes.len() >= 3, "{sizes:?}");
    let names = |rows: &[Observation]| laws_for(rows.iter()).iter().map(Laws::to_string).collect::<Vec<_>>().join(" ");
    let mut rows: Vec<Observation> = pool.into_iter().map(|one| one.row).collect();
    assert_eq!(names(&rows), "qlaw kaplan");
    rows[0].tokens_unique = Some(1e7);
    assert_eq!(names(&rows), "data-constrained qlaw");
    rows[0].experts = Some(8);
    assert_eq!(names(&rows), "joint-moe");
    rows.iter_mut().for_each(|row| row.tokens = 1.0);
    assert_eq!(names(&rows), "separable joint-moe-size");
}
