//! The two pipes that a child writes to, read on one thread: what it wrote to stderr before it said its outcome is heard
//! before the outcome, so that the log of a run ends with the run and not in the one that the child takes next.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{ChildStderr, ChildStdout};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::lines::{Line, Lines};

/// Read at a time: what a pipe of Linux holds.
const PIECE: usize = 64 << 10;
/// A child that writes to stderr without end does not hold up its own outcome for longer.
const BEFORE_OUTCOME_MAX: usize = 1 << 20;

/// A line, and which pipe it came through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Out(Line),
    Err(Line),
}

/// Reads both pipes until they are closed.
pub(crate) fn read(stdout: ChildStdout, stderr: ChildStderr, mut tell: impl FnMut(Written)) {
    let (mut out, mut err) = (Pipe::of(stdout), Pipe::of(stderr));
    while out.source.is_some() || err.source.is_some() {
        let [out_ready, err_ready] = ready([out.fd(), err.fd()], PollTimeout::NONE);
        if err_ready {
            err.read(&mut |line| tell(Written::Err(line)));
        }
        if out_ready {
            let err = &mut err;
            out.read(&mut |line| {
                if is_outcome(&line) {
                    err.catch_up(&mut |line| tell(Written::Err(line)));
                }
                tell(Written::Out(line));
            });
        }
    }
}

/// Whether the line may be one: a look too many costs little.
fn is_outcome(line: &Line) -> bool {
    matches!(line, Line::Text(text) if text.contains("\"outcome\""))
}

/// Which of the pipes can be read, or were closed at the other end.
fn ready(pipes: [Option<BorrowedFd<'_>>; 2], patience: PollTimeout) -> [bool; 2] {
    let mut polled: Vec<PollFd<'_>> =
        pipes.iter().flatten().map(|pipe| PollFd::new(*pipe, PollFlags::POLLIN)).collect();
    let found = poll(&mut polled, patience);
    let mut events = polled.iter().map(|pipe| found.is_ok() && pipe.any().unwrap_or(true));
    pipes.map(|pipe| pipe.is_some() && events.next().unwrap_or(false))
}

#[derive(Debug)]
struct Pipe<R> {
    source: Option<R>,
    lines: Lines,
    piece: Vec<u8>,
}

impl<R: Read + AsFd> Pipe<R> {
    fn of(source: R) -> Self {
        Self { source: Some(source), lines: Lines::default(), piece: vec![0; PIECE] }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().map(AsFd::as_fd)
    }

    /// Reads once, which does not block when the pipe is ready; the bytes read.
    fn read(&mut self, tell: &mut impl FnMut(Line)) -> usize {
        let Some(source) = &mut self.source else { return 0 };
        match source.read(&mut self.piece) {
            Ok(0) => self.close(tell),
            Ok(bytes) => {
                self.lines.push(&self.piece[..bytes], tell);
                return bytes;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.close(tell),
        }
        0
    }

    fn close(&mut self, tell: &mut impl FnMut(Line)) {
        self.source = None;
        self.lines.rest().into_iter().for_each(tell);
    }

    /// Reads what lies in the pipe already, and takes a line without end for a whole one.
    fn catch_up(&mut self, tell: &mut impl FnMut(Line)) {
        let mut bytes = 0;
        while bytes < BEFORE_OUTCOME_MAX && ready([self.fd(), None], PollTimeout::ZERO)[0] {
            bytes += self.read(tell);
        }
        self.lines.rest().into_iter().for_each(tell);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_was_written_before_an_outcome_is_heard_before_it() {
        let script = r#"for i in 1 2 3 4 5; do
            echo "learns $i" >&2; printf 'half %s' $i >&2; echo '{"event":"outcome"}'; done; echo late >&2"#;
        for _ in 0..20 {
            let mut command = Command::new("sh");
            let piped = command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = piped.spawn().unwrap();
            let mut heard = Vec::new();
            read(child.stdout.take().unwrap(), child.stderr.take().unwrap(), |written| heard.push(written));
            child.wait().unwrap();
            let said: Vec<String> = heard.iter().map(|written| format!("{written:?}")).collect();
            let outcomes: Vec<usize> = (0..said.len()).filter(|at| said[*at].contains("outcome")).collect();
            for (i, outcome) in (1..).zip(&outcomes) {
                let before = said.iter().position(|line| line.contains(&format!("learns {i}")));
                assert!(before.is_some_and(|before| before < *outcome), "{i}: {heard:?}");
            }
            assert_eq!((outcomes.len(), said.iter().filter(|line| line.contains("late")).count()), (5, 1), "{heard:?}");
        }
    }
}
