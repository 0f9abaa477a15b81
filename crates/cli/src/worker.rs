//! `worker` and `guard`: a worker daemon on this machine, and the watcher between it and a foreign trainer.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use isoloss_wire::api::Slot;
use isoloss_wire::{Client, ClientError};
use isoloss_worker::{Artifacts, Config, Keep, core_groups};
use tokio::sync::watch;

use crate::args::{Kept, Place, WorkerArgs};
use crate::doctor;
use crate::exit::{Done, Exit};
use crate::gpus;
use crate::mps;
use crate::place::DataDir;
use crate::print;

/// Memory that is left to the system when a worker offers the rest.
const MEMORY_KEPT_BYTES: u64 = 1 << 30;
/// What is waited for is said again after this long.
const REMIND: Duration = Duration::from_secs(60);
/// How often the coordinator is looked for, while it answers and while it does not.
const LOOK: Duration = Duration::from_secs(15);
const LOOK_ABSENT: Duration = Duration::from_secs(2);

pub(crate) fn run(place: &Place, args: &WorkerArgs) -> Done {
    let data = DataDir::of(place)?;
    data.leak().iter().for_each(|leak| print::note(leak));
    let name = match &args.name {
        Some(name) => name.clone(),
        None => host_name(),
    };
    let mut slots = cpu_slots(args.cores, args.threads)?;
    let gpus = gpus::slots(&args.gpu, args.gpus_per_run, args.gpu_runs)?;
    slots.extend(gpus.slots);
    let server = place.server().to_owned();
    let client = Client::trusting(&server, None, place.ca_file.as_deref())?.with_tries(1);
    let offer = format!("worker {name} offers {} slot(s) to {}", slots.len(), client.server());
    let mut config = Config::new(&server, &name, data.root().join("worker"), slots, own_program()?);
    config.gpu_names = gpus.names;
    config.allow_commands = args.allow_commands;
    config.runs_per_child = args.runs_per_child.unwrap_or(config.runs_per_child);
    config.keep = match args.keep_checkpoints {
        Kept::None => Keep::None,
        Kept::Last => Keep::Last,
        Kept::All => Keep::All,
    };
    if let Some(text) = &args.silence {
        let seconds = isoloss_sweep::spec::parse_seconds(text).filter(|seconds| *seconds >= 1.0);
        let seconds = seconds
            .ok_or_else(|| Exit::usage(format!("--silence: expected 1s or more such as 30min, got {text:?}")))?;
        config.silence = Duration::from_secs_f64(seconds);
    }
    config.artifacts = args.artifacts.as_deref().map(artifacts).transpose()?;
    config.ca_file.clone_from(&place.ca_file);
    mps::tell(&mut config, args.mps)?;
    print::note(&offer);
    multi_thread()?.block_on(async {
        config.token = tokio::select! {
            token = token_at_last(place, &data) => Some(token?),
            () = crate::signal::wait() => return Ok(()),
        };
        let telling = tokio::spawn(async move { tell_absence(&client).await });
        let (stop, shutdown) = watch::channel(false);
        tokio::spawn(async move {
            crate::signal::wait().await;
            print::note("stopping: running attempts write a checkpoint and give their slot back");
            stop.send_replace(true);
        });
        let ended = isoloss_worker::run(config, shutdown).await.map_err(Exit::failure);
        telling.abort();
        ended
    })
}

/// The store of artifacts that a URL names, with the keys of the environment.
pub(crate) fn artifacts(url: &str) -> Result<Artifacts, Exit> {
    let artifacts = Artifacts::open(url, std::env::vars_os().filter_map(text));
    artifacts.map_err(|error| Exit::usage(format!("--artifacts: {error}")))
}

/// A variable that is text.
fn text((name, value): (OsString, OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

/// The access token. A coordinator on the same data directory may start after its workers and make the file then.
async fn token_at_last(place: &Place, data: &DataDir) -> Result<String, Exit> {
    let file = place.token_file.clone().unwrap_or_else(|| data.token());
    let mut told: Option<Instant> = None;
    loop {
        match std::fs::read_to_string(&file) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Exit::failure(format!("cannot read the token file {}: {error}", file.display())));
            }
            Ok(_) | Err(_) => {}
        }
        if told.is_none_or(|told| told.elapsed() >= REMIND) {
            told = Some(Instant::now());
            print::note(&format!(
                "waiting for the token file {}: `isoloss serve` on this data directory writes it; for a coordinator \
                 elsewhere copy its file here, or name it with --token-file FILE",
                file.display()
            ));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Says when no coordinator answers, now and then while that lasts, and when it answers again.
async fn tell_absence(client: &Client) -> std::convert::Infallible {
    let mut told: Option<Instant> = None;
    loop {
        match client.ready().await {
            Err(ClientError::Unreachable { server, absence, reason }) => {
                if told.is_none_or(|told| told.elapsed() >= REMIND) {
                    told = Some(Instant::now());
                    let hint = crate::remote::hint(absence);
                    print::note(&format!("waiting for the coordinator at {server}: {reason}\n{hint}"));
                }
            }
            Ok(()) if told.take().is_some() => print::note(&format!("the coordinator at {} answers", client.server())),
            Ok(()) | Err(_) => {}
        }
        tokio::time::sleep(if told.is_some() { LOOK_ABSENT } else { LOOK }).await;
    }
}

/// Core groups of `threads` each, over `cores` or all cores of the process.
pub(crate) fn cpu_slots(cores: Option<usize>, threads: usize) -> Result<Vec<Slot>, Exit> {
    let available = doctor::cores();
    let cores = cores.unwrap_or(available);
    if cores > available {
        return Err(Exit::usage(format!("--cores: this machine offers {available} core(s), got {cores}")));
    }
    if cores == 0 || threads == 0 || threads > cores {
        return Err(Exit::usage(format!("cannot split {cores} core(s) into groups of {threads}")));
    }
    let memory = doctor::memory_available_bytes().unwrap_or(4 << 30).saturating_sub(MEMORY_KEPT_BYTES).max(256 << 20);
    let narrow = |n: usize| u32::try_from(n).map_err(|_| Exit::usage("too many cores"));
    Ok(core_groups(narrow(cores)?, narrow(threads)?, memory))
}

/// The path of this binary, which also trains.
pub(crate) fn own_program() -> Result<std::path::PathBuf, Exit> {
    std::env::current_exe().map_err(|e| Exit::failure(format!("cannot find this program's own file: {e}")))
}

pub(crate) fn multi_thread() -> Result<tokio::runtime::Runtime, Exit> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "worker".to_owned() } else { name.trim().to_owned() }
}

/// Runs a foreign command, or a service, in a process group of its own and ends the group when stdin closes.
pub(crate) fn guard(command: &[String], service: bool) -> ExitCode {
    let command: Vec<OsString> = command.iter().map(OsString::from).collect();
    match if service { isoloss_worker::keep(&command) } else { isoloss_worker::guard(&command) } {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            print::note(&format!("isoloss: cannot run {}: {error}", command[0].display()));
            ExitCode::from(78)
        }
    }
}
