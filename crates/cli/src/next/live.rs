//! A sweep of which only the runs that tell most are made: it is handed in held, a few of its runs at a time are let go, and
//! after each outcome the next are chosen anew. Whoever stops it loses nothing: the same command goes on from the results that
//! are there. Runs that other sweeps want are not touched.

use std::collections::BTreeSet;
use std::time::Duration;

use isoloss_fit::design::{Candidate, Question, choose, forecast, prices};
use isoloss_fit::{Observation, Pool};
use isoloss_sweep::RunId;
use isoloss_sweep::count::si;
use isoloss_wire::Client;
use isoloss_wire::api::{Kind, RunDetail, RunRow, RunState, Submit, Submitted, SweepRow};

use crate::exit::Exit;
use crate::next::aim::{self, Wish};
use crate::next::runs;
use crate::{print, submit, watch};

/// Between looks at the runs that were let go.
const LOOK: Duration = Duration::from_millis(300);
/// A worker that was not heard of for so long makes no runs.
const SILENT_SECONDS: f64 = 30.0;
/// All runs are compared with each other: beyond this a look takes many seconds.
const RUNS_MAX: usize = 1_000;

/// Hands the sweep in, makes the runs that the wish pays for, ends the sweep without the rest, and returns then.
pub(crate) async fn drive(
    client: &Client,
    submit: &Submit,
    wish: &Wish,
    stays: bool,
) -> Result<(Submitted, SweepRow), Exit> {
    let submit = Submit { hold: true, ..submit.clone() };
    let plan = client.plan(&submit).await?;
    let count = plan["runs"].as_array().map_or(0, Vec::len);
    if count > RUNS_MAX {
        return Err(Exit::usage(format!("--choose: {count} runs are more than {RUNS_MAX}; choose among fewer")));
    }
    let submitted = submit::hand_in(client, &submit).await?;
    let sweep = submitted.sweep_id.to_string();
    let results = client.results(&sweep).await?;
    let others: Vec<RunId> = runs::others(&results).map(|detail| detail.row.run_id).collect();
    if !others.is_empty() {
        let flops: f64 = runs::others(&results).map(|detail| detail.row.flops.get()).sum();
        print::note(&format!(
            "{} runs of experts are all made ({} FLOPs, beside the budget): the choice is among the dense ones",
            others.len(),
            si(flops)
        ));
        client.choose(&sweep, others).await?;
    }
    print::note(&format!("watch it at {}", client.server()));
    let design = Design { client, sweep: &sweep, wish, made: BTreeSet::new(), waited: false, told: 0 };
    let (end, ()) = tokio::try_join!(watch::follow(client, &sweep, stays), design.carry_out())?;
    Ok((submitted, end))
}

fn is_open(state: RunState) -> bool {
    matches!(state, RunState::Pending | RunState::Blocked)
}

/// One choice under way.
struct Design<'a> {
    client: &'a Client,
    sweep: &'a str,
    wish: &'a Wish,
    /// Runs that were let go, with or without an outcome yet.
    made: BTreeSet<RunId>,
    /// Whether it was said that nobody is there to make a run.
    waited: bool,
    /// Runs with a loss when it was last said what they tell.
    told: usize,
}

/// The sweep at one moment.
struct Moment {
    seen: Vec<Observation>,
    pool: Vec<Candidate>,
    /// Under way.
    pending: usize,
    /// What keeps slots busy: the clusters of runs that wait for their trunk, and other runs by id.
    busy: BTreeSet<String>,
    /// Trunks that have ended without what their branches need.
    dead: usize,
    /// Of what all runs cost, what is spent.
    share: f64,
    question: Question,
}

