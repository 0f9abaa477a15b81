//! What was measured of this machine, kept as `probe.json` in the data directory. It measures nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use isoloss_sweep::plan::{GpuShape, Rate};
use isoloss_sweep::run::{EngineKind, Precision};
use serde::{Deserialize, Serialize};

use crate::mps::Prospect;

const SCHEMA_VERSION: u32 = 3;
/// What else runs on a machine changes, and with it the speed that is left.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// The file: what was measured on cores and on a GPU, each as long as it is good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    schema_version: u32,
    pub(super) cores: Option<Cores>,
    pub(super) gpu: Option<Gpu>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Cores {
    /// When the first of it was measured, in seconds since 1970.
    pub(super) since: u64,
    pub(super) host: Host,
    pub(super) rates: Vec<Measured>,
}

/// All that a rate depends on beside engine, precision and shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Host {
    pub(super) cpu: String,
    pub(super) instruction_set: String,
    /// Runs of one thread that were measured side by side.
    pub(super) slots: u32,
    pub(super) code_version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) engine: EngineKind,
    pub(super) precision: Precision,
    pub(super) moe: bool,
    pub(super) flops_per_token: f64,
    pub(super) tokens_per_second: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Gpu {
    pub(super) since: u64,
    pub(super) host: GpuHost,
    /// Whether processes side by side went through MPS: with the same prospect it may work or not.
    pub(super) through_mps: bool,
    /// The most that a process was seen to take beside its block, and through MPS a little more.
    pub(super) process_bytes: Option<u64>,
    pub(super) process_seconds: f64,
    pub(super) shapes: Vec<GpuShape>,
}

/// All that these depend on beside the shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct GpuHost {
    pub(super) gpu: String,
    pub(super) driver: String,
    pub(super) nvrtc: String,
    /// Runs that were measured side by side.
    pub(super) beside: u32,
    /// What was to be done about MPS.
    pub(super) mps: Prospect,
    pub(super) code_version: String,
}

impl Gpu {
    /// Nothing was measured yet.
    pub(super) fn bare(host: GpuHost, through_mps: bool) -> Self {
        Self { since: now(), host, through_mps, process_bytes: None, process_seconds: 0.0, shapes: Vec::new() }
    }
}

impl Kept {
    /// What the file has of this machine; nothing where it is of another, of another program, or old.
    pub(super) fn recall(file: &Path, host: &Host, gpu: Option<&GpuHost>) -> Self {
        let read = || serde_json::from_slice::<Self>(&fs::read(file).ok()?).ok();
        let kept = read().filter(|kept| kept.schema_version == SCHEMA_VERSION);
        let (cores, measured) = kept.map_or((None, None), |kept| (kept.cores, kept.gpu));
        Self {
            schema_version: SCHEMA_VERSION,
            cores: cores.filter(|cores| cores.host == *host && good(cores.since)),
            // Where no GPU is asked for, what is known of it stays.
            gpu: measured.filter(|measured| gpu.is_none_or(|gpu| measured.host == *gpu) && good(measured.since)),
        }
    }

    /// Two commands at once may both write: whole files only, and either is right.
    pub(super) fn keep(&self, file: &Path) -> std::io::Result<()> {
        let partial = file.with_extension(format!("{}.partial", std::process::id()));
        fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&partial, file)
    }
}

/// A clock that was set back makes a measurement from the future, which is as good as a new one.
fn good(since: u64) -> bool {
    now().saturating_sub(since) <= KEPT.as_secs()
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Measured {
    pub(super) fn rate(&self) -> Rate {
        Rate {
            engine: self.engine,
            precision: self.precision,
            moe: self.moe,
            flops_per_token: self.flops_per_token,
            tokens_per_second: self.tokens_per_second,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host { cpu: "c".into(), instruction_set: "avx2".into(), slots: 2, code_version: "1".into() }
    }

    fn gpu_host() -> GpuHost {
        let [gpu, driver, nvrtc, code_version] = ["H200", "570.86", "13.0", "1"].map(str::to_owned);
        GpuHost { gpu, driver, nvrtc, beside: 4, mps: Prospect::Own, code_version }
    }

    fn kept(since: u64) -> Kept {
        let gpu = Gpu { since, process_bytes: Some(7), process_seconds: 0.5, ..Gpu::bare(gpu_host(), true) };
        let cores = Cores { since, host: host(), rates: Vec::new() };
        Kept { schema_version: SCHEMA_VERSION, cores: Some(cores), gpu: Some(gpu) }
    }

    #[test]
    fn what_was_measured_is_kept_for_the_same_machine_and_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("probe.json");
        let has = |host: &Host, gpu: Option<&GpuHost>| {
            let kept = Kept::recall(&file, host, gpu);
            (kept.cores.is_some(), kept.gpu.is_some())
        };
        assert_eq!(has(&host(), Some(&gpu_host())), (false, false), "there is no file");
        kept(now()).keep(&file).unwrap();
        assert_eq!(Kept::recall(&file, &host(), Some(&gpu_host())), Kept { ..kept(now()) });
        assert_eq!(has(&host(), None), (true, true));
        assert_eq!(has(&Host { slots: 1, ..host() }, Some(&gpu_host())), (false, true));
        for other in [
            GpuHost { gpu: "H100".into(), ..gpu_host() },
            GpuHost { driver: "580.1".into(), ..gpu_host() },
            GpuHost { nvrtc: "12.8".into(), ..gpu_host() },
            GpuHost { beside: 2, ..gpu_host() },
            GpuHost { mps: Prospect::Off, ..gpu_host() },
            GpuHost { mps: Prospect::Daemon, ..gpu_host() },
            GpuHost { code_version: "2".into(), ..gpu_host() },
        ] {
            assert_eq!(has(&host(), Some(&other)), (true, false), "{other:?}");
        }
        kept(now() - 25 * 3600).keep(&file).unwrap();
        assert_eq!(has(&host(), Some(&gpu_host())), (false, false), "it is old");
        kept(now() + 25 * 3600).keep(&file).unwrap();
        assert_eq!(has(&host(), Some(&gpu_host())), (true, true), "the clock was set back");
        Kept { schema_version: SCHEMA_VERSION - 1, ..kept(now()) }.keep(&file).unwrap();
        assert_eq!(has(&host(), Some(&gpu_host())), (false, false), "another program wrote it");
        let first = r#"{"schema_version": 1, "host": {"cpu": "c"}, "rates": []}"#;
        fs::write(&file, first).unwrap();
        assert_eq!(has(&host(), None), (false, false), "of an older form");
    }
}
