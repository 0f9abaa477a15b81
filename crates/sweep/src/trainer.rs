//! A foreign program that trains runs, as far as it decides results. It starts nothing and reads no file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Most files that may travel with a command, and the bytes of one: scripts, not data. Text to learn from is a corpus.
pub const FILES_MAX: usize = 64;
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// The program of `[trainer]`. All of it is part of a run's identity: another script, another result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trainer {
    /// Program and arguments. It runs in a folder that holds `files`.
    pub command: Vec<String>,
    /// Files that travel with it, by plain name; workers fetch them by digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Digest>,
    /// What else decides the result and lies on the workers, in the words of the sweep: `torch 2.9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Trainer {
    /// Names the folder of the files: equal sets, equal folders.
    pub fn folder(&self) -> Digest {
        Digest::of_json(&self.files)
    }
}
