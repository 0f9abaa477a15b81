//! A look at a store from outside: the whole journal is read and checked, nothing is made, written, mended or moved.
//! The index is looked at in a copy, for what it proves to be missing; whether it is faithful is proved at each opening.

use std::path::Path;

use crate::disk::{Disk, Folder};
use crate::index::{self, Glimpse, Places};
use crate::journal::{DamageKind, FILE, Journal, JournalError, Scan};
use crate::ledger::Ledger;
use crate::record::Record;

use super::{INDEX, Lock, Loss, Progress, Store, StoreError, backup, loss, not_understood, take};

/// What the journal of a store says.
#[derive(Debug)]
pub struct Inspected {
    pub ledger: Ledger,
    /// How far the journal is good.
    pub scan: Scan,
    pub size_bytes: u64,
    /// Outcomes recorded, those of runs that were tried again included.
    pub outcomes: u64,
    /// What the index beside the journal has seen and the journal lacks.
    pub loss: Option<Loss>,
}

impl Inspected {
    pub(super) fn of(disk: Box<dyn Disk>, progress: Progress<'_>) -> Result<Self, StoreError> {
        Self::read(&Journal::existing(disk)?, progress)
    }

    /// Reads an open journal from its first record on.
    pub(super) fn read(journal: &Journal, progress: Progress<'_>) -> Result<Self, StoreError> {
        let size_bytes = journal.file_bytes()?;
        let (mut ledger, mut places, mut failed, mut outcomes) = (Ledger::default(), Places::default(), None, 0);
        let scan = journal.scan(&mut |entry| {
            progress(entry.place.offset, size_bytes);
            match Record::decode(entry.payload) {
                Ok(record) => {
                    outcomes += u64::from(matches!(record, Record::Settled { .. }));
                    drop(take(&mut ledger, &mut places, &record, entry.place));
                }
                Err(error) => failed = failed.take().or_else(|| Some(not_understood(entry.place, &error))),
            }
        })?;
        failed.map_or(Ok(Self { ledger, scan, size_bytes, outcomes, loss: None }), Err)
    }

    /// Whether all that was acknowledged is there and unchanged.
    pub fn is_sound(&self) -> bool {
        self.scan.damage.is_none() && self.loss.is_none()
    }
}

impl Store {
    /// Reads the store in `folder`; refused where there is none, or while a coordinator uses it.
    pub fn inspect(folder: &Path, progress: Progress<'_>) -> Result<Inspected, StoreError> {
        let _lock = Lock::look(folder)?;
        let mut glimpse = glimpse(folder)?;
        let journal = Journal::existing(Box::new(Folder::existing(folder)))?;
        let mut inspected = Inspected::read(&journal, progress)?;
        let judge = |glimpse: &mut Glimpse| {
            loss::judge(&mut glimpse.index, &journal, &inspected.scan, &inspected.ledger, folder)
        };
        let judged = glimpse.as_mut().map(judge);
        match judged {
            Some(Err(StoreError::Lost { loss, .. })) => inspected.loss = Some(loss),
            // Without the index it looks like a tail that was never acknowledged.
            Some(Err(StoreError::Journal(JournalError::Damaged { .. }))) => {
                inspected.scan.damage.iter_mut().for_each(|damage| damage.kind = DamageKind::Rot);
            }
            Some(Err(error)) => return Err(error),
            Some(Ok(())) | None => {}
        }
        Ok(inspected)
    }

    /// Reads one file that is a journal: a backup.
    pub fn inspect_file(file: &Path, progress: Progress<'_>) -> Result<Inspected, StoreError> {
        backup::look_at(file, progress)
    }
}

/// Looks at the index in `folder`; an error where there is no journal, or nothing in it that the index has seen.
pub(super) fn glimpse(folder: &Path) -> Result<Option<Glimpse>, StoreError> {
    let mut glimpse = index::glimpse(&folder.join(INDEX));
    let size = Folder::existing(folder).size(FILE)?;
    if let Some(glimpse) = &mut glimpse {
        loss::judge_bare(&mut glimpse.index, size, folder)?;
    }
    if size.is_some() { Ok(glimpse) } else { Err(StoreError::Missing(folder.to_owned())) }
}
