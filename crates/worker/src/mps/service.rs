//! The daemon as a process: found, started, proved, stopped. `nvidia-cuda-mps-control` is both: with `-f` the daemon, else
//! a client that passes the commands on its stdin to the daemon at `CUDA_MPS_PIPE_DIRECTORY`. The daemon runs in the
//! foreground under a guard of the worker's: whatever ends the worker ends the guard's input, and with it daemon and server.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use isoloss_wire::child::EXIT_DEVICE;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::folder::Folder;
use super::{LOGS, MpsConfig, PIPES, Variable};

/// A command to a daemon is answered at once or not at all.
const ANSWER: Duration = Duration::from_secs(5);
/// Between looks at what takes its time.
const LOOK: Duration = Duration::from_millis(50);
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// A message of another program, at most.
const WORDS_CHARS: usize = 300;

/// A daemon that takes clients.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) pipes: PathBuf,
    /// Where it is this worker's own.
    pub(super) daemon: Option<Daemon>,
}

/// A daemon of this worker's. Without [`Daemon::end`] it ends with the pipe to its guard, which closes with this.
#[derive(Debug)]
pub(crate) struct Daemon {
    guard: Child,
    /// Its end ends the guard; apart, because waiting for a process closes its input.
    tether: Option<ChildStdin>,
    control: PathBuf,
    folder: Folder,
}

impl Found {
    /// What a client has to be told.
    pub(super) fn variables(&self) -> Vec<Variable> {
        let logs = self.daemon.iter().map(|daemon| (LOGS, daemon.folder.logs.clone().into()));
        std::iter::once((PIPES, self.pipes.clone().into())).chain(logs).collect()
    }
}

/// The daemon that was chosen, the machine's, or one of the worker's own; none where there is no MPS. The error says why what
/// is there does not work.
pub(super) async fn find(settings: &MpsConfig, data_dir: &Path, gpus: &[String]) -> Result<Option<Found>, String> {
    let control = settings.control.as_deref();
    let found = if let Some(pipes) = &settings.chosen {
        if !answers(control, pipes).await {
            return Err(format!("no daemon answers at {PIPES}={}", pipes.display()));
        }
        Found { pipes: pipes.clone(), daemon: None }
    } else if answers(control, &settings.usual).await {
        Found { pipes: settings.usual.clone(), daemon: None }
    } else if let Some(control) = control {
        let daemon = Daemon::start(settings, control, data_dir, gpus).await?;
        Found { pipes: daemon.folder.pipes.clone(), daemon: Some(daemon) }
    } else {
        return Ok(None);
    };
    if let Err(why) = prove(settings, &found, gpus).await {
        if let Some(daemon) = found.daemon {
            daemon.end().await;
        }
        return Err(why);
    }
    Ok(Some(found))
}

/// Whether a daemon has its sockets in `pipes` and listens. Without the control program a socket that takes a connection
/// says so too.
pub async fn answers(control: Option<&Path>, pipes: &Path) -> bool {
    if !pipes.is_dir() {
        return false;
    }
    match control {
        Some(control) => ask(control, pipes, "get_server_list").await.is_ok_and(|output| output.status.success()),
        None => UnixStream::connect(pipes.join("control")).is_ok(),
    }
}

/// Gives the daemon at `pipes` a command.
async fn ask(control: &Path, pipes: &Path, command: &str) -> std::io::Result<Output> {
    let mut client = Command::new(control);
    client.env(PIPES, pipes).env_remove(LOGS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = client.process_group(0).kill_on_drop(true).spawn()?;
    let mut stdin = client.stdin.take().expect("stdin was asked for as a pipe");
    let talk = async {
        // One that does not read ends by itself or is ended; its exit tells.
        let _ = stdin.write_all(format!("{command}\n").as_bytes()).await;
        drop(stdin);
        client.wait_with_output().await
    };
    timeout(ANSWER, talk).await?
}

/// Opens the GPUs as a run would: MPS may be there without the right to it, or not for such a GPU.
async fn prove(settings: &MpsConfig, found: &Found, gpus: &[String]) -> Result<(), String> {
    let until = Instant::now() + settings.patience;
    loop {
        let Some((program, arguments)) = settings.probe.split_first() else { return Ok(()) };
        let mut probe = Command::new(program);
        probe.args(arguments).envs(found.variables()).env("CUDA_VISIBLE_DEVICES", gpus.join(","));
        probe.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        let output = match timeout_at(until, probe.output()).await {
            Err(_) => return Err(format!("opening the GPU took more than {} s", settings.patience.as_secs_f64())),
            Ok(Err(error)) => return Err(format!("cannot start {}: {error}", Path::new(program).display())),
            Ok(Ok(output)) => output,
        };
        // A server that is only starting refuses too.
        let again = output.status.code() == Some(EXIT_DEVICE) && Instant::now() + TRY_AGAIN < until;
        match opened(&output, gpus.len()) {
            Err(_) if again => sleep(TRY_AGAIN).await,
            judged => return judged,
        }
    }
}

fn opened(output: &Output, wanted: usize) -> Result<(), String> {
    if !output.status.success() {
        return Err(format!(
            "the GPU does not open: {}",
            last_words(&output.stderr).unwrap_or(output.status.to_string())
        ));
    }
    let gpus: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("opening the GPU did not say what it found: {error}"))?;
    if gpus.len() < wanted {
        return Err(format!("{} of {wanted} GPUs can be opened", gpus.len()));
    }
    Ok(())
}

