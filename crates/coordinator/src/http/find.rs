//! What a word in a path means: a full id, a unique beginning of one, or a sweep's name. Of several sweeps of one name
//! a reader gets the newest live one and is told so; an order is refused.

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use isoloss_sweep::{RunId, SweepId};
use isoloss_wire::api::{Code, NOTE_HEADER, Phase};

use crate::authority::{Head, RunView};
use crate::daemon::App;
use crate::http::refusal::Refused;

/// Shorter beginnings are too easily something else.
const DIGITS_MIN: usize = 4;

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
pub(crate) async fn sweep(app: &App, word: &str) -> Result<Noted<Head>, Refused> {
    let mut named = sweeps(app, word).await?;
    if let [_] = named[..] {
        return Ok(Noted(None, named.swap_remove(0)));
    }
    let phases = phases(app, &named).await?;
    let live = phases.iter().position(|phase| phase.is_live()).unwrap_or(0);
    let all: Vec<String> = named.iter().zip(&phases).map(candidate).collect();
    let others: Vec<&str> = (0..all.len()).filter(|index| *index != live).map(|index| all[index].as_str()).collect();
    let note = format!("{} sweeps are called {word}: this is {}, not {}", named.len(), all[live], others.join(", "));
    Ok(Noted(Some(note), named.swap_remove(live)))
}

/// The sweep to give an order to: a name that several bear names none of them.
pub(crate) async fn one_sweep(app: &App, word: &str) -> Result<Head, Refused> {
    let mut named = sweeps(app, word).await?;
    if named.len() > 1 {
        let phases = phases(app, &named).await?;
        let candidates: Vec<String> = named.iter().zip(&phases).map(candidate).collect();
        let detail =
            format!("{} sweeps are called {word:?}; name one by its id: {}", named.len(), candidates.join(", "));
        return Err(Refused::new(Code::Ambiguous, detail));
    }
    Ok(named.swap_remove(0))
}

async fn phases(app: &App, heads: &[Head]) -> Result<Vec<Phase>, Refused> {
    let mut phases = Vec::with_capacity(heads.len());
    for head in heads {
        phases.push(app.summary(head).await?.phase(head));
    }
    Ok(phases)
}

fn candidate((head, phase): (&Head, &Phase)) -> String {
    format!("{} ({})", head.sweep_id.short(), phase.name())
}

/// The sweep of that id or beginning, or all of that name, newest first; at least one.
async fn sweeps(app: &App, word: &str) -> Result<Vec<Head>, Refused> {
    if let Ok(id) = word.parse::<SweepId>() {
        let head = app.authority.head(id).await?;
        return head.map(|head| vec![head]).ok_or_else(|| Refused::not_found("sweep", word));
    }
    let mut heads = app.authority.heads().await?;
    if heads.iter().any(|head| head.name == word) {
        heads.retain(|head| head.name == word);
        return Ok(heads);
    }
    heads.retain(|head| word.len() >= DIGITS_MIN && head.sweep_id.to_string().starts_with(word));
    let only = one("sweep", word, heads)?;
    Ok(vec![only])
}

/// The run of that id or beginning.
pub(crate) async fn run(app: &App, word: &str) -> Result<RunView, Refused> {
    let not_found = || not_found("run", word);
    let id = match word.parse::<RunId>() {
        Ok(id) => id,
        Err(_) if word.len() < DIGITS_MIN => return Err(not_found()),
        Err(_) => {
            let digits = word.to_owned();
            one("run", word, app.authority.read(move |truth| truth.beginning_with(&digits)).await?)?
        }
    };
    app.authority.run(id).await?.ok_or_else(not_found)
}

/// Nothing goes by that word, or it is too short for a beginning of an id.
fn not_found(what: &str, word: &str) -> Refused {
    let is_beginning = word.len() < DIGITS_MIN && !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_beginning {
        true => Refused::new(
            Code::NotFound,
            format!("no {what} {word:?} here: the beginning of an id has {DIGITS_MIN} digits or more"),
        ),
        false => Refused::not_found(what, word),
    }
}

/// The only one of those that begin with `word`.
fn one<T>(what: &str, word: &str, mut matching: Vec<T>) -> Result<T, Refused> {
    match matching.len() {
        1 => Ok(matching.swap_remove(0)),
        0 => Err(not_found(what, word)),
        _ => Err(Refused::new(Code::Ambiguous, format!("more than one {what} begins with {word:?}"))),
    }
}
