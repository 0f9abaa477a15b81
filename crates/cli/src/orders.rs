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
            Err(error) if error.code() == Some(Problem::NotFound) => client.cancel_run(target).await?,
            answer => answer?,
        };
        print::note(&told(&changed, &format!("cancelled {} run(s); results so far stay", changed.runs)));
        Ok(())
    })
}

/// `action` is `pause`, `resume` or `retry`.
pub(crate) fn sweep(place: &Place, sweep: &str, action: &str) -> Done {
    let client = connect(place)?;
    block_on(async {
        let changed = client.order_sweep(sweep, action).await?;
        print::note(&told(&changed, &format!("{action}: {} run(s) changed", changed.runs)));
        Ok(())
    })
}

/// Why nothing changed, where the coordinator says so.
fn told(changed: &Changed, done: &str) -> String {
    changed.note.clone().unwrap_or_else(|| done.to_owned())
}
