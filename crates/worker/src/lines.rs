//! Lines of bounded length from a child that may write anything.

use std::io::{self, BufRead};

/// An outcome with a long curve and wide routing is far below; what is longer is not a line of ours.
pub(crate) const LINE_BYTES_MAX: usize = 1 << 20;

/// What stood on a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Text, invalid UTF-8 replaced.
    Text(String),
    /// Longer than [`LINE_BYTES_MAX`]; its length.
    TooLong(usize),
}

/// The next line without its end; `None` at the end of input. A last line without an end counts.
pub(crate) fn next_line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut length = 0;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() && length == 0 {
            return Ok(None);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        length += part.len();
        if length <= LINE_BYTES_MAX {
            line.extend_from_slice(part);
        } else {
            line = Vec::new();
        }
        let last = end.is_some() || available.is_empty();
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if last {
            let text = || Line::Text(String::from_utf8_lossy(&line).into_owned());
            return Ok(Some(if length > LINE_BYTES_MAX { Line::TooLong(length) } else { text() }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    #[test]
    fn long_lines_are_skipped_and_the_next_one_is_whole() {
        let long = io::repeat(b'x').take(LINE_BYTES_MAX as u64 + 1);
        let input = (&b"one\n\n"[..]).chain(long).chain(&b"\n\xfftail"[..]);
        let mut input = BufReader::with_capacity(777, input);
        let lines: Vec<Line> = std::iter::from_fn(|| next_line(&mut input).unwrap()).collect();
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(lines, [text("one"), text(""), Line::TooLong(LINE_BYTES_MAX + 1), text("\u{fffd}tail")]);
    }
}
