//! What a word in a path means: a full id, a unique beginning of one, or a sweep's name. Of several sweeps of one name
//! a reader gets the newest live one and is told so; an order is refused.

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use isoloss_sweep::{RunId, SweepId};
use isoloss_wire::api::{Code, NOTE_HEADER};

use crate::authority::{RunView, SweepView};
use crate::daemon::App;
use crate::http::refusal::Refused;
use crate::rows;

/// Shorter beginnings are too easily something else.
const DIGITS_MIN: usize = 4;

/// All sweeps, newest first.
pub(crate) async fn all_sweeps(app: &App) -> Result<Vec<SweepView>, Refused> {
    let mut views = app.authority.sweeps().await?;
    views.sort_by_key(|view| std::cmp::Reverse(view.row.order));
    Ok(views)
}

/// An answer, and what its reader should know besides.
pub(crate) struct Noted<T>(pub(crate) Option<String>, pub(crate) T);

impl<T: IntoResponse> IntoResponse for Noted<T> {
    fn into_response(self) -> Response {
        let mut response = self.1.into_response();
        if let Some(note) = self.0.and_then(|note| HeaderValue::try_from(note).ok()) {
            response.headers_mut().insert(NOTE_HEADER, note);
        }
        response
    }
}

/// The sweep to read by that id, beginning or name; of several with one name the newest live one, with a note.
pub(crate) async fn sweep(app: &App, word: &str) -> Result<Noted<SweepView>, Refused> {
    let mut named = sweeps(app, word).await?;
    let live = named.iter().position(|view| rows::phase(view).is_live()).unwrap_or(0);
    let note = (named.len() > 1).then(|| {
        let taken = candidate(&named[live]);
        let others: Vec<String> =
            named.iter().filter(|view| view.sweep_id != named[live].sweep_id).map(candidate).collect();
        format!("{} sweeps are called {word}: this is {taken}, not {}", named.len(), others.join(", "))
    });
    Ok(Noted(note, named.swap_remove(live)))
}

/// The sweep to give an order to: a name that several bear names none of them.
pub(crate) async fn one_sweep(app: &App, word: &str) -> Result<SweepView, Refused> {
    let mut named = sweeps(app, word).await?;
    if named.len() > 1 {
        let candidates: Vec<String> = named.iter().map(candidate).collect();
        let detail =
            format!("{} sweeps are called {word:?}; name one by its id: {}", named.len(), candidates.join(", "));
        return Err(Refused::new(Code::Ambiguous, detail));
    }
    Ok(named.swap_remove(0))
}

fn candidate(view: &SweepView) -> String {
    format!("{} ({})", view.sweep_id.short(), rows::phase(view).name())
}

/// The sweep of that id or beginning, or all of that name, newest first; at least one.
async fn sweeps(app: &App, word: &str) -> Result<Vec<SweepView>, Refused> {
    if let Ok(id) = word.parse::<SweepId>() {
        let view = app.authority.sweep(id).await?;
        return view.map(|view| vec![view]).ok_or_else(|| Refused::not_found("sweep", word));
    }
    let mut views = all_sweeps(app).await?;
    if views.iter().any(|view| view.row.name == word) {
        views.retain(|view| view.row.name == word);
        return Ok(views);
    }
    let ids = views.iter().map(|view| view.sweep_id.to_string());
    let index = beginning("sweep", word, ids)?;
    Ok(vec![views.swap_remove(index)])
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
