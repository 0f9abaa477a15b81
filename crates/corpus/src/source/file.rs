//! The documents of one file: plain, compressed, or JSON lines. Text is bytes; only JSON must be UTF-8.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Document, SourceError};

/// How files become documents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    /// A line that ends a document.
    pub(crate) separator: Option<&'a str>,
    /// The key of a JSON line that holds the text.
    pub(crate) field: &'a str,
}

impl Reader<'_> {
    /// The documents of a file in order; empty ones are left out.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<Document>, SourceError> {
        let (bytes, json) = load(path).map_err(|source| SourceError::Unreadable { path: path.to_owned(), source })?;
        let texts = if json {
            self.lines(path, &bytes)?
        } else if let Some(separator) = self.separator {
            separated(&bytes, separator.as_bytes())
        } else {
            vec![bytes]
        };
        let full = texts.into_iter().filter(|text| !text.is_empty());
        Ok(full.map(|text| Document::new(text, None)).collect())
    }

    /// The texts of JSON lines; blank lines are skipped.
    fn lines(&self, path: &Path, bytes: &[u8]) -> Result<Vec<Vec<u8>>, SourceError> {
        let mut texts = Vec::new();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let wrong = |what: String| SourceError::Line {
                path: path.to_owned(),
                line: index + 1,
                what,
                field: self.field.to_owned(),
            };
            let mut value: serde_json::Value =
                serde_json::from_slice(line).map_err(|error| wrong(format!("not JSON ({error})")))?;
            match value.get_mut(self.field).map(serde_json::Value::take) {
                Some(serde_json::Value::String(text)) => texts.push(text.into_bytes()),
                Some(other) => return Err(wrong(format!("{:?} is not a string but {}", self.field, kind(&other)))),
                None if value.is_object() => return Err(wrong(format!("no key {:?}", self.field))),
                None => return Err(wrong(format!("not an object but {}", kind(&value)))),
            }
        }
        Ok(texts)
    }
}

fn kind(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a boolean",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "an array",
        serde_json::Value::Object(_) => "an object",
    }
}

/// A file's content without its compression, and whether it holds JSON lines; both told by the name.
fn load(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let extension = |path: &Path| path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    let inner = match extension(path).as_deref() {
        Some("gz") => {
            flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes)?;
            path.file_stem().map_or(path, Path::new)
        }
        Some("zst") => {
            zstd::stream::read::Decoder::new(file)?.read_to_end(&mut bytes)?;
            path.file_stem().map_or(path, Path::new)
        }
        _ => {
            io::BufReader::new(file).read_to_end(&mut bytes)?;
            path
        }
    };
    let json = matches!(extension(inner).as_deref(), Some("jsonl" | "ndjson"));
    Ok((bytes, json))
}

/// Cuts behind each line that is the separator and nothing else; the line itself belongs to no document.
fn separated(bytes: &[u8], separator: &[u8]) -> Vec<Vec<u8>> {
    let mut texts = vec![Vec::new()];
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        if bare.strip_suffix(b"\r").unwrap_or(bare) == separator {
            texts.push(Vec::new());
        } else if let Some(text) = texts.last_mut() {
            text.extend_from_slice(line);
        }
    }
    texts
}
