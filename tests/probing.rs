//! A GPU that runs will share is timed by processes that share it the same way, on stand-ins of CUDA's libraries and of the
//! MPS control program: what these processes are told, what is left of a daemon, and which speeds are kept. No speed is held
//! to anything.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::binary::{Daemon, children_of, expect, until};
use crate::gpu_lab::{FIRST, Lab, short_runs, text};

const CONTROL: &str = include_str!("../crates/worker/tests/daemons/control.sh");
/// One that cannot be started, and notes that it was tried.
const FAILING: &str = "#!/bin/sh\necho tried >>\"$(dirname \"$0\")/tried\"\necho 'no right to do this' >&2\nexit 1\n";

const PIPES: &str = "CUDA_MPS_PIPE_DIRECTORY";
const LOGS: &str = "CUDA_MPS_LOG_DIRECTORY";
const LIMIT: &str = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT";
/// One that times runs is at work for seconds.
const TIMED: usize = 4;

/// A machine with one GPU and a control program of MPS, which keeps notes beside it.
struct Machine(Lab);

impl Machine {
    fn new(control: &str) -> Option<Self> {
        if Path::new("/tmp/nvidia-mps").exists() {
            eprintln!("SKIPPED: this machine has an MPS daemon, or had one: it would be looked for there");
            return None;
        }
        let machine = Self(Lab::new()?);
        for folder in ["control", "data"] {
            fs::create_dir(machine.0.dir(folder)).unwrap();
        }
        fs::write(machine.0.dir("probed.toml"), short_runs("probed", "")).unwrap();
        machine.install(control);
        Some(machine)
    }

