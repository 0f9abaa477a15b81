//! A sweep of which only the runs that tell most are made: all are held back, a few at a time are let go, and after each
//! outcome the next are chosen anew. Whoever stops it loses nothing: the same command goes on from the results that are there.

use std::collections::BTreeSet;
use std::time::Duration;

use isoloss_fit::Observation;
use isoloss_fit::design::{Candidate, Question, choose, forecast};
use isoloss_sweep::count::si;
use isoloss_wire::Client;
use isoloss_wire::api::{RunDetail, RunRow, RunState, Submit, Submitted, SweepRow};

use crate::exit::Exit;
use crate::next::aim::Wish;
use crate::next::runs;
use crate::{print, submit, watch};

/// Between looks at the runs that were let go.
const LOOK: Duration = Duration::from_millis(300);
/// A worker that was not heard of for so long makes no runs.
const SILENT_SECONDS: f64 = 30.0;
/// A design follows this many runs; each was held back by an order of its own.
const RUNS_MAX: usize = 5_000;

/// Hands the sweep in, makes the runs that the wish pays for, cancels the rest, and returns when all has ended.
pub(crate) async fn drive(
    client: &Client,
    submit: &Submit,
    wish: &Wish,
    stays: bool,
) -> Result<(Submitted, SweepRow), Exit> {
    let submitted = submit::hand_in(client, &Submit { hold: true, ..submit.clone() }).await?;
    let sweep = submitted.sweep_id.to_string();
    let results = client.results(&sweep).await?;
    if let Some(reason) = refusal(&results) {
        client.order_sweep(&sweep, "cancel").await?;
        return Err(Exit::usage(format!("--choose: {reason}")));
    }
    // The sweep as a whole was held back by its admission; from here on its runs are, one by one.
    for detail in runs::choosable(&results).filter(|detail| is_open(detail.row.state)) {
        client.order_run(&detail.row.run_id.to_string(), "pause").await?;
    }
    client.order_sweep(&sweep, "resume").await?;
    print::note(&format!("watch it at {}", client.server()));
    let design = Design::new(client, &sweep, wish);
    let (end, ()) = tokio::try_join!(watch::follow(client, &sweep, stays), design.carry_out())?;
    Ok((submitted, end))
}

/// Lets all runs of a sweep go: some may have been held back by a choice that was not carried to its end.
pub(crate) async fn release(client: &Client, sweep: &str) -> Result<(), Exit> {
    client.order_sweep(sweep, "resume").await?;
    let held = client.runs(sweep).await?.into_iter().filter(|row| is_open(row.state));
    for row in held {
        client.order_run(&row.run_id.to_string(), "resume").await?;
    }
    Ok(())
}

fn refusal(results: &[RunDetail]) -> Option<String> {
    if results.iter().any(|detail| detail.run.trunk_id().is_some()) {
        return Some(
            "branches of a trunk are not chosen one by one, their trunk trains to its last; take schedule = \"cosine\""
                .to_owned(),
        );
    }
    let count = results.len();
    (count > RUNS_MAX).then(|| format!("{count} runs are more than {RUNS_MAX}"))
}

fn is_open(state: RunState) -> bool {
    matches!(state, RunState::Pending | RunState::Blocked)
}

/// One choice under way.
struct Design<'a> {
    client: &'a Client,
    sweep: &'a str,
    wish: &'a Wish,
    /// Ids of the runs that were let go, with or without an outcome yet.
    made: BTreeSet<String>,
}

/// The sweep at one moment.
struct Moment {
    seen: Vec<Observation>,
    pool: Vec<Candidate>,
    /// Under way.
    pending: Vec<Candidate>,
    whole: f64,
    question: Question,
}

impl<'a> Design<'a> {
    fn new(client: &'a Client, sweep: &'a str, wish: &'a Wish) -> Self {
        Self { client, sweep, wish, made: BTreeSet::new() }
    }

