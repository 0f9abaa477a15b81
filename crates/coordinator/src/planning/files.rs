//! Files that travel with a trainer's command: read where the sweep is planned, kept by digest for the workers.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use isoloss_sweep::trainer::FILE_BYTES_MAX;
use isoloss_sweep::{Digest, SweepSpec};
use isoloss_wire::api::Submit;

use super::{PlanningError, Site};

/// Digests by plain name of what the sweep names; the content is kept.
pub(super) fn gather(
    spec: &SweepSpec,
    submit: &Submit,
    site: &Site,
) -> Result<BTreeMap<String, Digest>, PlanningError> {
    let mut digests = BTreeMap::new();
    for path in spec.trainer_files() {
        let found = site.reach.base(&submit.base).join(path);
        let refuse = |why: String| {
            let folder = found.parent().unwrap_or(&found).display();
            let message = format!("cannot read the trainer's file {path:?} in {folder}: {why}");
            spec.refuse_trainer_file(path, message, "expected a file that travels with the command")
        };
        if !site.reach.reads(&found) {
            return Err(refuse("it is not below a --corpus-root of the coordinator".to_owned()).into());
        }
        let size = std::fs::metadata(&found).map_err(|error| refuse(error.to_string()))?;
        if !size.is_file() || size.len() > FILE_BYTES_MAX {
            let why = format!("it is no plain file of at most {FILE_BYTES_MAX} bytes");
            return Err(refuse(why).into());
        }
        let bytes = std::fs::read(&found).map_err(|error| refuse(error.to_string()))?;
        let digest = Digest::of(&bytes);
        keep(&site.trainers_dir, digest, &bytes).map_err(|source| PlanningError::TrainerFile {
            file: submit.file.clone(),
            path: path.to_owned(),
            source,
        })?;
        let name = found.file_name().map(|name| name.to_string_lossy().into_owned());
        digests.insert(name.unwrap_or_default(), digest);
    }
    Ok(digests)
}

/// Whole or not at all, because it is served by its name alone.
fn keep(dir: &Path, digest: Digest, bytes: &[u8]) -> io::Result<()> {
    let place = dir.join(digest.to_string());
    if place.is_file() {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    let partial = dir.join(format!(".{digest}.{}", std::process::id()));
    let mut file = std::fs::File::create(&partial)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, &place)?;
    std::fs::File::open(dir)?.sync_all()
}

/// Words of the command that name a file here which does not travel: on a worker they would name nothing.
pub(super) fn forgotten(spec: &SweepSpec, submit: &Submit, site: &Site) -> Vec<String> {
    let words = spec.command().unwrap_or_default().iter();
    let base = site.reach.base(&submit.base);
    let is_here = |path: &Path| site.reach.reads(path) && path.is_file();
    let here = words.filter(|word| !Path::new(word).is_absolute() && is_here(&base.join(word)));
    here.filter(|word| !spec.trainer_files().any(|path| path == word.as_str() && !path.contains('/')))
        .map(|word| {
            let name = word.rsplit('/').next().unwrap_or_default();
            format!(
                "the command names {word:?}, a file here: name it in `files`, and call it {name:?}, as it will lie in the \
                 folder where the command runs"
            )
        })
        .collect()
}