    fn install(&self, control: &str) {
        let file = self.notes("nvidia-cuda-mps-control");
        fs::write(&file, control).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn notes(&self, name: &str) -> PathBuf {
        self.0.dir("control").join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.notes(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// A command on the sweep.
    fn command(&self, name: &str, more: &[&str]) -> Command {
        let mut command = self.0.isoloss("data", 1);
        let folders = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect::<Vec<_>>();
        let folders = std::iter::once(self.0.dir("control")).chain(folders);
        command.env("PATH", std::env::join_paths(folders).unwrap());
        for name in [PIPES, LOGS, LIMIT] {
            command.env_remove(name);
        }
        command.arg(name).arg(self.0.dir("probed.toml")).args(more);
        command
    }

    /// Where the command with this id has what nobody needs afterwards.
    fn scratch(&self, pid: u32) -> PathBuf {
        self.0.dir("data").canonicalize().unwrap().join(format!("probe-{pid}"))
    }

    /// Of a process that times runs for the command with this id, outside of MPS.
    fn outside(&self, pid: u32) -> Told {
        let nowhere = self.scratch(pid).join("mps").join("none");
        Told::from([(PIPES.to_owned(), nowhere.display().to_string())])
    }

    /// The same as clients of a daemon that lives as long as the command, with memory for a run of the sweep.
    fn inside(&self, pid: u32, more: &[&str]) -> Told {
        let bare = expect(0, &mut self.command("plan", &[&["--json", "--no-probe"], more].concat()));
        let plan: Value = serde_json::from_slice(&bare.stdout).unwrap();
        let memory = plan["runs"][0]["memory_bytes"].as_u64().unwrap().div_ceil(1 << 20);
        let [pipes, logs] = ["pipe", "log"].map(|name| self.scratch(pid).join("mps").join(name).display().to_string());
        Told::from(
            [(PIPES, pipes), (LOGS, logs), (LIMIT, format!("0={memory}M"))]
                .map(|(name, value)| (name.to_owned(), value)),
        )
    }

    /// Nothing of a daemon or of a measurement is left.
    fn is_clear(&self) -> bool {
        let mut pids = self.lines("pids").into_iter();
        let names = fs::read_dir(self.0.dir("data")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names = names.map(|name| name.into_string().unwrap());
        pids.all(|pid| has_ended(&pid)) && !names.any(|name| name.starts_with("probe-"))
    }

    /// What `probe.json` has of the GPU.
    fn kept(&self) -> Value {
        let text = fs::read(self.0.dir("data").join("probe.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["gpu"].take()
    }
}

fn has_ended(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

/// What a process was told of MPS.
type Told = BTreeMap<String, String>;

/// The processes that time runs for the command with this id, and what each was told.
fn timing(pid: u32) -> BTreeMap<u32, Told> {
    let of = |child: u32| {
        let words = fs::read(format!("/proc/{child}/cmdline")).ok()?;
        let variables = fs::read(format!("/proc/{child}/environ")).ok()?;
        let is_trial = words.split(|byte| *byte == 0).nth(1) == Some(b"trial");
        // One that is on its way out has none any more.
        (is_trial && !variables.is_empty()).then(|| {
            let variables = text(variables);
            let pairs = variables.split('\0').filter_map(|pair| pair.split_once('='));
            (
                child,
                pairs
                    .filter(|(name, _)| name.starts_with("CUDA_MPS_"))
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
                    .collect(),
            )
        })
    };
    children_of(pid).into_iter().filter_map(of).collect()
}

/// Lets a command end well; its id, what the processes were told that timed runs for it, and what it said.
fn watch(mut command: Command) -> (u32, Vec<Told>, Output) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut seen = BTreeMap::new();
    let status = until("the command's end", || {
        seen.extend(timing(child.id()));
        child.try_wait().unwrap()
    });
    let (pid, output) = (child.id(), child.wait_with_output().unwrap());
    assert!(status.success(), "{}", text(output.stderr));
    (pid, seen.into_values().collect(), output)
}

fn measured(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("measuring this machine's GPU")
}

#[test]
fn runs_are_timed_the_way_they_will_share_a_gpu() {
    let Some(machine) = Machine::new(CONTROL) else { return };
    let plan = |more: &[&str]| machine.command("plan", more);
    let (pid, told, output) = watch(plan(&[]));
    let client = machine.inside(pid, &[]);
    assert_eq!(told, vec![client.clone(); TIMED]);
    let said = text(output.stdout);
    assert!(said.contains("on 1 GPU(s), up to 4 runs on each through MPS of this machine"), "{said}");
    let own = format!("{FIRST} in {} logs {}", client[PIPES], client[LOGS]);
    assert_eq!(machine.lines("daemons"), [own.as_str(), "obeyed"], "it was asked to go");
    assert!(machine.is_clear());
    assert_eq!((&machine.kept()["host"]["mps"], &machine.kept()["through_mps"]), (&"own".into(), &true.into()));

    // What is known needs no daemon.
    let (_, told, output) = watch(plan(&[]));
    assert!(told.is_empty() && !measured(&output));
    assert!(text(output.stdout).contains("through MPS"));
    assert_eq!(machine.lines("daemons").len(), 2);

    // It says nothing of runs that take turns, nor these of it.
    let out = machine.0.dir("out");
    let (pid, told, output) =
        watch(machine.command("up", &["--mps", "off", "--port", "0", "--out", out.to_str().unwrap()]));
    assert_eq!(told, vec![machine.outside(pid); TIMED]);
    assert!(measured(&output) && !text(output.stderr).contains("through MPS"));
    assert!(machine.lines("daemons").len() == 2 && machine.is_clear());
    let (_, told, output) = watch(plan(&["--mps", "off"]));
    assert!(told.is_empty() && !measured(&output) && !text(output.stdout).contains("through MPS"));

    // Whatever ends the command ends its daemon.
    let mut killed = Daemon::start(&mut plan(&[]));
    let told = until("four processes", || Some(timing(killed.id())).filter(|timing| timing.len() == TIMED));
    assert_eq!(told.into_values().collect::<Vec<_>>(), vec![machine.inside(killed.id(), &[]); TIMED]);
    assert_eq!(machine.lines("daemons").len(), 3);
    killed.kill();
    until("the daemon's end", || machine.lines("pids").iter().all(|pid| has_ended(pid)).then_some(()));
}

#[test]
fn an_mps_that_does_not_work_is_told_once_and_runs_are_timed_without_it() {
    let Some(machine) = Machine::new(FAILING) else { return };
    let plan = |more: &[&str]| machine.command("plan", more);
    let (pid, told, output) = watch(plan(&[]));
    assert_eq!(told, vec![machine.outside(pid); TIMED]);
    let said = text(output.stderr);
    assert_eq!(said.matches("MPS is here and does not work").count(), 1, "{said}");
    assert!(said.contains("no right to do this") && !text(output.stdout).contains("through MPS"), "{said}");
    let tried = machine.lines("tried");
    assert!(!tried.is_empty() && machine.is_clear());
    assert_eq!(machine.kept()["through_mps"], false);
    let (_, told, output) = watch(plan(&[]));
    assert!(told.is_empty() && !measured(&output));
    assert_eq!(machine.lines("tried"), tried, "what is known is not tried again");

    // It is tried by the measurement and by the worker, which are one process.
    let out = machine.0.dir("out");
    let (_, told, output) =
        watch(machine.command("up", &["--port", "0", "--set", "axes.params=['9k']", "--out", out.to_str().unwrap()]));
    let said = text(output.stderr);
    assert!(!told.is_empty() && machine.lines("tried").len() >= tried.len() + 2, "{:?}", machine.lines("tried"));
    assert_eq!(said.matches("MPS is here and does not work").count(), 1, "{said}");

    // Once it works, what was measured without it is forgotten with the next measurement.
    machine.install(CONTROL);
    let larger = ["--set", "axes.params=['6k']"];
    let (pid, told, _) = watch(plan(&larger));
    assert_eq!(told, vec![machine.inside(pid, &larger); TIMED]);
    let kept = machine.kept();
    assert_eq!((kept["shapes"].as_array().unwrap().len(), &kept["through_mps"]), (1, &true.into()));
}
