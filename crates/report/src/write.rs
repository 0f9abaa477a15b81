//! A report on disk: every file whole or not at all, so that a reader and a crash never meet half a page.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::lab::Lab;
use crate::{checklist, export, figures, html, latex, markdown};

/// A file of the report could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {error}", path.display())]
pub struct WriteError {
    path: PathBuf,
    error: io::Error,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The page to open.
    pub index: PathBuf,
    pub files: Vec<PathBuf>,
}

/// Writes `index.html`, `report.md`, `figures/*.svg`, `law.tex`, `checklist.md`, `runs.csv`, `runs.jsonl` and `fit.json` under
/// `dir`, the page last: when it is new, so is everything else.
pub fn write(dir: &Path, lab: &Lab) -> Result<Written, WriteError> {
    let drawn = figures::all(lab);
    let mut files: Vec<(PathBuf, String)> =
        drawn.iter().map(|figure| (format!("figures/{}.svg", figure.name).into(), figure.svg.clone())).collect();
    // The fit of a table has no runs of its own; the table is beside it already.
    if !lab.runs.is_empty() {
        files.push(("runs.csv".into(), export::runs_csv(lab)));
        files.push(("runs.jsonl".into(), export::runs_jsonl(lab)));
    }
    files.push(("fit.json".into(), export::fit_json(lab)));
    files.push(("law.tex".into(), latex::law_tex(lab)));
    files.push(("checklist.md".into(), checklist::checklist(lab)));
    files.push(("report.md".into(), markdown::markdown(lab, &drawn)));
    files.push(("index.html".into(), html::page(lab, &drawn)));
    let mut written = Vec::with_capacity(files.len());
    for (name, text) in files {
        let path = dir.join(name);
        replace(&path, text.as_bytes()).map_err(|error| WriteError { path: path.clone(), error })?;
        written.push(path);
    }
    Ok(Written { index: dir.join("index.html"), files: written })
}

/// Writes beside the file, syncs, then renames over it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let done = (|| {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    })();
    if done.is_err() {
        // The first error is the one to tell; a leftover partial file harms nothing.
        let _ = fs::remove_file(&partial);
    }
    done
}
