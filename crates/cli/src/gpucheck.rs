//! `gpu-check`: the cuda engine on this machine's first GPU that can be used, held to the CPU engine. The checks are the `train` crate's;
//! here is who is told of them, what is kept of them in a file, and when no more are begun.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use isoloss_sweep::Digest;
use isoloss_train::check::{Check, Listener, check, joined, on_gpu, on_gpus};
use isoloss_train::cuda::Library;
use serde::{Deserialize, Serialize};

use crate::args::{GpuCheckArgs, Place};
use crate::exit::{Done, Exit};
use crate::place::{DataDir, kernels};
use crate::table::Table;
use crate::{gpus, print, worker};

pub(crate) fn run(place: &Place, args: &GpuCheckArgs) -> Done {
    let cards = gpus::offered().map_err(|why| Exit::failure(format!("gpu-check: {why}")))?;
    print::note(&format!("checking the cuda engine on {}", gpus::named_whole(&cards[0])));
    let kernels = kernels(DataDir::of(place)?.root());
    let end = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut book = match &args.keep {
        None => Book { checks: Vec::new(), file: None, end, left: 0 },
        Some(path) => {
            let program = fs::read(worker::own_program()?).map_err(|error| Exit::failure(error.to_string()))?;
            let of = Of { gpu: gpus::named_whole(&cards[0]), program: Digest::of(&program).to_string() };
            let broken = |error| Exit::failure(format!("{}: {error}", path.display()));
            Book::open(path, &of, end).map_err(broken)?
        }
    };
    let mut alone = on_gpu(&kernels, cards[0].ordinal);
    check(&mut |model, precision, batch| Ok(Box::new(alone(model, precision, batch)?)), &mut book);
    // NCCL is for runs on several GPUs; without it one GPU is checked all the same.
    if Library::Nccl.path().is_some() {
        let ordinals: Vec<u32> = cards.iter().map(|card| card.ordinal).collect();
        joined(&mut on_gpus(&kernels, &ordinals), &mut alone, &mut book);
    } else {
        print::note(&format!("NCCL is not found, runs on several GPUs are not checked: {}", Library::Nccl.hint()));
    }
    book.told()
}

/// What the checks are of: those of another GPU or program say nothing.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Of {
    gpu: String,
    program: String,
}

/// The checks so far.
struct Book {
    checks: Vec<Check>,
    /// Each is appended to it; its first line is an [`Of`].
    file: Option<(PathBuf, File)>,
    /// No check is begun after it.
    end: Option<Instant>,
    left: usize,
}

impl Book {
    /// Goes on with the file's checks where they are of the same, and else begins it anew.
    fn open(path: &Path, of: &Of, end: Option<Instant>) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let mut lines = text.lines();
        let is_same = lines.next().is_some_and(|line| serde_json::from_str::<Of>(line).is_ok_and(|kept| kept == *of));
        // One that was cut off in the middle is made again.
        let kept = lines.filter(|_| is_same).filter_map(|line| serde_json::from_str(line).ok());
        let checks: Vec<Check> = kept.collect();
        let mut start = vec![serde_json::to_string(of)?];
        for check in &checks {
            start.push(serde_json::to_string(check)?);
        }
        fs::write(path, start.join("\n") + "\n")?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Self { checks, file: Some((path.to_owned(), file)), end, left: 0 })
    }

    fn told(self) -> Done {
        let mut table = Table::new(&["check", "found", "allowed", "verdict"]);
        for check in &self.checks {
            let found = check.found.as_ref().map_or_else(Clone::clone, |found| format!("{found:.2e}"));
            table.row(vec![check.what.clone(), found, format!("{:.1e}", check.allowed), mark(check).to_owned()]);
        }
        print::text_block(&table.render());
        let (all, left) = (self.checks.len(), self.left);
        let wrong = self.checks.iter().filter(|check| !check.is_good()).count();
        match (wrong, left) {
            (0, 0) => Ok(()),
            (0, left) => Err(Exit::failure(format!("{all} checks are good, {left} are left: run it again"))),
            (wrong, 0) => Err(Exit::failure(format!("{wrong} of {all} checks failed"))),
            (wrong, left) => {
                Err(Exit::failure(format!("{wrong} of {all} checks failed, {left} are left: run it again")))
            }
        }
    }
}

impl Listener for Book {
    fn wants(&mut self, what: &str) -> bool {
        if self.checks.iter().any(|check| check.what == what) {
            return false;
        }
        let is_over = self.end.is_some_and(|end| Instant::now() >= end);
        self.left += usize::from(is_over);
        !is_over
    }

    fn hear(&mut self, check: Check) {
        print::note(&format!("{} {}", mark(&check), check.what));
        if let Some((path, file)) = &mut self.file {
            let kept = serde_json::to_string(&check).map_err(io::Error::from);
            if let Err(error) = kept.and_then(|line| file.write_all((line + "\n").as_bytes())) {
                print::note(&format!("warning: {}: {error}; the check would be made again", path.display()));
            }
        }
        self.checks.push(check);
    }
}

fn mark(check: &Check) -> &'static str {
    if check.is_good() { "ok" } else { "WRONG" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(gpu: &str) -> Of {
        Of { gpu: gpu.to_owned(), program: "p".to_owned() }
    }

    fn made(what: &str, found: Result<f64, String>) -> Check {
        Check { what: what.to_owned(), found, allowed: 0.5 }
    }

    #[test]
    fn what_was_checked_is_not_checked_again_but_for_another_gpu() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("checks");
        let mut book = Book::open(&file, &of("H100"), None).unwrap();
        book.hear(made("one", Ok(0.1)));
        book.hear(made("two", Err("no kernel".to_owned())));
        // The process ends in the middle of a line.
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"what\":\"thr").unwrap();
        let mut again = Book::open(&file, &of("H100"), None).unwrap();
        assert_eq!(["one", "two", "three"].map(|what| again.wants(what)), [false, false, true]);
        again.hear(made("three", Ok(0.6)));
        let last = Book::open(&file, &of("H100"), None).unwrap();
        assert_eq!(last.checks.iter().map(Check::is_good).collect::<Vec<_>>(), [true, false, false]);
        assert!(last.told().unwrap_err().message.contains("2 of 3 checks failed"));
        assert!(Book::open(&file, &of("H200"), None).unwrap().checks.is_empty());
    }

    #[test]
    fn no_check_is_begun_after_the_time_is_over() {
        let mut book = Book { checks: Vec::new(), file: None, end: Some(Instant::now()), left: 0 };
        assert!(!book.wants("one") && !book.wants("two"));
        assert!(book.told().unwrap_err().message.contains("2 are left"));
    }
}