    async fn carry_out(mut self) -> Result<(), Exit> {
        loop {
            let moment = self.look().await?;
            let slots = self.slots().await?;
            if slots == 0 {
                // Nobody is there yet to make a run.
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let free = slots.saturating_sub(moment.pending.len());
            let picks = if free == 0 { Vec::new() } else { self.pick(&moment, free) };
            if picks.is_empty() && moment.pending.is_empty() {
                return self.finish(&moment).await;
            }
            for id in picks {
                self.client.order_run(&id, "resume").await?;
                self.made.insert(id);
            }
            self.wait().await?;
        }
    }

    async fn look(&self) -> Result<Moment, Exit> {
        let results = self.client.results(self.sweep).await?;
        let (known, mut open) = runs::sorted(&results);
        let leased = |detail: &RunDetail| detail.row.state == RunState::Leased;
        let under_way: BTreeSet<String> = runs::choosable(&results)
            .map(|detail| (detail, detail.row.run_id.to_string()))
            .filter(|(detail, id)| leased(detail) || (is_open(detail.row.state) && self.made.contains(id)))
            .map(|(_, id)| id)
            .collect();
        let whole =
            known.rows().iter().map(|row| row.flops).sum::<f64>() + open.iter().map(|one| one.cost).sum::<f64>();
        let mut question = self.wish.question(known.rows(), &mut open);
        let (pending, pool): (Vec<Candidate>, Vec<Candidate>) =
            open.into_iter().partition(|one| under_way.contains(&one.row.id));
        // Results that were there before count too, so that an interrupted choice goes on with what is left.
        let spent: f64 = known.rows().iter().map(|row| row.flops).sum();
        question.budget -= spent + pending.iter().map(|one| one.cost).sum::<f64>();
        question.pending = pending.iter().map(|one| one.row.clone()).collect();
        Ok(Moment { seen: known.rows().to_vec(), pool, pending, whole, question })
    }

    /// The runs to let go now.
    fn pick(&self, moment: &Moment, free: usize) -> Vec<String> {
        let choice = choose(&moment.seen, &moment.pool, &moment.question);
        let enough = self.wish.until.zip(choice.deviation).is_some_and(|(until, [now, _])| now <= until);
        if let Some([now, _]) = choice.deviation {
            self.tell(moment, now);
        }
        let picks = choice.picks.into_iter().filter(|_| !enough).take(free);
        picks.map(|at| moment.pool[at].row.id.clone()).collect()
    }

    fn tell(&self, moment: &Moment, deviation: f64) {
        let spent: f64 = moment.seen.iter().map(|row| row.flops).sum();
        print::note(&format!(
            "{} runs, {:.1} % of the FLOPs of all: the loss at the target is known to {:.2} %",
            moment.seen.len(),
            100.0 * spent / moment.whole,
            100.0 * deviation
        ));
    }

    async fn slots(&self) -> Result<usize, Exit> {
        let workers = self.client.workers().await?.workers;
        let there = workers.iter().filter(|worker| worker.silent_seconds < SILENT_SECONDS);
        Ok(there.map(|worker| worker.slots.len()).sum())
    }

    /// Until a run that was let go has ended, or a moment has passed in which there was none to wait for.
    async fn wait(&self) -> Result<(), Exit> {
        let mut before = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let rows = self.client.runs(self.sweep).await?;
            let made = |row: &RunRow| self.made.contains(&row.run_id.to_string());
            let going = |row: &&RunRow| row.state == RunState::Leased || (is_open(row.state) && made(row));
            let going = rows.iter().filter(going).count();
            if going == 0 || before.is_some_and(|before| going < before) {
                return Ok(());
            }
            before = Some(going);
        }
    }

    /// Cancels what was not chosen, and says what is known.
    async fn finish(&self, moment: &Moment) -> Result<(), Exit> {
        let rows = moment.pool.iter().map(|one| &one.row).chain(&moment.question.targets);
        let left: BTreeSet<&str> = rows.map(|row| row.id.as_str()).collect();
        for run in self.client.runs(self.sweep).await?.iter().filter(|row| is_open(row.state)) {
            let id = run.run_id.to_string();
            if !left.contains(id.as_str()) {
                continue;
            }
            self.client.order_run(&id, "cancel").await?;
            // Whoever wants the run later must not find it held back.
            self.client.order_run(&id, "resume").await?;
        }
        let Some(told) = forecast(&moment.seen, &moment.question) else {
            print::note("too few runs for any law: the budget pays for no more");
            return Ok(());
        };
        for (target, (loss, deviation)) in moment.question.targets.iter().zip(told.losses.iter().zip(&told.deviations))
        {
            print::note(&format!(
                "target {} params, {} tokens: {loss:.4} +- {:.2} %",
                si(target.params),
                si(target.tokens),
                100.0 * deviation
            ));
        }
        Ok(())
    }
}
