//! The only place that writes to stdout and stderr. Data on stdout, messages on stderr.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::exit::{Done, Exit};

/// A line of data. A closed pipe (`| head`) ends the program quietly, as other tools do.
pub(crate) fn line(text: &str) {
    text_block(&format!("{text}\n"));
}

/// Data as it stands. Where it does not arrive (a full disk), that is no success.
pub(crate) fn text_block(text: &str) {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            note(&format!("isoloss: cannot write to stdout: {error}"));
            std::process::exit(1);
        }
    }
}

/// A message for people.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A value as indented JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Done {
    let text = serde_json::to_string_pretty(value).map_err(Exit::failure)?;
    line(&text);
    Ok(())
}

/// Whether the person wants no colours: no-color.org counts any value that is not empty.
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Whether people are watching: progress bars only then.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}
