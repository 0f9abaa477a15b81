//! What the end of a child means. A child that says how it ended is believed; for one that does not, its exit code and
//! its last words are all there is.

use std::collections::VecDeque;

use isoloss_sweep::Outcome;
use isoloss_sweep::outcome::Failed;
use isoloss_wire::api::{CheckpointRef, Ending};
use isoloss_wire::child::{EXIT_CONTEXT, EXIT_DONE, EXIT_NO_RETRY, EXIT_STORAGE, EXIT_YIELDED};
use nix::sys::signal::Signal;

use crate::child::Exit;

const TAIL_LINES: usize = 30;
const TAIL_CHARS: usize = 2000;
/// What shells add to a signal's number.
const SHELL_SIGNAL: i32 = 128;

/// The last lines that a child logged, frames of a Rust backtrace left out: they follow what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
    is_backtrace: bool,
}

impl Tail {
    pub(crate) fn push(&mut self, text: String) {
        self.is_backtrace = text == "stack backtrace:" || (self.is_backtrace && text.starts_with(' '));
        if self.is_backtrace {
            return;
        }
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(text.chars().take(TAIL_CHARS).collect());
    }

    pub(crate) fn last(&self) -> Option<&str> {
        // A Rust panic ends with a note on how to see more of it.
        let says_nothing = |line: &&str| line.is_empty() || line.starts_with("note:");
        self.lines.iter().rev().map(|line| line.trim()).find(|line| !says_nothing(line))
    }
}

/// What of the machine took an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its storage, or the way from it to others'.
    Storage,
    /// The GPU, or what gives it to processes, was not to be had.
    Device,
    /// Nothing.
    Other,
}

/// What is left to do after a child's end.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    Settle {
        ending: Ending,
        checkpoints: Vec<CheckpointRef>,
        cause: Cause,
    },
    /// The lease is another's or nobody's: there is nothing to say.
    Revoked,
}

impl End {
    /// The attempt ends before there is a child.
    pub(crate) fn yielded(reason: &str) -> Self {
        Self::settle(yielded(reason), Vec::new())
    }

    /// It broke by its own fault before there is a child.
    pub(crate) fn broke(reason: String) -> Self {
        let outcome = Outcome::Failed(Failed { reason, retry: true });
        Self::settle(Ending::Outcome(Box::new(outcome)), Vec::new())
    }

    /// This machine's storage took it.
    pub(crate) fn of_storage(reason: String) -> Self {
        Self::lost(reason, Vec::new())
    }

    /// The same, with what was stored before.
    pub(crate) fn lost(reason: String, checkpoints: Vec<CheckpointRef>) -> Self {
        Self::Settle { ending: Ending::Yielded { reason, wait: true }, checkpoints, cause: Cause::Storage }
    }

    /// The GPU or what gives it to processes was not to be had: the run waits, and so does the GPU.
    pub(crate) fn of_device(reason: String, checkpoints: Vec<CheckpointRef>) -> Self {
        Self::Settle { ending: Ending::Yielded { reason, wait: true }, checkpoints, cause: Cause::Device }
    }

    /// Another run's fault, as far as can be told.
    pub(crate) fn of_others(reason: &str, checkpoints: Vec<CheckpointRef>) -> Self {
        Self::settle(yielded(reason), checkpoints)
    }

    fn settle(ending: Ending, checkpoints: Vec<CheckpointRef>) -> Self {
        Self::Settle { ending, checkpoints, cause: Cause::Other }
    }

    pub(crate) fn of(
        outcome: Option<Outcome>,
        exit: Exit,
        yielding: bool,
        tail: &Tail,
        checkpoints: Vec<CheckpointRef>,
    ) -> Self {
        let ending = match outcome {
            // What breaks while it is being stopped breaks by our hand.
            Some(Outcome::Failed(_)) | None if yielding => yielded("the worker was stopped"),
            Some(outcome) => Ending::Outcome(Box::new(outcome)),
            None if exit == Exit::Code(EXIT_YIELDED) => yielded("the child gave its device back"),
            None if exit == Exit::Code(EXIT_STORAGE) => {
                return Self::lost(tail.last().unwrap_or("the worker's storage failed").to_owned(), checkpoints);
            }
            None => Ending::Outcome(Box::new(Outcome::Failed(Failed {
                reason: unexplained(exit, tail),
                retry: exit != Exit::Code(EXIT_NO_RETRY),
            }))),
        };
        Self::settle(ending, checkpoints)
    }

    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Settle { cause, .. } => *cause,
            Self::Revoked => Cause::Other,
        }
    }

    /// Why it ended without a result, for the log.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Revoked => None,
            Self::Settle { ending: Ending::Yielded { reason, .. }, .. } => Some(reason),
            Self::Settle { ending: Ending::Outcome(outcome), .. } => match &**outcome {
                Outcome::Finished(_) => None,
                Outcome::Diverged(diverged) => Some(&diverged.reason),
                Outcome::Failed(failed) => Some(&failed.reason),
            },
        }
    }

    /// For the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Settle { ending: Ending::Yielded { .. }, .. } => "yielded",
            Self::Settle { ending: Ending::Outcome(outcome), .. } => match **outcome {
                Outcome::Finished(_) => "finished",
                Outcome::Diverged(_) => "diverged",
                Outcome::Failed(_) => "failed",
            },
        }
    }
}

