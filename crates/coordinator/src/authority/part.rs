//! Parts of a sweep. A look at the truth holds everybody else up, so nobody clones a whole sweep of many runs in one.

use std::ops::Range;

use isoloss_store::ledger::Member;
use isoloss_store::{Name, SweepRow};
use isoloss_sweep::{RunId, SweepId};
use jiff::Timestamp;

use super::request::{Authority, Gone};
use super::view::{RunView, Truth};

/// Runs in one look: some milliseconds of the authority's time.
pub const PART: usize = 500;

/// A sweep without its runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub sweep_id: SweepId,
    pub name: String,
    /// Rises with every admission.
    pub order: u64,
    pub submitted_at: Timestamp,
    pub cancelled: bool,
    pub paused: bool,
    /// Runs and trunks.
    pub members: usize,
}

impl Head {
    fn new(sweep_id: SweepId, row: &SweepRow) -> Self {
        Self {
            sweep_id,
            name: row.name.clone(),
            order: row.order,
            // A time that is none is shown as the oldest.
            submitted_at: Timestamp::from_millisecond(row.submitted_at_ms).unwrap_or(Timestamp::UNIX_EPOCH),
            cancelled: row.cancelled,
            paused: row.paused,
            members: row.members.len(),
        }
    }
}

/// A run with the sweep's own name for its arm.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberView {
    pub arm: Name,
    pub run: RunView,
}

impl Truth<'_> {
    /// Every sweep, newest first.
    pub fn heads(&self) -> Vec<Head> {
        let mut heads: Vec<Head> = self.store.ledger().sweeps().map(|(id, row)| Head::new(id, row)).collect();
        heads.sort_by_key(|head| std::cmp::Reverse(head.order));
        heads
    }

    pub fn head(&self, sweep_id: SweepId) -> Option<Head> {
        self.store.ledger().sweep(sweep_id).map(|row| Head::new(sweep_id, row))
    }

    /// The members of a sweep at these places of its plan, as far as there are any.
    pub fn part(&self, sweep_id: SweepId, places: Range<usize>) -> Vec<MemberView> {
        let members = self.store.ledger().sweep(sweep_id).map_or(&[][..], |row| &row.members);
        let view = |member: &Member| Some(MemberView { arm: member.arm.clone(), run: self.run(member.run_id)? });
        members.iter().skip(places.start).take(places.len()).filter_map(view).collect()
    }

    /// The first two runs whose ids begin with these hexadecimal digits.
    pub fn beginning_with(&self, word: &str) -> Vec<RunId> {
        let ids = self.store.ledger().runs().map(|(id, _)| id);
        ids.filter(|id| begins(id, word)).take(2).collect()
    }
}

/// Digit by digit: writing out the ids of all runs would take as long as all else together.
fn begins(id: &RunId, word: &str) -> bool {
    let digit = |index: usize| {
        let byte = id.0.as_bytes().get(index / 2)?;
        char::from_digit(u32::from(if index.is_multiple_of(2) { byte >> 4 } else { byte & 15 }), 16)
    };
    word.chars().enumerate().all(|(index, wanted)| digit(index) == Some(wanted))
}

impl Authority {
    /// Every sweep without its runs, newest first.
    #[expect(clippy::redundant_closure_for_method_calls, reason = "the path of the method fixes one lifetime")]
    pub async fn heads(&self) -> Result<Vec<Head>, Gone> {
        self.read(|truth| truth.heads()).await
    }

    pub async fn head(&self, sweep_id: SweepId) -> Result<Option<Head>, Gone> {
        self.read(move |truth| truth.head(sweep_id)).await
    }

    /// Members of a sweep by their places in its plan, read in looks of [`PART`] runs.
    pub async fn part(&self, sweep_id: SweepId, places: Range<usize>) -> Result<Vec<MemberView>, Gone> {
        let mut members = Vec::with_capacity(places.len().min(PART));
        for start in places.clone().step_by(PART) {
            let places = start..places.end.min(start + PART);
            members.extend(self.read(move |truth| truth.part(sweep_id, places)).await?);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use isoloss_sweep::Digest;

    use super::*;

    #[test]
    fn beginnings_are_told_digit_by_digit() {
        let id = RunId(Digest::of(b"run"));
        let text = id.to_string();
        for length in 0..=text.len() {
            assert!(begins(&id, &text[..length]));
        }
        let other = if text.starts_with('0') { '1' } else { '0' };
        assert!(!begins(&id, &other.to_string()) && !begins(&id, &format!("{text}0")) && !begins(&id, "é"));
        assert!(!begins(&id, &text[..8].to_uppercase()) || text[..8] == text[..8].to_uppercase());
    }
}
