//! Which faults struck while runs stood in which states: what never happened was never tested.

use std::fmt;

use super::*;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    MessageLost,
    MessageRepeated,
    MessageDelayed,
    MessagesReordered,
    NetworkCut,
    WorkerDies,
    WorkerStopped,
    WorkerSuspended,
    WorkerClockJumps,
    TwinReturns,
    DiesBeforeRecords,
    DiesBeforeCommit,
    DiesInCommit,
    DiesBeforeAnswers,
    DiesAmongAnswers,
    PowerCut,
    CoordinatorStopped,
    CoordinatorSuspended,
    WallClockJumps,
    DiskFull,
    FsyncFails,
}

const FAULTS: [Fault; 21] = [
    Fault::MessageLost,
    Fault::MessageRepeated,
    Fault::MessageDelayed,
    Fault::MessagesReordered,
    Fault::NetworkCut,
    Fault::WorkerDies,
    Fault::WorkerStopped,
    Fault::WorkerSuspended,
    Fault::WorkerClockJumps,
    Fault::TwinReturns,
    Fault::DiesBeforeRecords,
    Fault::DiesBeforeCommit,
    Fault::DiesInCommit,
    Fault::DiesBeforeAnswers,
    Fault::DiesAmongAnswers,
    Fault::PowerCut,
    Fault::CoordinatorStopped,
    Fault::CoordinatorSuspended,
    Fault::WallClockJumps,
    Fault::DiskFull,
    Fault::FsyncFails,
];

const STATES: [&str; 9] =
    ["pending", "paused", "blocked", "leased", "finished", "diverged", "failed", "cancelled", "quarantined"];

/// Runs in each state.
pub(super) type Standing = [u64; STATES.len()];

/// How the runs of a ledger stand.
pub(super) fn standing(ledger: &Ledger) -> Standing {
    let mut standing = Standing::default();
    for (_, row) in ledger.runs() {
        let name = match ledger.status(row) {
            Status::Pending if ledger.is_paused(row) => "paused",
            status => status.name(),
        };
        standing[STATES.iter().position(|state| *state == name).expect("every state has a column")] += 1;
    }
    standing
}

/// Runs in each state when each kind of fault struck.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    pub(super) faults: u64,
    cells: [Standing; FAULTS.len()],
}

impl Coverage {
    pub(super) fn strike(&mut self, fault: Fault, standing: Standing) {
        self.faults += 1;
        let row = &mut self.cells[FAULTS.iter().position(|known| *known == fault).expect("every fault has a row")];
        row.iter_mut().zip(standing).for_each(|(cell, runs)| *cell += runs);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.faults += other.faults;
        let cells = self.cells.iter_mut().flatten().zip(other.cells.iter().flatten());
        cells.for_each(|(cell, more)| *cell += more);
    }

    /// What was never tried.
    pub(super) fn zeros(&self) -> Vec<(Fault, &'static str)> {
        let cells = FAULTS
            .iter()
            .zip(&self.cells)
            .flat_map(|(fault, row)| STATES.iter().zip(row).map(|(state, runs)| (*fault, *state, *runs)));
        cells.filter(|(_, _, runs)| *runs == 0).map(|(fault, state, _)| (fault, state)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:21}", "runs when it struck")?;
        STATES.iter().try_for_each(|state| write!(out, "{state:>12}"))?;
        for (fault, row) in FAULTS.iter().zip(&self.cells) {
            write!(out, "\n{:21}", format!("{fault:?}"))?;
            row.iter().try_for_each(|runs| write!(out, "{runs:>12}"))?;
        }
        Ok(())
    }
}
