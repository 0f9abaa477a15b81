//! From the paths and globs of a sweep to files. It looks at names; it opens nothing.

use std::path::{Component, Path, PathBuf};

use super::SourceError;

/// The files of `patterns` in their order, those of a glob by name, each file once.
pub(crate) fn resolve(patterns: &[String]) -> Result<Vec<PathBuf>, SourceError> {
    if patterns.is_empty() {
        return Err(SourceError::NoPaths);
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        for path in expand(pattern)? {
            if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
                return Err(SourceError::Parquet { path });
            }
            if !files.contains(&path) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// The files of one pattern: itself if there is such a file, else what it matches.
fn expand(pattern: &str) -> Result<Vec<PathBuf>, SourceError> {
    let path = PathBuf::from(pattern);
    if path.is_dir() {
        return Err(SourceError::Folder { path });
    }
    if path.is_file() {
        return Ok(vec![path]);
    }
    // Devices and pipes may never end.
    if path.exists() {
        return Err(SourceError::NotAFile { path });
    }
    let from = || std::env::current_dir().unwrap_or_default();
    if !is_glob(pattern) {
        return Err(SourceError::Missing { pattern: pattern.to_owned(), from: from() });
    }
    let matches = glob::glob(pattern).map_err(|source| SourceError::Glob { pattern: pattern.to_owned(), source })?;
    let mut files = Vec::new();
    for entry in matches {
        let path =
            entry.map_err(|error| SourceError::Unreadable { path: error.path().to_owned(), source: error.into() })?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(SourceError::NoMatch { pattern: pattern.to_owned(), from: from() });
    }
    Ok(files)
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// The same pattern under another machine's roots: the longest end of it that names a file under one of them, else
/// the pattern as it is.
pub(crate) fn relocate(pattern: &str, roots: &[PathBuf]) -> String {
    let parts: Vec<Component<'_>> = Path::new(pattern).components().collect();
    let names = |part: &Component<'_>| matches!(part, Component::Normal(_));
    for start in (0..parts.len()).filter(|&start| parts[start..].iter().all(names)) {
        for root in roots {
            let moved = root.join(parts[start..].iter().collect::<PathBuf>());
            // A path that is not UTF-8 cannot stand in a sweep file either.
            let Some(moved) = moved.to_str() else { continue };
            if expand(moved).is_ok() {
                return moved.to_owned();
            }
        }
    }
    pattern.to_owned()
}
