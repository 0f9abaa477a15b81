//! The operator's hands: every command of the one binary.

use std::process::ExitCode;

/// Parses the command line, runs the command, reports errors on stderr.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
