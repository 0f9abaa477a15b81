//! Where a mistake stands and how it is shown: file, line, column, the line itself with a caret, and what to do.
//! Knows nothing of what the text means.

use std::fmt;

/// A text that places point into: the sweep file, or one `--set`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A range of bytes in one of the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) source: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A mistake at a place, ready to be shown; its display ends without a line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line that the place starts in.
    pub source_line: String,
    /// Characters of that line that are meant, at least 1.
    pub carets: usize,
    /// Stands behind the carets: what was expected.
    pub label: String,
    /// What would be right, for example the nearest known key.
    pub help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(sources: &[Source], place: Place, message: impl Into<String>) -> Self {
        let source = &sources[place.source];
        let text = source.text.as_str();
        let start = floor_boundary(text, place.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let source_line = text[line_start..].lines().next().unwrap_or_default();
        let end = floor_boundary(text, place.end).clamp(start, (line_start + source_line.len()).max(start));
        Self {
            message: message.into(),
            file: source.name.clone(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            source_line: source_line.to_owned(),
            carets: text[start..end].chars().count().max(1),
            label: String::new(),
            help: None,
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds "did you mean" when one of `known` is close to `got`, else the list when it is short.
    pub(crate) fn nearest<'k>(self, got: &str, known: impl IntoIterator<Item = &'k str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let closest = known
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(got, candidate), *candidate))
            .min_by_key(|(distance, _)| *distance);
        match closest {
            Some((distance, name)) if distance <= 1 + got.chars().count() / 3 => {
                self.help(format!("did you mean `{name}`?"))
            }
            _ if known.is_empty() => self,
            _ => self.help(format!("expected one of: {}", known.join(", "))),
        }
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "{}", self.message)?;
        writeln!(f, "{margin}--> {}:{}:{}", self.file, self.line, self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.source_line.replace('\t', " "))?;
        let marks = format!("{}{}", " ".repeat(self.column - 1), "^".repeat(self.carets));
        write!(f, "{}", format!("{margin} | {marks} {}", self.label).trim_end())?;
        if let Some(help) = &self.help {
            write!(f, "\n{margin} = help: {help}")?;
        }
        Ok(())
    }
}
