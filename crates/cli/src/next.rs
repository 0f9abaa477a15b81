//! `next`: which runs to make next, for a sweep or for any table with a pool. The arithmetic is the `fit` crate's.

mod aim;
pub(crate) mod live;
mod runs;

use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use isoloss_fit::design::{Candidate, Forecast, Question, choose, forecast, prices};
use isoloss_fit::{Columns, Observation, Pool};
use isoloss_sweep::count::si;
use serde::Serialize;

use crate::args::{Format, NextArgs, Place};
use crate::exit::{Code, Done, Exit};
use crate::print;
use crate::remote::{block_on, connect};
use crate::table::Table;
pub(crate) use aim::Wish;

/// Version of the JSON form.
const SCHEMA_VERSION: u32 = 1;
/// Targets that are told one by one; the others are in the JSON.
const TARGETS_SHOWN: usize = 8;

pub(crate) fn run(place: &Place, args: &NextArgs) -> Done {
    let wish = Wish::new("--budget", &args.budget, &args.aim)?;
    if place.format() == Format::Csv {
        return Err(Exit::usage("next is a table or JSON"));
    }
    let pool = match (&args.from.csv, &args.from.sweep) {
        (Some(path), _) => of_table(path, args.from.map.as_deref().unwrap_or(""))?,
        (None, Some(sweep)) => {
            let client = connect(place)?;
            let results = block_on(async { Ok(client.results(sweep).await?) })?;
            runs::sorted(&results)
        }
        (None, None) => return Err(Exit::usage("name a sweep, or a table with --csv FILE")),
    };
    for line in crate::fit::excluded_lines(pool.known.rows().len(), pool.known.excluded()) {
        print::note(&line);
    }
    if pool.open.is_empty() {
        return Err(Exit::failure(
            "the pool is empty: every run has its loss (in a table, runs to make have an empty one)",
        ));
    }
    let advice = Advice::of(pool, &wish);
    match place.format() {
        Format::Json => print::json(&advice),
        Format::Table | Format::Csv => {
            print::text_block(&advice.text());
            Ok(())
        }
    }
}

fn of_table(path: &Path, map: &str) -> Result<Pool, Exit> {
    let columns = Columns::from_str(map).map_err(|e| Exit::usage(format!("--map: {e}")))?;
    let file =
        File::open(path).map_err(|e| Exit::new(Code::NotFound, format!("cannot read {}: {e}", path.display())))?;
    isoloss_fit::read_pool(file, &columns).map_err(|e| Exit::usage(format!("{}: {e}", path.display())))
}

/// What `next --json` prints.
#[derive(Debug, Serialize)]
struct Advice {
    schema_version: u32,
    /// Runs with a loss, and runs to choose from.
    seen: usize,
    pool: usize,
    budget: f64,
    picks: Vec<Pick>,
    /// Standard deviation of ln loss at the targets, root mean square, now and after the picks.
    deviation: Option<[f64; 2]>,
    targets: Vec<Target>,
    shares: Vec<(&'static str, f64)>,
    /// Why there is nothing more to do.
    stop: Option<String>,
}

#[derive(Debug, Serialize)]
struct Pick {
    id: String,
    params: f64,
    tokens: f64,
    cost: f64,
}

#[derive(Debug, Serialize)]
struct Target {
    params: f64,
    tokens: f64,
    /// Missing while there are too few runs for any law.
    loss: Option<f64>,
    deviation: Option<f64>,
}

impl Advice {
    fn of(mut pool: Pool, wish: &Wish) -> Self {
        let question = wish.question(&mut pool);
        let Pool { known, open: pool, .. } = pool;
        let seen = known.rows();
        let choice = choose(seen, &pool, &question);
        let told = forecast(seen, &question);
        let enough = wish.until.is_some_and(|until| choice.deviation.is_some_and(|[now, _]| now <= until));
        let picks = choice.picks.iter().map(|at| &pool[*at]);
        let picks = picks.clone().zip(prices(picks, &question.trunks)).filter(|_| !enough);
        let picks: Vec<Pick> = picks
            .map(|(one, cost)| Pick { id: one.row.id.clone(), params: one.row.params, tokens: one.row.tokens, cost })
            .collect();
        let stop = picks.is_empty().then(|| stop(enough, &pool, &question));
        Self {
            schema_version: SCHEMA_VERSION,
            seen: seen.len(),
            pool: pool.len(),
            budget: question.budget,
            deviation: choice.deviation.filter(|_| !enough),
            targets: targets(&question, told.as_ref()),
            shares: told.map(|told| told.shares).unwrap_or_default(),
            picks,
            stop,
        }
    }

    fn text(&self) -> String {
        let mut text =
            format!("{} runs so far, {} to choose from, {} to spend\n", self.seen, self.pool, si(self.budget));
        for target in self.targets.iter().take(TARGETS_SHOWN) {
            let loss = target.loss.zip(target.deviation);
            let loss = loss.map_or("no law can be fitted yet".to_owned(), |(loss, deviation)| {
                format!("loss {loss:.4} +- {:.2} %", 100.0 * deviation)
            });
            text.push_str(&format!("  target {} params, {} tokens: {loss}\n", si(target.params), si(target.tokens)));
        }
        if self.targets.len() > TARGETS_SHOWN {
            text.push_str(&format!("  and {} more; --json has them all\n", self.targets.len() - TARGETS_SHOWN));
        }
        if !self.shares.is_empty() {
            let shares: Vec<String> = self.shares.iter().map(|(law, share)| format!("{law} {share:.2}")).collect();
            text.push_str(&format!("  laws and their shares: {}\n", shares.join(", ")));
        }
        if let Some(stop) = &self.stop {
            text.push_str(&format!("stop here: {stop}\n"));
            return text;
        }
        match self.deviation {
            None => text.push_str("first runs, cheap and far apart; ask again when they are made:\n"),
            Some([before, after]) => text.push_str(&format!(
                "these runs, in this order, bring the deviation from {:.2} to {:.2} %; ask again after each few:\n",
                100.0 * before,
                100.0 * after
            )),
        }
        let mut table = Table::new(&["run", "params", "tokens", "cost", "together"]);
        let mut together = 0.0;
        for pick in &self.picks {
            together += pick.cost;
            let id = if pick.id.len() == 64 { pick.id.chars().take(12).collect() } else { pick.id.clone() };
            table.row(vec![id, si(pick.params), si(pick.tokens), si(pick.cost), si(together)]);
        }
        text + &table.render()
    }
}

/// What was found at each target.
fn targets(question: &Question, told: Option<&Forecast>) -> Vec<Target> {
    let target = |(at, row): (usize, &Observation)| Target {
        params: row.params,
        tokens: row.tokens,
        loss: told.map(|told| told.losses[at]),
        deviation: told.map(|told| told.deviations[at]),
    };
    question.targets.iter().enumerate().map(target).collect()
}

fn stop(enough: bool, pool: &[Candidate], question: &Question) -> String {
    let cheapest = pool.iter().map(|one| one.price(&question.trunks)).fold(f64::INFINITY, f64::min);
    match () {
        () if enough => "the loss at the target is known as well as was asked".to_owned(),
        () if pool.is_empty() => "all runs that are left are targets".to_owned(),
        () if cheapest > question.budget => {
            format!("the budget of {} does not pay for the cheapest run, {}", si(question.budget), si(cheapest))
        }
        () => "no run of the pool would make the loss at the target any surer".to_owned(),
    }
}
