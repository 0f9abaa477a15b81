//! `cancel`, `pause`, `resume`, `retry`: orders to the coordinator about a sweep or a run.

use isoloss_wire::api::{Changed, Code as Problem};

use crate::args::Place;
use crate::exit::Done;
use crate::print;
use crate::remote::{block_on, connect};

/// Cancels a sweep, or a run when no sweep goes by that word.
pub(crate) fn cancel(place: &Place, target: &str) -> Done {
    let client = connect(place)?;
    block_on(async {
        let changed = match client.order_sweep(target, "cancel").await {
            Err(error) if error.code() == Some(Problem::NotFound) => client.order_run(target, "cancel").await?,
            answer => answer?,
        };
        print::note(&told(&changed, &format!("cancelled {} run(s); results so far stay", changed.runs)));
        Ok(())
    })
}

/// Pauses or resumes a sweep, or a run when no sweep goes by that word.
pub(crate) fn hold(place: &Place, target: &str, action: &str) -> Done {
    let client = connect(place)?;
    block_on(async {
        let changed = match client.order_sweep(target, action).await {
            Err(error) if error.code() == Some(Problem::NotFound) => client.order_run(target, action).await?,
            answer => answer?,
        };
        print::note(&told(&changed, &format!("{action}: {} run(s) changed", changed.runs)));
        Ok(())
    })
}

/// Gives the failed runs of a sweep another try.
pub(crate) fn retry(place: &Place, sweep: &str) -> Done {
    let client = connect(place)?;
    block_on(async {
        let changed = client.order_sweep(sweep, "retry").await?;
        print::note(&told(&changed, &format!("retry: {} run(s) changed", changed.runs)));
        Ok(())
    })
}

/// Why nothing changed, where the coordinator says so.
fn told(changed: &Changed, done: &str) -> String {
    changed.note.clone().unwrap_or_else(|| done.to_owned())
}