fn yielded(reason: &str) -> Ending {
    Ending::Yielded { reason: reason.to_owned(), wait: false }
}

/// What is known of the end of a child that did not say how it ended.
pub(crate) fn unexplained(exit: Exit, tail: &Tail) -> String {
    if exit == Exit::Code(EXIT_CONTEXT) {
        return tail.last().unwrap_or("the GPU's context broke").to_owned();
    }
    let end = match exit {
        Exit::Code(EXIT_DONE) => "the child ended without an outcome".to_owned(),
        Exit::Code(code) => match Signal::try_from(code - SHELL_SIGNAL) {
            // As shells tell it, and the guard of a foreign command: such a code of the command's own is most unlikely.
            Ok(signal) => format!("the child was killed by {signal} (exit code {code})"),
            Err(_) => format!("the child ended with exit code {code}"),
        },
        Exit::Signal(signal) => match Signal::try_from(signal) {
            Ok(signal) => format!("the child was killed by {signal}"),
            Err(_) => format!("the child was killed by signal {signal}"),
        },
    };
    match tail.last() {
        Some(line) => format!("{end}: {line}"),
        None => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(exit: Exit, lines: &[&str]) -> Failed {
        let mut tail = Tail::default();
        lines.iter().for_each(|line| tail.push((*line).to_owned()));
        match End::of(None, exit, false, &tail, Vec::new()) {
            End::Settle { ending: Ending::Outcome(outcome), .. } => match *outcome {
                Outcome::Failed(failed) => failed,
                other => panic!("expected a failure, got {other:?}"),
            },
            other => panic!("expected an outcome, got {other:?}"),
        }
    }

    #[test]
    fn exit_codes_say_whether_to_try_again() {
        assert!(failed(Exit::Code(75), &[]).retry);
        assert!(failed(Exit::Code(101), &[]).retry);
        let broke = failed(Exit::Code(70), &["cuGraphLaunch failed: CUDA_ERROR_ILLEGAL_ADDRESS"]);
        assert_eq!((broke.reason.as_str(), broke.retry), ("cuGraphLaunch failed: CUDA_ERROR_ILLEGAL_ADDRESS", true));
        assert!(!failed(Exit::Code(78), &[]).retry);
        let killed = failed(Exit::Signal(9), &["loading", "out of memory", " "]);
        assert_eq!(killed.reason, "the child was killed by SIGKILL: out of memory");
        assert!(killed.retry);
        let frames =
            (0..40).flat_map(|frame| [format!("{frame:4}: main"), "             at ./src/main.rs:1:2".to_owned()]);
        let panic = ["thread 'main' panicked at src/main.rs:1:2:", "no corpus", "stack backtrace:"].map(str::to_owned);
        let words: Vec<String> = panic.into_iter().chain(frames).chain(["note: Some details".to_owned()]).collect();
        let panicked = failed(Exit::Code(101), &words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(panicked.reason, "the child ended with exit code 101: no corpus");
        assert_eq!(failed(Exit::Code(139), &[]).reason, "the child was killed by SIGSEGV (exit code 139)");
        assert_eq!(failed(Exit::Code(127), &[]).reason, "the child ended with exit code 127");
        assert_eq!(failed(Exit::Code(255), &[]).reason, "the child ended with exit code 255");
    }

    #[test]
    fn full_storage_is_no_failure_and_says_what_failed() {
        let mut tail = Tail::default();
        tail.push("checkpoint: no space left on device".to_owned());
        let end = End::of(None, Exit::Code(74), false, &tail, Vec::new());
        assert_eq!(end, End::of_storage("checkpoint: no space left on device".to_owned()));
        assert_eq!((end.cause(), End::yielded("the worker was stopped").cause()), (Cause::Storage, Cause::Other));
    }

    #[test]
    fn a_stop_is_nobodys_fault() {
        let broken = Some(Outcome::Failed(Failed { reason: "broken pipe".to_owned(), retry: true }));
        for (outcome, exit, yielding) in
            [(None, Exit::Code(85), false), (None, Exit::Signal(9), true), (broken, Exit::Code(75), true)]
        {
            let end = End::of(outcome, exit, yielding, &Tail::default(), Vec::new());
            assert!(matches!(end, End::Settle { ending: Ending::Yielded { .. }, .. }), "{end:?}");
        }
    }
}
