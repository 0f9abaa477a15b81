//! How much of a finished grid would have been enough? Replays a design on the runs of a sweep and says at which share of the
//! grid's cost its error on the dearest fifth, which neither sees, comes down to that of the whole grid.
//!
//! `cargo run --release -p isoloss-fit --example replay -- runs.csv [COLUMNS] [SEEDS]`, with columns as in `fit --map`.

use std::collections::BTreeMap;
use std::error::Error;

use isoloss_fit::design::{Candidate, Question, Replay, forecast, laws_for};
use isoloss_fit::{Columns, Observation, read_csv};

const TARGET_SHARE: f64 = 0.2;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("expected a table of runs")?;
    let columns: Columns = args.next().unwrap_or_default().parse()?;
    let seeds: u64 = args.next().map_or(Ok(20), |text| text.parse())?;
    let mut rows = read_csv(std::fs::File::open(&path)?, &columns)?.rows().to_vec();
    rows.retain(Observation::is_dense);
    rows.sort_by(|a, b| a.flops.total_cmp(&b.flops));
    let kept = rows.len() - (TARGET_SHARE * rows.len() as f64).round() as usize;
    let targets = rows.split_off(kept);
    let whole: f64 = rows.iter().map(|row| row.flops).sum();
    let question = |seed| Question {
        targets: targets.clone(),
        laws: laws_for(rows.iter()),
        budget: 0.0,
        trunks: BTreeMap::new(),
        pending: Vec::new(),
        huber_delta: 1e-3,
        seed,
    };
    let error = |seen: &[Observation]| -> Option<f64> {
        let told = forecast(seen, &question(0))?;
        let pairs = targets.iter().zip(&told.losses);
        Some(pairs.map(|(row, loss)| (loss / row.loss - 1.0).abs()).sum::<f64>() / targets.len() as f64)
    };
    let grid = error(&rows).ok_or("the runs are too few for any law")?;
    println!("{} runs, {} targets, error of the whole grid {:.3} %", rows.len(), targets.len(), 100.0 * grid);
    println!("{:>5} {:>6} {:>9}  error in % after so many % of the cost", "seed", "runs", "reached");
    let (mut reached, mut third) = (Vec::new(), Vec::new());
    for seed in 1..=seeds {
        let pool = rows.iter().map(|row| Candidate { cost: row.flops, trunk: 0.0, row: row.clone() }).collect();
        let mut replay = Replay::new(pool, seed);
        let mut path: Vec<(f64, usize, f64)> = Vec::new();
        let mut look = |replay: &Replay| {
            let error = error(replay.seen()).unwrap_or(f64::INFINITY);
            path.push((replay.spent() / whole, replay.seen().len(), error));
        };
        replay.until(whole / 3.0, &question(seed), &mut look);
        third.push(error(replay.seen()).unwrap_or(f64::INFINITY));
        replay.until(whole, &question(seed), &mut look);
        let first = path.iter().find(|(_, _, error)| *error <= grid);
        let shown: Vec<String> = path
            .iter()
            .step_by((path.len() / 8).max(1))
            .map(|(share, _, error)| format!("{:.2} at {:.0}", 100.0 * error, 100.0 * share))
            .collect();
        let (share, runs, _) = first.copied().unwrap_or((1.0, rows.len(), grid));
        println!("{seed:>5} {runs:>6} {:>7.1} %  {}", 100.0 * share, shown.join(", "));
        reached.push(share);
    }
    println!("reached first at {:.1} % of the cost (median)", 100.0 * median(reached));
    println!(
        "after a third of the cost: error {:.3} % (median), the whole grid {:.3} %",
        100.0 * median(third),
        100.0 * grid
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    0.5 * (values[(values.len() - 1) / 2] + values[values.len() / 2])
}
