//! `isoloss store`: checks, copies, restores, compacts and salvages what a coordinator wrote. It works on files of the data
//! directory and asks no coordinator.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use isoloss_coordinator::{StoreSalvaged, StoreSummary, VerifyError};

use crate::args::{Format, Place, StoreCommand};
use crate::exit::{Code, Done, Exit};
use crate::place::DataDir;
use crate::print;
use crate::table::Table;

pub(crate) fn run(place: &Place, command: &StoreCommand) -> Done {
    // Only a restored store needs a data directory made for it.
    let data = match command {
        StoreCommand::Restore { .. } => DataDir::of(place)?,
        _ => DataDir::as_it_is(place)?,
    };
    match command {
        StoreCommand::Verify { backup } => verify(place, data.root(), backup.as_deref()),
        StoreCommand::Backup { file } => {
            let bar = bar("copying");
            let summary = isoloss_coordinator::backup_store(data.root(), file, &mut |done, all| tick(&bar, done, all));
            bar.finish_and_clear();
            show(place, &summary.map_err(refused)?)?;
            print::note(&format!(
                "backed up to {}; corpora, checkpoints, logs and the token are not in it",
                file.display()
            ));
            Ok(())
        }
        StoreCommand::Restore { file } => {
            let bar = bar("restoring");
            let summary = isoloss_coordinator::restore_store(data.root(), file, &mut |done, all| tick(&bar, done, all));
            bar.finish_and_clear();
            show(place, &summary.map_err(refused)?)?;
            print::note(&format!(
                "restored into {}; corpora are surveyed again when a sweep is handed in",
                data.root().display()
            ));
            Ok(())
        }
        StoreCommand::Compact { discard_old } => compact(place, data.root(), !discard_old),
        StoreCommand::Salvage { to } => salvage(place, data.root(), to),
    }
}

fn verify(place: &Place, root: &Path, backup: Option<&Path>) -> Done {
    let bar = bar("checking");
    let check = isoloss_coordinator::verify_store(root, backup, &mut |done, all| tick(&bar, done, all));
    bar.finish_and_clear();
    let check = check.map_err(refused)?;
    show(place, &check.summary)?;
    match check.damage {
        None => Ok(()),
        Some(damage) => Err(Exit::new(Code::Failure, damage)),
    }
}

fn compact(place: &Place, root: &Path, keep_old: bool) -> Done {
    let bar = bar("compacting");
    let shrunk = isoloss_coordinator::compact_store(root, keep_old, &mut |done, all| tick(&bar, done, all));
    bar.finish_and_clear();
    let shrunk = shrunk.map_err(refused)?;
    if place.format() == Format::Json {
        print::json(&shrunk)?;
    } else {
        let mut table = Table::new(&["", "records", "bytes"]);
        let row = |name: &str, records: u64, bytes: u64| vec![name.to_owned(), records.to_string(), bytes.to_string()];
        table.row(row("before", shrunk.records_before, shrunk.bytes_before));
        table.row(row("now", shrunk.now.records, shrunk.now.bytes));
        print::text_block(&table.render());
    }
    if let Some(old) = shrunk.old {
        print::note(&format!("the journal from before is kept in {}: remove it when you like", old.display()));
    }
    Ok(())
}

fn salvage(place: &Place, root: &Path, to: &Path) -> Done {
    let bar = bar("salvaging");
    let salvaged = isoloss_coordinator::salvage_store(root, to, &mut |done, all| tick(&bar, done, all));
    bar.finish_and_clear();
    let salvaged = salvaged.map_err(refused)?;
    if place.format() == Format::Json {
        print::json(&salvaged)?;
    } else {
        show(place, &salvaged.now)?;
        lost(&salvaged);
    }
    print::note(&format!("salvaged into {}; {} is as it was", to.display(), root.display()));
    Ok(())
}

/// What a salvaged store lacks, on stdout: it is what the command was run for.
fn lost(salvaged: &StoreSalvaged) {
    for gap in &salvaged.gaps {
        let records = gap.records.map_or("an unknown number of".to_owned(), |records| records.to_string());
        print::line(&format!("not readable: {} bytes at byte {}, {records} record(s)", gap.bytes, gap.offset));
    }
    for sweep in &salvaged.lost_sweeps {
        print::line(&format!("lost: sweep {} ({})", sweep.name, sweep.sweep_id));
    }
    for run in &salvaged.lost_outcomes {
        print::line(&format!("lost: the outcome of run {}, attempt {}: {}", run.run_id, run.attempt, run.said));
    }
    if !salvaged.has_index {
        print::note("the store had no index that would show which outcomes are lost");
    }
    if salvaged.unused_records > 0 {
        print::note(&format!("{} whole record(s) say nothing without lost ones", salvaged.unused_records));
    }
    print::note(&match salvaged.attempts_raised_by {
        0 => "nothing is lost".to_owned(),
        by => format!("attempt numbers of open runs were raised by {by}, so that none is given out twice"),
    });
}

fn show(place: &Place, summary: &StoreSummary) -> Done {
    if place.format() == Format::Json {
        return print::json(summary);
    }
    let mut table = Table::new(&["records", "bytes", "sweeps", "runs", "settled", "sound", "digest"]);
    let counts = [summary.records, summary.bytes, summary.sweeps, summary.runs, summary.settled];
    let sound = if summary.sound { "yes" } else { "no" };
    table.row(counts.iter().map(u64::to_string).chain([sound.to_owned(), summary.digest.clone()]).collect());
    print::text_block(&table.render());
    Ok(())
}

fn refused(error: VerifyError) -> Exit {
    match error {
        VerifyError::Missing(_) => Exit::new(Code::NotFound, error),
        VerifyError::NotABackup(_) => Exit::usage(error),
        VerifyError::Store(_) => Exit::failure(error),
    }
}

/// Progress for people; on a small store it is gone before it is seen.
fn bar(what: &'static str) -> ProgressBar {
    if !print::is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:40} {bytes} of {total_bytes}");
    ProgressBar::no_length().with_style(style.expect("the template is well-formed")).with_message(what)
}

fn tick(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}