impl Design<'_> {
    async fn carry_out(mut self) -> Result<(), Exit> {
        loop {
            let slots = self.slots().await?;
            if slots == 0 {
                if !std::mem::replace(&mut self.waited, true) {
                    print::note("no worker is there yet: waiting for one");
                }
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let moment = self.look().await?;
            let picks = self.pick(&moment, slots);
            if picks.is_empty() && moment.pending == 0 && !self.others_go_on().await? {
                return self.finish(&moment).await;
            }
            let going = moment.pending + picks.len();
            if !picks.is_empty() {
                self.client.choose(self.sweep, picks.clone()).await?;
                self.made.extend(picks);
            }
            self.wait(going, moment.dead).await?;
        }
    }

    async fn look(&self) -> Result<Moment, Exit> {
        let results = self.client.results(self.sweep).await?;
        let mut pool = runs::sorted(&results);
        let whole = aim::whole(&pool);
        let leased = |detail: &RunDetail| detail.row.state == RunState::Leased;
        let made = |detail: &RunDetail| is_open(detail.row.state) && self.made.contains(&detail.row.run_id);
        // What somebody cancelled is not to be had, nor what lacks the checkpoint of a trunk that has ended.
        let dead = runs::dead_trunks(&results);
        let stuck = |detail: &RunDetail| {
            let cluster = || detail.run.trunk_id().is_some_and(|trunk| dead.contains(&trunk.to_string()));
            detail.row.state == RunState::Blocked && cluster()
        };
        let lost: BTreeSet<String> = runs::choosable(&results)
            .filter(|detail| detail.row.state == RunState::Cancelled || stuck(detail))
            .map(|detail| detail.row.run_id.to_string())
            .collect();
        let under_way: BTreeSet<String> = runs::choosable(&results)
            .filter(|detail| leased(detail) || (made(detail) && !lost.contains(&detail.row.run_id.to_string())))
            .map(|detail| detail.row.run_id.to_string())
            .collect();
        let mut question = self.wish.question(&mut pool);
        let Pool { known, open, spent, .. } = pool;
        let (pending, pool): (Vec<Candidate>, Vec<Candidate>) =
            open.into_iter().partition(|one| under_way.contains(&one.row.id));
        let pool = pool.into_iter().filter(|one| !lost.contains(&one.row.id)).collect();
        // Results that were there before count too, so that an interrupted choice goes on with what is left.
        question.budget -= spent + prices(pending.iter(), &question.trunks).iter().sum::<f64>();
        pending.iter().for_each(|one| one.extend(&mut question.trunks));
        question.pending = pending.iter().map(|one| one.row.clone()).collect();
        let blocked: BTreeSet<String> = runs::choosable(&results)
            .filter(|detail| detail.row.state == RunState::Blocked)
            .map(|detail| detail.row.run_id.to_string())
            .collect();
        let unit = |one: &Candidate| if blocked.contains(&one.row.id) { &one.row.cluster } else { &one.row.id }.clone();
        let busy = pending.iter().map(unit).collect();
        let seen = known.rows().to_vec();
        Ok(Moment { seen, pool, pending: pending.len(), busy, dead: dead.len(), share: spent / whole, question })
    }

    /// The runs to let go now: the first that fill the slots. A trunk fills one, however many branches wait for it.
    fn pick(&mut self, moment: &Moment, slots: usize) -> Vec<RunId> {
        if moment.busy.len() >= slots {
            return Vec::new();
        }
        let choice = choose(&moment.seen, &moment.pool, &moment.question);
        let enough = self.wish.until.zip(choice.deviation).is_some_and(|(until, [now, _])| now <= until);
        if let Some([now, _]) = choice.deviation
            && std::mem::replace(&mut self.told, moment.seen.len()) != moment.seen.len()
        {
            print::note(&format!(
                "{} runs, {:.1} % of the FLOPs of all: the loss at the target is known to {:.2} %",
                moment.seen.len(),
                100.0 * moment.share,
                100.0 * now
            ));
        }
        let (mut busy, mut trunks) = (moment.busy.clone(), moment.question.trunks.clone());
        let picks = choice.picks.iter().map(|at| &moment.pool[*at]).filter(|_| !enough);
        let picks = picks.take_while(|one| {
            let waits = one.price(&trunks) > one.cost;
            one.extend(&mut trunks);
            busy.insert(if waits { &one.row.cluster } else { &one.row.id }.clone());
            busy.len() <= slots
        });
        picks.filter_map(runs::id).collect()
    }

    async fn slots(&self) -> Result<usize, Exit> {
        let workers = self.client.workers().await?.workers;
        let there = workers.iter().filter(|worker| worker.silent_seconds < SILENT_SECONDS);
        Ok(there.map(|worker| worker.slots.len()).sum())
    }

    /// Whether runs that were not chosen among are still to be made.
    async fn others_go_on(&self) -> Result<bool, Exit> {
        let results = self.client.results(self.sweep).await?;
        let going = |detail: &RunDetail| is_open(detail.row.state) || detail.row.state == RunState::Leased;
        Ok(runs::others(&results).any(going))
    }

    /// Until fewer runs than `going` are under way or another trunk than `dead` has ended badly, or a moment has passed
    /// where there are none.
    async fn wait(&self, going: usize, dead: usize) -> Result<(), Exit> {
        loop {
            tokio::time::sleep(LOOK).await;
            let rows = self.client.runs(self.sweep).await?;
            let made = |row: &RunRow| self.made.contains(&row.run_id);
            let goes = |row: &&RunRow| {
                row.kind == Kind::Run
                    && row.experts.is_none()
                    && (row.state == RunState::Leased || (is_open(row.state) && made(row)))
            };
            let lost = rows.iter().filter(|row| row.kind == Kind::Trunk && runs::is_dead(row.state)).count();
            if going == 0 || lost != dead || rows.iter().filter(goes).count() < going {
                return Ok(());
            }
        }
    }

    /// Ends the sweep without what was not chosen, and says what is known.
    async fn finish(&self, moment: &Moment) -> Result<(), Exit> {
        self.client.order_sweep(self.sweep, "cancel").await?;
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
        print::note("what was not chosen is cancelled for this sweep; the same file without --choose makes it");
        Ok(())
    }
}
