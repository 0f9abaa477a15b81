//! The only place that writes to stdout and stderr. Data on stdout, messages on stderr.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::exit::{Done, Exit};

/// A line of data for people.
pub(crate) fn line(text: &str) {
    text_block(&format!("{text}\n"));
}

/// Text for people, foreign text in it made harmless.
pub(crate) fn text_block(text: &str) {
    data(&harmless(text));
}

/// Data for programs as it stands. A closed pipe (`| head`) ends the program quietly, as other tools do; where data does
/// not arrive (a full disk), that is no success.
pub(crate) fn data(text: &str) {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            note(&format!("isoloss: cannot write to stdout: {error}"));
            std::process::exit(1);
        }
    }
}

/// A message for people, foreign text in it made harmless.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", harmless(text));
}

/// A value as indented JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Done {
    let text = serde_json::to_string_pretty(value).map_err(Exit::failure)?;
    data(&format!("{text}\n"));
    Ok(())
}

/// A value as one line of JSON.
pub(crate) fn json_line<T: Serialize>(value: &T) -> Done {
    let text = serde_json::to_string(value).map_err(Exit::failure)?;
    data(&format!("{text}\n"));
    Ok(())
}

/// What a terminal would obey is shown instead: logs, reasons and names come from trainers and workers, and could move
/// the cursor, rename the window or hide what stands there. Line ends and tabs are the layout of this program.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    shown(text, |c| matches!(c, '\n' | '\t'))
}

/// The same for text that is to stay on one line.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    shown(text, |_| false)
}

/// Control characters but those `kept`, and those that turn the direction of writing, as Rust writes them.
fn shown(text: &str, kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let obeyed =
        |c: char| (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) && !kept(c);
    if !text.chars().any(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match obeyed(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Whether the person wants no colours: no-color.org counts any value that is not empty.
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Whether people are watching: progress bars only then.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_that_it_would_obey() {
        let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2Jzeile\r\u{9b}31m\u{7f}\u{202e}\tx\nnäxt 日本";
        let plain = "\\u{1b}]0;owned\\u{7}\\u{1b}[2Jzeile\\r\\u{9b}31m\\u{7f}\\u{202e}\tx\nnäxt 日本";
        assert_eq!(harmless(hostile), plain);
        assert_eq!(one_line("a\tb\nc"), "a\\tb\\nc");
        assert!(matches!(harmless("ordinary: ünïcode\n"), Cow::Borrowed(_)));
    }
}
