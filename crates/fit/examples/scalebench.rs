//! Choosing runs from a finished pool: what does the law say about the dearest runs after 1, 5 and 10 % of the pool's cost?
//!
//! `cargo run --release -p isoloss-fit --example scalebench -- FOLDER [MANIFEST.csv] [SEEDS]`, where FOLDER holds the tables that
//! the manifest names (`scalebench.csv` beside this file by default), with columns, the cost of a run and the laws that may
//! speak (none: those that `next` takes by itself). Losses of the pool are shown to the design only once it has paid for the run. R2 as published by ScaleBench (Li et
//! al. 2604.22753): over the target runs, in the unit of the loss, clipped below at -1.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use isoloss_fit::design::{Candidate, Question, Replay, forecast, laws_for};
use isoloss_fit::{Columns, Laws, Observation, read_csv};

const BUDGETS: [f64; 3] = [0.01, 0.05, 0.1];

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().ok_or("expected the folder of the tables")?;
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/scalebench.csv");
    let manifest = args.next().unwrap_or_else(|| usual.to_owned());
    let seeds: u64 = args.next().map_or(Ok(10), |text| text.parse())?;
    println!("{:<18} {:>5} {:>6} {:>7}  R2 mean (deviation) over seeds: each", "pool", "runs", "budget", "used");
    for row in csv::Reader::from_path(manifest)?.records() {
        let row = row?;
        let task = Task::read(Path::new(&folder), &row)?;
        let replays: Vec<_> = (0..seeds).map(|seed| task.replay(seed)).collect();
        for (at, share) in BUDGETS.iter().enumerate() {
            let scores: Vec<f64> = replays.iter().map(|replay| replay[at].r2).collect();
            let used = replays.iter().map(|replay| replay[at].runs as f64).sum::<f64>() / replays.len() as f64;
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            let variance =
                scores.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / (scores.len() as f64 - 1.0).max(1.0);
            let each: Vec<String> = scores.iter().map(|score| format!("{score:.2}")).collect();
            println!(
                "{:<18} {:>5} {:>5.0} % {used:>7.1}  {mean:>5.2} ({:.2}): {}",
                &row[0],
                task.pool.len(),
                100.0 * share,
                variance.sqrt(),
                each.join(" ")
            );
        }
        let all: Vec<Observation> = task.pool.iter().map(|one| one.row.clone()).collect();
        if let Some(score) = task.score(&all) {
            println!("{:<18} {:>5} {:>7} {:>7}  {:>5.2}", &row[0], task.pool.len(), "all", all.len(), score);
        }
    }
    Ok(())
}

struct Task {
    pool: Vec<Candidate>,
    targets: Vec<Observation>,
    laws: Vec<Laws>,
}

struct Score {
    r2: f64,
    runs: usize,
}

impl Task {
    fn read(folder: &Path, row: &csv::StringRecord) -> Result<Self, Box<dyn Error>> {
        let columns: Columns = row[3].parse()?;
        let read = |name: &str| -> Result<Vec<Observation>, Box<dyn Error>> {
            let file = std::fs::File::open(folder.join(name)).map_err(|e| format!("{name}: {e}"))?;
            Ok(read_csv(file, &columns)?.rows().to_vec())
        };
        let cost = |row: &Observation, of: &str| match of {
            "params" => Ok(row.params),
            "tokens" => Ok(row.tokens),
            "experts" => Ok(f64::from(row.experts.unwrap_or(1))),
            other => Err(format!("expected a cost of params, tokens and experts, got {other:?}")),
        };
        let candidate = |observation: Observation| -> Result<Candidate, String> {
            let factors: Result<Vec<f64>, String> = row[4].split('*').map(|of| cost(&observation, of)).collect();
            Ok(Candidate { cost: factors?.into_iter().product(), trunk: 0.0, row: observation })
        };
        let pool: Vec<Candidate> = read(&row[1])?.into_iter().map(candidate).collect::<Result<_, _>>()?;
        let named: Vec<Laws> = row[5].split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let laws = if named.is_empty() { laws_for(pool.iter().map(|one| &one.row)) } else { named };
        Ok(Self { pool, targets: read(&row[2])?, laws })
    }

    fn question(&self, seed: u64) -> Question {
        Question {
            targets: self.targets.clone(),
            laws: self.laws.clone(),
            budget: 0.0,
            trunks: BTreeMap::new(),
            pending: Vec::new(),
            huber_delta: 1e-3,
            seed,
        }
    }

    /// The design's runs, scored at each budget.
    fn replay(&self, seed: u64) -> Vec<Score> {
        let whole: f64 = self.pool.iter().map(|one| one.cost).sum();
        let (mut replay, question) = (Replay::new(self.pool.clone(), seed), self.question(seed));
        let mut score = |share: f64| {
            replay.until(share * whole, &question, &mut |_| {});
            Score { r2: self.score(replay.seen()).unwrap_or(-1.0), runs: replay.seen().len() }
        };
        BUDGETS.iter().map(|share| score(*share)).collect()
    }

    fn score(&self, seen: &[Observation]) -> Option<f64> {
        let forecast = forecast(seen, &self.question(0))?;
        let mean = self.targets.iter().map(|row| row.loss).sum::<f64>() / self.targets.len() as f64;
        let pairs = self.targets.iter().zip(&forecast.losses);
        let (errors, spread) = pairs.fold((0.0, 0.0), |(errors, spread), (row, loss)| {
            (errors + (row.loss - loss).powi(2), spread + (row.loss - mean).powi(2))
        });
        Some((1.0 - errors / spread).max(-1.0))
    }
}
