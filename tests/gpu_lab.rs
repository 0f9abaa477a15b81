//! A machine with GPUs that are stand-ins of CUDA's libraries, and sweeps that are short enough for them.

#[path = "../crates/gpu/standin/built.rs"]
mod built;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use built::Standins;

use crate::binary::{expect, isoloss};

/// Two of each family.
const FAMILIES: &str = r#"seed = [1, 2]

[[arm]]
name = "dense"

[[arm]]
name = "moe"
family = "moe"
experts = 4
top_k = 2
"#;

/// A sweep of short runs on GPUs: one, or as many as more axes and arms make.
pub(crate) fn short_runs(name: &str, more: &str) -> String {
    format!(
        r#"schema = 1
name = "{name}"

[corpus]
source = "synthetic"
preset = "tiny"
bytes = "200kB"
validation = 0.2
scored_bytes = "256B"
curve_bytes = "256B"

[model]
context = 16

[axes]
params = ["3k"]
tokens = ["3k"]
{more}
[train]
engine = "cuda"
precision = "f32"
batch = 2
"#
    )
}

pub(crate) const FIRST: &str = "GPU-5a5a0000-0000-4000-8000-000000000001";
pub(crate) const SECOND: &str = "GPU-5a5a0000-0000-4000-8000-000000000002";

fn standins() -> Option<Standins> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/gpu/standin");
    built::standins(&sources, Path::new(env!("CARGO_TARGET_TMPDIR")), &[])
}

/// A machine with stand-ins, and a folder for data.
pub(crate) struct Lab {
    pub(crate) standins: Standins,
    home: tempfile::TempDir,
    /// Four short runs, two of them of experts.
    pub(crate) sweep: PathBuf,
}

impl Lab {
    pub(crate) fn new() -> Option<Self> {
        let standins = standins()?;
        let home = tempfile::tempdir().unwrap();
        let sweep = home.path().join("gpus.toml");
        fs::write(&sweep, short_runs("gpus", FAMILIES)).unwrap();
        Some(Self { standins, home, sweep })
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The binary on a machine with so many GPUs, its products exact.
    pub(crate) fn isoloss(&self, data: &str, gpus: u32) -> Command {
        let mut command = isoloss(&self.dir(data));
        self.standins.before(&mut command, gpus);
        command.env("ISOLOSS_STANDIN_TF32", "0");
        command
    }

    /// What the doctor says of a machine with two GPUs.
    pub(crate) fn doctor(&self, environment: &[(&str, &str)]) -> String {
        let mut command = self.isoloss("data", 2);
        command.args(["doctor", "--server", "http://127.0.0.1:0"]).envs(environment.iter().copied());
        text(expect(0, &mut command).stdout)
    }

    /// `up` with its report in `out`.
    pub(crate) fn up(&self, data: &str, gpus: u32, more: &[&str]) -> Command {
        let mut command = self.isoloss(data, gpus);
        command.arg("up").arg(&self.sweep).args(["--port", "0", "--no-probe", "--out"]).arg(self.dir(data).join("out"));
        command.args(more);
        command
    }

    /// Rows of the table in a report's folder, by arm and seed.
    pub(crate) fn table(&self, data: &str) -> BTreeMap<String, BTreeMap<String, String>> {
        let text = fs::read_to_string(self.dir(data).join("out").join("runs.csv")).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().unwrap().clone();
        let named = |row: csv::StringRecord| -> BTreeMap<String, String> {
            header.iter().map(str::to_owned).zip(row.iter().map(str::to_owned)).collect()
        };
        let rows = reader.records().map(|row| named(row.unwrap()));
        rows.map(|row| (format!("{} {}", row["arm"], row["seed"]), row)).collect()
    }
}

pub(crate) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
