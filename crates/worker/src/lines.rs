//! Lines of bounded length from a child that may write anything.

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

/// Cuts bytes into lines as they come in.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The line that has no end yet, unless it is too long already.
    open: Vec<u8>,
    length: usize,
}

impl Lines {
    /// Takes what was read next, and tells each line that ends in it, without its end.
    pub(crate) fn push(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Line)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            tell(self.take());
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    /// The last line, which has no end.
    pub(crate) fn rest(&mut self) -> Option<Line> {
        (self.length > 0).then(|| self.take())
    }

    fn extend(&mut self, part: &[u8]) {
        self.length += part.len();
        if self.length <= LINE_BYTES_MAX {
            self.open.extend_from_slice(part);
        } else {
            self.open = Vec::new();
        }
    }

    fn take(&mut self) -> Line {
        let (open, length) = (std::mem::take(&mut self.open), std::mem::take(&mut self.length));
        if length > LINE_BYTES_MAX {
            return Line::TooLong(length);
        }
        Line::Text(
            String::from_utf8(open).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_skipped_and_the_next_one_is_whole() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        let input = [&b"one\n\n"[..], &long, b"\n\xfftail"].concat();
        for piece in [1, 777, input.len()] {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for bytes in input.chunks(piece) {
                lines.push(bytes, &mut |line| found.push(line));
            }
            found.extend(lines.rest());
            let text = |text: &str| Line::Text(text.to_owned());
            let expected = [text("one"), text(""), Line::TooLong(LINE_BYTES_MAX + 1), text("\u{fffd}tail")];
            assert_eq!(found, expected, "in pieces of {piece}");
            assert_eq!(lines.rest(), None);
        }
    }
}
