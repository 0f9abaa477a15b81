//! Are the intervals true? Rolling hold-out over public tables of runs: fit the cheaper runs, predict the next dearer ones, and
//! count how many losses lie inside intervals of 90 and 50 %.
//!
//! `cargo run --release -p isoloss-fit --example calibration -- FOLDER`, where FOLDER holds the tables that
//! `calibration.csv` names, with their columns, rows and law. Nothing is learned from one table for another.

use std::error::Error;
use std::path::Path;

use isoloss_fit::{Asked, Columns, Observation, Observations, Settings, fit, read_csv};

/// Shares of the runs, by cost, at which the fits end; each predicts the runs up to the next.
const WINDOWS: [f64; 6] = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
const LEVELS: [f64; 2] = [0.9, 0.5];
const RESAMPLES: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("expected the folder of the tables")?;
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/calibration.csv");
    println!("{:<18} {:>5} {:>5} {:>7} {:>7} {:>9}", "table", "runs", "held", "in 90 %", "in 50 %", "error");
    let mut sums = [0.0; 2];
    let mut tables = 0.0;
    for row in csv::Reader::from_path(manifest)?.records() {
        let row = row?;
        let observations = table(&Path::new(&folder).join(&row[1]), &row[2], &row[3])?;
        let score = score(&observations, &row[4])?;
        println!(
            "{:<18} {:>5} {:>5} {:>5.0} % {:>5.0} % {:>7.2} %",
            &row[0],
            observations.rows().len(),
            score.held,
            100.0 * score.inside[0],
            100.0 * score.inside[1],
            100.0 * score.error
        );
        sums.iter_mut().zip(score.inside).for_each(|(sum, inside)| *sum += inside);
        tables += 1.0;
    }
    let [ninety, fifty] = sums.map(|sum| 100.0 * sum / tables);
    println!("{:<18} {:>5} {:>5} {ninety:>5.0} % {fifty:>5.0} %", "mean of tables", "", "");
    Ok(())
}

/// The rows of a table for which `column=value` holds, all of them where nothing is asked.
fn table(path: &Path, columns: &str, keep: &str) -> Result<Observations, Box<dyn Error>> {
    let mut reader = csv::Reader::from_path(path)?;
    let header = reader.headers()?.clone();
    let mut kept = csv::Writer::from_writer(Vec::new());
    kept.write_record(&header)?;
    // `a=1&b=2|c=3`: any of the groups, all of a group.
    let cell = |record: &csv::StringRecord, column: &str| {
        header.iter().position(|name| name == column).and_then(|at| record.get(at).map(str::to_owned))
    };
    let holds = |record: &csv::StringRecord, group: &str| {
        let mut pairs = group.split('&').filter_map(|pair| pair.split_once('='));
        pairs.all(|(column, value)| cell(record, column).as_deref() == Some(value))
    };
    for record in reader.records() {
        let record = record?;
        if keep.split('|').any(|group| holds(&record, group)) {
            kept.write_record(&record)?;
        }
    }
    Ok(read_csv(kept.into_inner()?.as_slice(), &columns.parse::<Columns>()?)?)
}

struct Score {
    held: usize,
    inside: [f64; 2],
    error: f64,
}

fn score(observations: &Observations, law: &str) -> Result<Score, Box<dyn Error>> {
    let mut rows: Vec<Observation> = observations.rows().to_vec();
    rows.sort_by(|a, b| a.flops.total_cmp(&b.flops));
    let (mut held, mut inside, mut error) = (0, [0; 2], 0.0);
    for window in WINDOWS.windows(2) {
        let [from, to] = [window[0], window[1]].map(|share| (share * rows.len() as f64).round() as usize);
        let near = Observations::new(rows[..from].to_vec(), Vec::new(), observations.convention());
        let far = &rows[from..to];
        for (at, level) in LEVELS.into_iter().enumerate() {
            let asked = |row: &Observation| Asked {
                tokens_unique: row.tokens_unique,
                experts: row.experts.map(f64::from),
                ..Asked::dense(row.params, row.tokens)
            };
            let predict = far.iter().map(asked).collect();
            let settings = Settings { laws: law.parse()?, level, resamples: RESAMPLES, predict, ..Settings::default() };
            let record = fit(&near, &settings, &mut |_| {});
            for (prediction, row) in record.predictions.iter().zip(far) {
                let [low, high] = prediction.interval;
                inside[at] += usize::from((low..=high).contains(&row.loss));
                if at == 0 {
                    held += 1;
                    error += (prediction.loss / row.loss - 1.0).abs();
                }
            }
        }
    }
    let count = f64::from(u32::try_from(held.max(1))?);
    Ok(Score { held, inside: inside.map(|inside| inside as f64 / count), error: error / count })
}
