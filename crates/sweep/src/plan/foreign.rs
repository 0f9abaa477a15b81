//! The trainer of a sweep's runs where it is a foreign program.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::plan::{PlanError, Refusal};
use crate::spec::{SweepSpec, plain_name};
use crate::trainer::Trainer;

/// The trainer with the digests of its files.
pub(crate) fn trainer(spec: &SweepSpec, digests: &BTreeMap<String, Digest>) -> Result<Option<Trainer>, PlanError> {
    let Some(written) = &spec.trainer else {
        return Ok(None);
    };
    let mut files = BTreeMap::new();
    for (path, place) in &written.files {
        let found = plain_name(path).and_then(|name| Some((name.to_owned(), *digests.get(name)?)));
        let Some((name, digest)) = found else {
            return Err(spec.refuse(Refusal::Capability, *place, "this file of the trainer was not read"));
        };
        files.insert(name, digest);
    }
    Ok(Some(Trainer { command: written.command.clone(), files, version: written.version.clone() }))
}

impl SweepSpec {
    /// A refusal of a trainer's file, at the place where it is named.
    pub fn refuse_trainer_file(&self, path: &str, message: impl Into<String>, expected: &str) -> PlanError {
        let named = self.trainer.iter().flat_map(|trainer| &trainer.files).find(|(written, _)| written == path);
        let place = named.map(|(_, place)| *place).unwrap_or_default();
        self.refuse(Refusal::Capability, place, message).label(expected)
    }
}
