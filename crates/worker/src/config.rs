//! What a worker is told at its start. It does not look at the machine: the caller says what to offer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use isoloss_wire::api::Slot;

use crate::artifacts::Artifacts;
use crate::mps::MpsConfig;
use crate::retention::Keep;

/// Loading a large model or compiling kernels takes minutes; nothing useful is silent for an hour.
const SILENCE: Duration = Duration::from_secs(3600);
/// What grows with each run of a process, as memory that is not given back, grows so often and no more; a start costs a
/// hundredth of a run then.
const RUNS_PER_CHILD: NonZeroU32 = NonZeroU32::new(100).expect("it is not zero");

/// Everything a worker needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The coordinator's URL.
    pub server: String,
    pub token: Option<String>,
    /// Certificates that a server with TLS is believed by; missing: those of the system.
    pub ca_file: Option<PathBuf>,
    /// The same over restarts on the same data directory.
    pub name: String,
    pub data_dir: PathBuf,
    /// Further folders that hold corpora by digest; read only.
    pub corpora: Vec<PathBuf>,
    /// Where checkpoints are kept; missing: in the data directory. Workers on a shared disk name the same folder.
    pub checkpoints: Option<PathBuf>,
    /// Where checkpoints go so that other workers can start from them.
    pub artifacts: Option<Artifacts>,
    /// Names the disk under `checkpoints`; missing: the artifacts' label, or the worker's own name.
    pub storage: Option<String>,
    pub slots: Vec<Slot>,
    /// As the driver calls the GPUs of slots, by [`Slot::gpu`]; for people.
    pub gpu_names: BTreeMap<String, String>,
    /// Program and arguments that train: `isoloss train`.
    pub trainer: Vec<OsString>,
    /// Program and arguments before a foreign command: `isoloss guard --`.
    pub guard: Vec<OsString>,
    /// Leave to run commands that sweeps name.
    pub allow_commands: bool,
    /// How runs that share a GPU come to share it by NVIDIA's Multi-Process Service; missing: nothing is done about it.
    pub mps: Option<MpsConfig>,
    /// Further environment of every child.
    pub env: Vec<(OsString, OsString)>,
    /// Checkpoints that stay when their run has ended.
    pub keep: Keep,
    /// A command of a sweep that says no line of the protocol for this long is ended: it hangs.
    pub silence: Duration,
    /// How long a child may take to write its checkpoint when asked to stop, and to take a run after others.
    pub grace: Duration,
    /// What a process was measured to take of a GPU beside its run's block; a guess stands in where nothing was.
    pub gpu_process_bytes: Option<u64>,
    /// Runs that one child may take one after another, where its trainer allows that; with 1 each has a child of its own.
    pub runs_per_child: NonZeroU32,
}

impl Config {
    /// A worker for `slots`, all else by default. `program` is the `isoloss` binary.
    pub fn new(server: &str, name: &str, data_dir: PathBuf, slots: Vec<Slot>, program: PathBuf) -> Self {
        Self {
            server: server.to_owned(),
            token: None,
            ca_file: None,
            name: name.to_owned(),
            data_dir,
            corpora: Vec::new(),
            checkpoints: None,
            artifacts: None,
            storage: None,
            slots,
            gpu_names: BTreeMap::new(),
            trainer: vec![program.clone().into(), "train".into()],
            guard: vec![program.into(), "guard".into(), "--".into()],
            allow_commands: false,
            mps: None,
            env: Vec::new(),
            keep: Keep::default(),
            silence: SILENCE,
            grace: Duration::from_secs(10),
            gpu_process_bytes: None,
            runs_per_child: RUNS_PER_CHILD,
        }
    }

    /// What the coordinator knows the place of its checkpoints by.
    pub(crate) fn storage_label(&self) -> &str {
        let artifacts = self.artifacts.as_ref().map(Artifacts::label);
        self.storage.as_deref().or(artifacts).unwrap_or(&self.name)
    }
}

/// Splits `cores` into groups of `threads`, memory shared evenly; cores left over are not offered.
pub fn core_groups(cores: u32, threads: u32, memory_bytes: u64) -> Vec<Slot> {
    let threads = threads.clamp(1, cores.max(1));
    let groups = (cores / threads).max(1);
    (0..groups)
        .map(|group| {
            let first = group * threads;
            let last = first + threads - 1;
            Slot {
                name: if first == last { format!("cpu:{first}") } else { format!("cpu:{first}-{last}") },
                gpu: None,
                threads,
                memory_bytes: memory_bytes / u64::from(groups),
            }
        })
        .collect()
}

/// A GPU, or a group of them named with commas between, as one slot, or as several that share its memory: each lease takes
/// of it what its run was planned with.
pub fn gpu_slots(uuid: &str, memory_bytes: u64, runs: u32) -> Vec<Slot> {
    let name = |run: u32| if runs == 1 { uuid.to_owned() } else { format!("{uuid}:{run}") };
    (0..runs).map(|run| Slot { name: name(run), gpu: Some(uuid.to_owned()), threads: 1, memory_bytes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_groups_cover_the_cores_once() {
        let names = |cores, threads| -> Vec<String> {
            core_groups(cores, threads, 8 << 30).into_iter().map(|slot| slot.name).collect()
        };
        assert_eq!(names(2, 1), ["cpu:0", "cpu:1"]);
        assert_eq!(names(5, 2), ["cpu:0-1", "cpu:2-3"]);
        assert_eq!(names(2, 8), ["cpu:0-1"]);
        assert_eq!(core_groups(4, 2, 8 << 30)[0].memory_bytes, 4 << 30);
    }

    #[test]
    fn slots_of_one_gpu_see_all_its_memory_under_names_of_their_own() {
        assert_eq!(gpu_slots("GPU-1", 7, 1)[0].name, "GPU-1");
        let shared = gpu_slots("GPU-1", 7, 2);
        let told: Vec<_> = shared.iter().map(|slot| (slot.name.as_str(), slot.memory_bytes)).collect();
        assert_eq!(told, [("GPU-1:0", 7), ("GPU-1:1", 7)]);
        assert!(shared.iter().all(|slot| slot.gpu.as_deref() == Some("GPU-1")));
    }
}
