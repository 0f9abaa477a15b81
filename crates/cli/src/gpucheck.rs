//! `gpu-check`: the cuda engine on this machine's first GPU that can be used, held to the CPU engine. The checks are the `train` crate's;
//! here is who is told of them, what is kept of them in a file, and when no more are begun.

use std::fmt::Display;
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
        None => Book { checks: Vec::new(), file: None, end, left: 0, is_broken: false },
        Some(path) => {
            let program = fs::read(worker::own_program()?).map_err(|error| Exit::failure(error.to_string()))?;
            let of = Of { gpu: cards[0].name.clone(), program: Digest::of(&program).to_string() };
            Book::open(path, &of, end, args.retry)?
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

/// What the checks are of: those of another kind of GPU or another program say nothing. Of one kind any card goes on, for
/// who borrows one may get another the next time.
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
    /// Whether the GPU's context broke: every later check would be said to fail.
    is_broken: bool,
}

impl Book {
    /// Goes on with the file's checks, without those that failed if they are to be made again. What is anything else, or of
    /// something else, stays as it is.
    fn open(path: &Path, of: &Of, end: Option<Instant>, retry: bool) -> Result<Self, Exit> {
        let failed = |error: &dyn Display| Exit::failure(format!("{}: {error}", path.display()));
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| failed(&error))?,
        };
        let mut lines = text.lines();
        match lines.next().map(serde_json::from_str::<Of>) {
            None => {}
            Some(Ok(kept)) if kept == *of => {}
            Some(Ok(kept)) if kept.gpu == of.gpu => {
                return Err(failed(&"its checks were made by another program: name another file, or remove it"));
            }
            Some(Ok(kept)) => {
                let words = format!("its checks are of {}: name another file, or remove it", kept.gpu);
                return Err(failed(&words));
            }
            Some(Err(_)) => return Err(failed(&"it holds no checks: name another file")),
        }
        // One that was cut off in the middle is made again.
        let kept = lines.filter_map(|line| serde_json::from_str(line).ok());
        let checks: Vec<Check> = kept.filter(|check: &Check| !retry || check.is_good()).collect();
        let file = begun(path, of, &checks).map_err(|error| failed(&error))?;
        Ok(Self { checks, file: Some((path.to_owned(), file)), end, left: 0, is_broken: false })
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
        if (wrong, left) == (0, 0) {
            return Ok(());
        }
        let made =
            if wrong == 0 { format!("{all} checks are good") } else { format!("{wrong} of {all} checks failed") };
        let broken = if self.is_broken { ", the GPU's context broke in the last one" } else { "" };
        let rest = if left == 0 { String::new() } else { format!(", {left} are left: run it again") };
        Err(Exit::failure(format!("{made}{broken}{rest}")))
    }
}

/// The file with these checks, to append to. A process that ends while it is written leaves the one before.
fn begun(path: &Path, of: &Of, checks: &[Check]) -> io::Result<File> {
    let mut start = serde_json::to_string(of)? + "\n";
    for check in checks {
        start += &(serde_json::to_string(check)? + "\n");
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, start)?;
    fs::rename(&beside, path)?;
    OpenOptions::new().append(true).open(path)
}

impl Listener for Book {
    fn wants(&mut self, what: &str) -> bool {
        if self.checks.iter().any(|check| check.what == what) {
            return false;
        }
        let is_over = self.is_broken || self.end.is_some_and(|end| Instant::now() >= end);
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

    fn broke(&mut self) {
        self.is_broken = true;
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
    fn what_was_checked_is_not_checked_again_unless_it_failed_and_shall_be() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("checks");
        let mut book = Book::open(&file, &of("H100"), None, false).unwrap();
        book.hear(made("one", Ok(0.1)));
        book.hear(made("two", Err("no kernel".to_owned())));
        // The process ends in the middle of a line.
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"what\":\"thr").unwrap();
        let mut again = Book::open(&file, &of("H100"), None, false).unwrap();
        assert_eq!(["one", "two", "three"].map(|what| again.wants(what)), [false, false, true]);
        again.hear(made("three", Ok(0.6)));
        let last = Book::open(&file, &of("H100"), None, false).unwrap();
        assert_eq!(last.checks.iter().map(Check::is_good).collect::<Vec<_>>(), [true, false, false]);
        assert!(last.told().unwrap_err().message.contains("2 of 3 checks failed"));
        let mut retried = Book::open(&file, &of("H100"), None, true).unwrap();
        assert_eq!(["one", "two", "three"].map(|what| retried.wants(what)), [false, true, true]);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (file, sweep) = (dir.path().join("checks"), dir.path().join("sweep.toml"));
        Book::open(&file, &of("H100"), None, false).unwrap().hear(made("one", Ok(0.1)));
        fs::write(&sweep, "precious = 1\n").unwrap();
        let program = Of { program: "q".to_owned(), ..of("H100") };
        for (path, of, why) in [
            (&file, of("H200"), "its checks are of H100"),
            (&file, program, "its checks were made by another program"),
            (&sweep, of("H100"), "it holds no checks"),
        ] {
            let before = fs::read(path).unwrap();
            let refused = Book::open(path, &of, None, true).err().expect("it is of something else").message;
            assert!(refused.contains(why) && refused.contains("name another file"), "{refused}");
            assert_eq!(fs::read(path).unwrap(), before);
        }
    }

    #[test]
    fn no_check_is_begun_in_a_broken_context() {
        let mut book = Book { checks: Vec::new(), file: None, end: None, left: 0, is_broken: false };
        assert!(book.wants("one"));
        book.hear(made("one", Err("CUDA_ERROR_LAUNCH_FAILED".to_owned())));
        book.broke();
        assert!(!book.wants("two") && !book.wants("three"));
        let told = book.told().unwrap_err().message;
        assert_eq!(told, "1 of 1 checks failed, the GPU's context broke in the last one, 2 are left: run it again");
    }

    #[test]
    fn no_check_is_begun_after_the_time_is_over() {
        let mut book = Book { checks: Vec::new(), file: None, end: Some(Instant::now()), left: 0, is_broken: false };
        assert!(!book.wants("one") && !book.wants("two"));
        assert!(book.told().unwrap_err().message.contains("2 are left"));
    }
}