fn last_words(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().take(WORDS_CHARS).collect())
}

impl Daemon {
    /// Starts one for these GPUs alone and waits until it answers.
    async fn start(settings: &MpsConfig, control: &Path, data_dir: &Path, gpus: &[String]) -> Result<Self, String> {
        let told = |what: &str, error: std::io::Error| format!("{what}: {error}");
        let folder = Folder::of(data_dir, &settings.temp).map_err(|error| told("no folder for it", error))?;
        end_left_over(control, &folder.pipes).await;
        folder.make().map_err(|error| told("cannot make its folder", error))?;
        let log = folder.logs.join("daemon.txt");
        let file = File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) = file.map_err(|error| told("cannot make its log", error))?;
        let mut words = settings.guard.iter().cloned().chain([control.into(), OsString::from("-f")]);
        let mut command = Command::new(words.next().expect("the control program at least"));
        command.args(words).env(PIPES, &folder.pipes).env(LOGS, &folder.logs).env_remove("ISOLOSS_TOKEN_FILE");
        // By their UUIDs on both sides, because indices would be counted anew by the daemon's clients.
        command.env("CUDA_VISIBLE_DEVICES", gpus.join(",")).process_group(0);
        let guard = command.stdin(Stdio::piped()).stdout(out).stderr(err).spawn();
        let mut guard = guard.map_err(|error| told("cannot start it", error))?;
        let mut daemon = Self { tether: guard.stdin.take(), guard, control: control.to_owned(), folder };
        if let Err(why) = daemon.answers_within(settings.patience).await {
            let words = last_words(&std::fs::read(&log).unwrap_or_default());
            daemon.end().await;
            return Err(words.map_or(why.clone(), |words| format!("{why}: {words}")));
        }
        Ok(daemon)
    }

    async fn answers_within(&mut self, patience: Duration) -> Result<(), String> {
        let until = Instant::now() + patience;
        while !answers(Some(&self.control), &self.folder.pipes).await {
            if let Ok(Some(status)) = self.guard.try_wait() {
                return Err(format!("{} ended at once ({status})", self.control.display()));
            }
            if Instant::now() >= until {
                return Err(format!("{} did not answer within {} s", self.control.display(), patience.as_secs_f64()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Asks it to go, and ends it with all that it started. Its clients are gone by now.
    pub(crate) async fn end(mut self) {
        if matches!(self.guard.try_wait(), Ok(None)) {
            let asked = ask(&self.control, &self.folder.pipes, "quit").await;
            tracing::debug!(asked = asked.is_ok(), "the MPS daemon was asked to go");
            let obeyed = asked.is_ok_and(|output| output.status.success());
            if !obeyed || timeout(ANSWER, self.guard.wait()).await.is_err() {
                self.force().await;
            }
        }
        if let Err(error) = self.folder.clear() {
            tracing::debug!(%error, "something of the MPS daemon stays");
        }
    }

    /// The end of its input makes the guard kill what it started, which the group's end alone would not.
    async fn force(&mut self) {
        let group = self.guard.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        self.tether = None;
        if timeout(ANSWER, self.guard.wait()).await.is_err()
            && let Some(group) = group
        {
            let _ = killpg(group, Signal::SIGKILL);
            let _ = timeout(ANSWER, self.guard.wait()).await;
        }
    }
}

/// A daemon that outlived an earlier worker of this data directory, which no other worker has: its guard was killed too.
async fn end_left_over(control: &Path, pipes: &Path) {
    if !answers(Some(control), pipes).await {
        return;
    }
    tracing::info!(pipes = %pipes.display(), "an MPS daemon of an earlier life is asked to go");
    let _ = ask(control, pipes, "quit").await;
    let until = Instant::now() + ANSWER;
    while answers(Some(control), pipes).await && Instant::now() < until {
        sleep(LOOK).await;
    }
}
