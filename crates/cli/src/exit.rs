//! Exit codes and the one error type of the command line. Data goes to stdout, messages to stderr.

use std::fmt;
use std::process::ExitCode;

/// Why the program ends, as programs read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Failure = 1,
    Usage = 2,
    /// The sweep ended with failed runs.
    FailedRuns = 3,
    NotFound = 4,
    Unreachable = 5,
    /// Refused by the plan.
    Refused = 6,
    /// Ended by Ctrl-C, as shells report it.
    Interrupted = 130,
}

/// A message for people and a code for programs.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Exit {
    pub(crate) fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    pub(crate) fn failure(message: impl fmt::Display) -> Self {
        Self::new(Code::Failure, message)
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }
}

impl From<std::io::Error> for Exit {
    fn from(error: std::io::Error) -> Self {
        Self::failure(error)
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

/// What every command returns.
pub(crate) type Done = Result<(), Exit>;
