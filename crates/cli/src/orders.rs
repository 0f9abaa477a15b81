//! `cancel`, `pause`, `resume`, `retry`: orders to the coordinator about a sweep or a run.

use isoloss_wire::Client;
use isoloss_wire::api::{Changed, Code as Problem};

use crate::args::Place;
use crate::exit::{Code, Done, Exit};
use crate::print;
use crate::remote::{block_on, connect};

/// Cancels a sweep, or a run when no sweep goes by that word.
pub(crate) fn cancel(place: &Place, target: &str) -> Done {
    let client = connect(place)?;
    block_on(async {
        let changed = order(&client, target, "cancel").await?;
        print::note(&told(&changed, &format!("cancelled {} run(s); results so far stay", changed.runs)));
        Ok(())
    })
}

/// Pauses or resumes a sweep, or a run when no sweep goes by that word.
pub(crate) fn hold(place: &Place, target: &str, action: &str) -> Done {
    let client = connect(place)?;
    block_on(async {
        let changed = order(&client, target, action).await?;
        print::note(&told(&changed, &format!("{action}: {} run(s) changed", changed.runs)));
        Ok(())
    })
}

/// Gives the failed runs of a sweep another try.
pub(crate) fn retry_failed(place: &Place, sweep: &str) -> Done {
    let client = connect(place)?;
    block_on(async {
        let changed = client.order_sweep(sweep, "retry").await?;
        print::note(&told(&changed, &format!("retry: {} run(s) changed", changed.runs)));
        Ok(())
    })
}

/// Gives one run another try.
pub(crate) fn retry(place: &Place, run: &str) -> Done {
    let client = connect(place)?;
    block_on(async {
        match client.order_run(run, "retry").await {
            Err(error) if error.code() == Some(Problem::NotFound) && client.sweep(run).await.is_ok() => Err(
                Exit::usage(format!("{run} is a sweep: `isoloss retry --failed {run}` tries its failed runs again")),
            ),
            answer => {
                print::note(&told(&answer?, &format!("retry: run {run} starts afresh")));
                Ok(())
            }
        }
    })
}

/// An order to a sweep, or to a run when no sweep goes by that word.
async fn order(client: &Client, target: &str, action: &str) -> Result<Changed, Exit> {
    match client.order_sweep(target, action).await {
        Err(error) if error.code() == Some(Problem::NotFound) => {}
        answer => return Ok(answer?),
    }
    match client.order_run(target, action).await {
        Err(error) if error.code() == Some(Problem::NotFound) => {
            Err(Exit::new(Code::NotFound, format!("no sweep goes by that word, and {error}")))
        }
        answer => Ok(answer?),
    }
}

/// Why nothing changed, where the coordinator says so.
fn told(changed: &Changed, done: &str) -> String {
    changed.note.clone().unwrap_or_else(|| done.to_owned())
}
