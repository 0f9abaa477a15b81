//! What a word in a path means: a full id, a unique beginning of one, or a sweep's name.

use isoloss_sweep::{RunId, SweepId};
use isoloss_wire::api::Code;

use crate::authority::{RunView, SweepView};
use crate::daemon::App;
use crate::http::refusal::Refused;

/// Shorter beginnings are too easily something else.
const DIGITS_MIN: usize = 4;

/// All sweeps, newest first.
pub(crate) async fn all_sweeps(app: &App) -> Result<Vec<SweepView>, Refused> {
    let mut views = app.authority.sweeps().await?;
    views.sort_by_key(|view| std::cmp::Reverse(view.row.order));
    Ok(views)
}

/// The sweep of that id, beginning or name; of several with one name the newest.
pub(crate) async fn sweep(app: &App, word: &str) -> Result<SweepView, Refused> {
    if let Ok(id) = word.parse::<SweepId>() {
        return app.authority.sweep(id).await?.ok_or_else(|| Refused::not_found("sweep", word));
    }
    let mut views = all_sweeps(app).await?;
    if let Some(index) = views.iter().position(|view| view.row.name == word) {
        return Ok(views.swap_remove(index));
    }
    let ids = views.iter().map(|view| view.sweep_id.to_string());
    let index = beginning("sweep", word, ids)?;
    Ok(views.swap_remove(index))
}

/// The run of that id or beginning.
pub(crate) async fn run(app: &App, word: &str) -> Result<RunView, Refused> {
    let not_found = || Refused::not_found("run", word);
    if let Ok(id) = word.parse::<RunId>() {
        return app.authority.run(id).await?.ok_or_else(not_found);
    }
    let views = app.authority.sweeps().await?;
    let mut ids: Vec<RunId> = views.iter().flat_map(|view| view.runs.iter().map(|run| run.run_id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let index = beginning("run", word, ids.iter().map(RunId::to_string))?;
    app.authority.run(ids[index]).await?.ok_or_else(not_found)
}

/// Which of `ids` begins with `word`.
fn beginning(what: &str, word: &str, ids: impl Iterator<Item = String>) -> Result<usize, Refused> {
    if word.len() < DIGITS_MIN {
        return Err(Refused::not_found(what, word));
    }
    let mut matching = ids.enumerate().filter(|(_, id)| id.starts_with(word)).map(|(index, _)| index);
    match (matching.next(), matching.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Refused::not_found(what, word)),
        (Some(_), Some(_)) => Err(Refused::new(Code::Ambiguous, format!("more than one {what} begins with {word:?}"))),
    }
}
