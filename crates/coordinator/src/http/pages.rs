//! Lists page by page: a page begins after a word that the page before gave.

use std::ops::Range;
use std::str::FromStr;

use isoloss_wire::api::{Code, Page};

use crate::http::refusal::Refused;

/// Rows of a page when the question does not say, and at most.
pub(crate) const ROWS_MAX: usize = 1000;

/// A page as a range of rows and the word for the next one, where rows neither come nor go.
pub(crate) fn range(rows: usize, page: &Page, most: usize) -> Result<(Range<usize>, Option<String>), Refused> {
    let from = after::<usize>(page)?.unwrap_or(0).min(rows);
    let to = from.saturating_add(limit(page, most)).min(rows);
    Ok((from..to, (to < rows).then(|| to.to_string())))
}

/// A page of rows in ascending order of `key`, which no two share, and the word for the next one. Rows that come and go
/// in between are shown or not; all others are shown once.
pub(crate) fn cut<T, K: Ord + Mark>(
    mut rows: Vec<T>,
    page: &Page,
    key: impl Fn(&T) -> K,
) -> Result<(Vec<T>, Option<String>), Refused> {
    if let Some(after) = &page.after {
        let last = K::read(after).ok_or_else(|| nowhere(after))?;
        rows.retain(|row| key(row) > last);
    }
    let limit = limit(page, ROWS_MAX);
    let next = if rows.len() > limit { rows.get(limit - 1).map(|last| key(last).write()) } else { None };
    rows.truncate(limit);
    Ok((rows, next))
}

/// What a page can begin after.
pub(crate) trait Mark: Sized {
    fn read(word: &str) -> Option<Self>;
    fn write(&self) -> String;
}

impl Mark for String {
    fn read(word: &str) -> Option<Self> {
        Some(word.to_owned())
    }

    fn write(&self) -> String {
        self.clone()
    }
}

impl Mark for u64 {
    fn read(word: &str) -> Option<Self> {
        word.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl<K: Mark> Mark for std::cmp::Reverse<K> {
    fn read(word: &str) -> Option<Self> {
        K::read(word).map(Self)
    }

    fn write(&self) -> String {
        self.0.write()
    }
}

fn limit(page: &Page, most: usize) -> usize {
    page.limit.unwrap_or(most).clamp(1, most)
}

fn after<T: FromStr>(page: &Page) -> Result<Option<T>, Refused> {
    page.after.as_deref().map(|word| word.parse().map_err(|_| nowhere(word))).transpose()
}

fn nowhere(word: &str) -> Refused {
    Refused::new(Code::BadRequest, format!("no page begins after {word:?}"))
}
