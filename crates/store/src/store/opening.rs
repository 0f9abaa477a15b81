//! How a store comes up: the index is taken for what it proves to be, the journal is read on from there. Nothing is
//! changed, the index least of all, before it is known that no acknowledged record is missing.

use std::collections::BTreeSet;
use std::path::Path;

use super::{INDEX, Inspected, Lock, Opened, Store, StoreError, loss, not_understood, take};
use crate::disk::Disk;
use crate::index::{self, Image, Index, IndexError, Places};
use crate::journal::{DamageKind, FILE, Journal, JournalError, Tip};
use crate::ledger::Ledger;
use crate::record::Record;

impl Store {
    pub(super) fn assemble(disk: Box<dyn Disk>, folder: Option<&Path>, lock: Option<Lock>) -> Result<Self, StoreError> {
        let mut index = folder.map(|folder| (folder, Index::open(&folder.join(INDEX))));
        if let Some((folder, Ok(index))) = &mut index {
            // Opening the journal would make it where it is missing.
            loss::judge_bare(index, disk.size(FILE)?, folder)?;
        }
        let mut store = Self {
            journal: Journal::open(disk)?,
            ledger: Ledger::default(),
            places: Places::default(),
            index: None,
            touched: BTreeSet::new(),
            opened: Opened { replayed: 0, index_rebuilt: false, torn: None },
            lock,
        };
        let from = match index {
            Some((folder, index)) => store.take_index(folder, index)?,
            None => Tip::start(),
        };
        store.replay(from)?;
        store.opened.index_rebuilt = folder.is_some() && from == Tip::start() && store.opened.replayed > 0;
        store.write_index();
        Ok(store)
    }

    /// Takes the index for what it proves to be; returns the tip from which the journal must be replayed.
    fn take_index(&mut self, folder: &Path, index: Result<Index, IndexError>) -> Result<Tip, StoreError> {
        let error = match index.and_then(|index| Ok((index.tip()?, index))) {
            // New, or so torn that sled found nothing: filled from the journal.
            Ok((None, index)) => {
                self.index = Some(index);
                return Ok(Tip::start());
            }
            Ok((Some(tip), mut index)) if self.journal.holds(tip) => {
                // What is recorded behind rot would be lost with the index.
                self.journal.prove(tip)?;
                let admission = |place| self.written(place).and_then(|written| written.admission()).ok();
                match index.load(&admission) {
                    Ok(Image { ledger, places, tip }) => {
                        (self.ledger, self.places, self.index) = (ledger, places, Some(index));
                        return Ok(tip);
                    }
                    Err(error) => error,
                }
            }
            Ok((Some(_), mut index)) => {
                self.judge(&mut index, folder)?;
                IndexError::Unfaithful("it belongs to another journal")
            }
            Err(error) => error,
        };
        tracing::warn!(%error, "the index is rebuilt from the journal");
        let path = folder.join(INDEX);
        match index::remove(&path).and_then(|()| Index::open(&path)) {
            Ok(index) => self.index = Some(index),
            Err(error) => tracing::error!(%error, "going on without an index"),
        }
        Ok(Tip::start())
    }

    /// Whether the journal lacks what an index has seen whose last record is not there.
    fn judge(&self, index: &mut Index, folder: &Path) -> Result<(), StoreError> {
        let read = Inspected::read(&self.journal, &mut |_, _| {})?;
        match read.scan.damage {
            Some(damage) if damage.kind == DamageKind::Rot => {
                Err(JournalError::Damaged { offset: damage.offset, kind: damage.kind }.into())
            }
            _ => loss::judge(index, &self.journal, &read.scan, &read.ledger, folder),
        }
    }

    fn replay(&mut self, from: Tip) -> Result<(), StoreError> {
        let Self { journal, ledger, places, touched, opened, .. } = self;
        let mut failed = None;
        opened.torn = journal.replay(from, &mut |entry| {
            if failed.is_some() {
                return;
            }
            match Record::decode(entry.payload) {
                Ok(record) => {
                    opened.replayed += 1;
                    touched.extend(take(ledger, places, &record, entry.place));
                }
                Err(error) => failed = Some(not_understood(entry.place, &error)),
            }
        })?;
        if let Some(damage) = opened.torn {
            tracing::warn!(offset = damage.offset, bytes = damage.bytes, "a torn tail of the journal was set aside");
        }
        failed.map_or(Ok(()), Err)
    }
}
