//! NVIDIA's Multi-Process Service on this machine: where it is found, what the doctor says of it, what a worker is told and
//! what processes that are timed. Starting and proving it is the `worker` crate's.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use isoloss_train::cuda::{Card, Unusable, cards};
use isoloss_train::session::Fault;
use isoloss_wire::child::EXIT_DEVICE;
use isoloss_worker::{Config, MpsConfig, Sharing, answers};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::args::MpsUse;
use crate::doctor::Finding;
use crate::exit::{Done, Exit};
use crate::{print, worker};

const CONTROL: &str = "nvidia-cuda-mps-control";
/// Names the folder of a daemon's sockets; without it CUDA looks at the usual one.
const PIPES: &str = "CUDA_MPS_PIPE_DIRECTORY";
const USUAL: &str = "/tmp/nvidia-mps";
/// A server that starts on a machine with many GPUs takes seconds for each where none is held open.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells a worker what to do about MPS.
pub(crate) fn tell(config: &mut Config, wanted: MpsUse) -> Done {
    if config.slots.iter().all(|slot| slot.gpu.is_none()) {
        return Ok(());
    }
    match wanted {
        MpsUse::Auto => config.mps = Some(settings(&worker::own_program()?)),
        // A folder without a daemon: CUDA goes on without MPS then, whatever daemon the machine has.
        MpsUse::Off => config.env.push((PIPES.into(), config.data_dir.join("mps").join("none").into())),
    }
    Ok(())
}

/// How processes on one GPU are to share it that are timed: as the runs of a worker that is told the same. Whoever begins it
/// ends it. In `dir`, which is nobody else's, lives a daemon of its own.
pub(crate) async fn sharing(wanted: MpsUse, program: &Path, dir: &Path, gpu: &str) -> Sharing {
    match wanted {
        MpsUse::Auto => Sharing::begin(&settings(program), dir, &[gpu.to_owned()]).await,
        MpsUse::Off => Sharing::outside(dir),
    }
}

/// What would be done about MPS here, as far as looking tells: nothing is started or proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Prospect {
    /// It is not wanted.
    Off,
    /// There is neither a daemon nor the control program.
    Absent,
    /// A daemon was chosen that does not answer.
    Silent,
    /// The daemon that was chosen, or the machine's, answers.
    Daemon,
    /// The control program would be started.
    Own,
}

/// Looks, for what is wanted.
pub(crate) fn prospect(wanted: MpsUse) -> Prospect {
    if wanted == MpsUse::Off {
        return Prospect::Off;
    }
    let (control, chosen) = (control(), chosen());
    let pipes = chosen.as_deref().unwrap_or(Path::new(USUAL));
    let asking = worker::multi_thread().map(|runtime| runtime.block_on(answers(control.as_deref(), pipes)));
    foreseen(asking.unwrap_or(false), chosen.is_some(), control.is_some())
}

fn foreseen(answers: bool, is_chosen: bool, has_control: bool) -> Prospect {
    match (answers, is_chosen, has_control) {
        (true, ..) => Prospect::Daemon,
        (false, true, _) => Prospect::Silent,
        (false, false, true) => Prospect::Own,
        (false, false, false) => Prospect::Absent,
    }
}

fn settings(program: &Path) -> MpsConfig {
    MpsConfig {
        chosen: chosen(),
        usual: USUAL.into(),
        control: control(),
        guard: vec![program.into(), "guard".into(), "--service".into(), "--".into()],
        probe: vec![program.into(), "gpu-open".into()],
        patience: PATIENCE,
        temp: std::env::temp_dir(),
    }
}

fn chosen() -> Option<PathBuf> {
    std::env::var_os(PIPES).filter(|pipes| !pipes.is_empty()).map(PathBuf::from)
}

/// The control program on the `PATH`, or where drivers put it, on machines and into containers.
fn control() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/bin".into(), "/usr/local/nvidia/bin".into()]);
    folders.map(|folder| folder.join(CONTROL)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// One line, good either way: without MPS runs take turns on a GPU.
pub(crate) fn finding() -> Result<Finding, Exit> {
    let (control, pipes) = (control(), chosen().unwrap_or_else(|| USUAL.into()));
    let answers = worker::multi_thread()?.block_on(answers(control.as_deref(), &pipes));
    Ok(Finding::good("mps", words(control.as_deref(), answers.then_some(pipes.as_path()))))
}

fn words(control: Option<&Path>, daemon: Option<&Path>) -> String {
    let control = control.map(|file| file.display());
    match (control, daemon) {
        (_, Some(pipes)) => {
            format!("a daemon answers at {}; runs that share a GPU go through it", pipes.display())
        }
        (Some(control), None) => {
            format!("{control}; no daemon runs: a worker with several runs on a GPU starts its own")
        }
        (None, None) => format!("{CONTROL} not found: runs that share a GPU take turns on it"),
    }
}

/// `gpu-open`: opens every GPU that this process sees and prints them; how a worker proves MPS.
pub(crate) fn open() -> ExitCode {
    let failed = |words: &dyn fmt::Display, fault| {
        print::note(&format!("isoloss: {words}"));
        ExitCode::from(if fault == Fault::Service { u8::try_from(EXIT_DEVICE).unwrap_or(1) } else { 1 })
    };
    let shown = match cards() {
        Ok(shown) => shown,
        Err(error) => return failed(&error, error.fault()),
    };
    // All that it sees is to be proved: one that does not open is as bad as none.
    let cards = match shown.into_iter().collect::<Result<Vec<Card>, Unusable>>() {
        Ok(cards) => cards,
        Err(card) => return failed(&card, card.error.fault()),
    };
    let told = cards.iter().map(|card| {
        json!({ "uuid": card.uuid, "name": card.name, "memory_free_bytes": card.memory.free, "memory_bytes": card.memory.total })
    });
    match print::json(&told.collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.code.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_says_what_a_worker_would_do() {
        let control = Path::new("/usr/bin/nvidia-cuda-mps-control");
        assert!(words(None, None).contains("not found"));
        assert!(words(Some(control), None).contains("starts its own"));
        assert!(words(Some(control), Some(Path::new("/tmp/x"))).contains("answers at /tmp/x"));
    }

    #[test]
    fn a_chosen_daemon_that_is_silent_is_not_replaced() {
        assert_eq!(foreseen(false, true, true), Prospect::Silent);
        assert_eq!(foreseen(true, true, false), Prospect::Daemon);
        assert_eq!(foreseen(true, false, true), Prospect::Daemon);
        assert_eq!((foreseen(false, false, true), foreseen(false, false, false)), (Prospect::Own, Prospect::Absent));
        assert_eq!(prospect(MpsUse::Off), Prospect::Off);
    }

    #[test]
    fn a_worker_without_a_gpu_is_told_nothing() {
        let config = |slots| Config::new("http://x", "w", "/data".into(), slots, "isoloss".into());
        for wanted in [MpsUse::Auto, MpsUse::Off] {
            let mut config = config(isoloss_worker::core_groups(2, 1, 1 << 30));
            tell(&mut config, wanted).unwrap();
            assert!(config.mps.is_none() && config.env.is_empty());
        }
        let mut off = config(isoloss_worker::gpu_slots("GPU-1", 1 << 30, 2));
        tell(&mut off, MpsUse::Off).unwrap();
        assert!(off.mps.is_none());
        assert_eq!(off.env, [("CUDA_MPS_PIPE_DIRECTORY".into(), "/data/mps/none".into())]);
    }
}
