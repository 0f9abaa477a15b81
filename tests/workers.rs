//! Workers as an operator meets them: two of one name, two on one directory, drained ones, and what is said of a paused sweep.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::binary::{Daemon, expect, free_port, isoloss, until};

/// Runs that a worker is busy with for some seconds.
const SWEEP: &str = r#"schema = 1
name = "long"

[corpus]
source = "synthetic"
preset = "tiny"
bytes = "400kB"
validation = 0.2

[model]
context = 64

[axes]
params = ["20k"]
tokens = ["1M"]
seed = [1, 2, 3, 4, 5, 6]

[[arm]]
name = "dense"
"#;

/// A coordinator with its data and a folder for those of workers.
struct Lab {
    home: tempfile::TempDir,
    url: String,
    _coordinator: Daemon,
}

impl Lab {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let coordinator =
            Daemon::start(isoloss(&home.path().join("coordinator")).args(["serve", "--listen", &address]));
        let lab = Self { home, url: format!("http://{address}"), _coordinator: coordinator };
        until("the coordinator", || lab.client(&["status"]).output().unwrap().status.success().then_some(()));
        lab
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = isoloss(&self.dir("coordinator"));
        command.args(["--server", &self.url]).args(arguments);
        command
    }

    fn worker(&self, name: &str, data: &Path) -> Command {
        let mut command = isoloss(data);
        command.args(["--server", &self.url, "--token-file"]).arg(self.dir("coordinator").join("token"));
        command.args(["worker", "--cores", "1", "--name", name]);
        command
    }

    fn submit(&self) -> String {
        let file = self.dir("long.toml");
        std::fs::write(&file, SWEEP).unwrap();
        said(0, &mut self.client(&["submit", file.to_str().unwrap()]))
    }

    fn workers(&self) -> Vec<Value> {
        let output = expect(0, &mut self.client(&["workers", "--json"]));
        let workers: Value = serde_json::from_slice(&output.stdout).unwrap();
        workers["workers"].as_array().unwrap().clone()
    }

    fn joined(&self, name: &str) {
        until("a worker", || self.workers().iter().any(|row| row["worker"] == name).then_some(()));
    }
}

/// What a command says on stderr, whatever its exit code.
fn said(code: i32, command: &mut Command) -> String {
    String::from_utf8(expect(code, command).stderr).unwrap()
}

#[test]
fn a_second_worker_of_a_name_or_of_a_directory_is_refused_and_told_what_to_do() {
    let lab = Lab::start();
    let first = Daemon::start(&mut lab.worker("w", &lab.dir("one")));
    lab.joined("w");
    let twin = said(1, &mut lab.worker("w", &lab.dir("two")));
    let holder = format!("process {} with the data directory", first.id());
    for word in ["worker \"w\" is another process", holder.as_str(), "at 127.0.0.1", "s ago", "--name"] {
        assert!(twin.contains(word), "{word:?} is not in {twin}");
    }
    let same = said(1, &mut lab.worker("v", &lab.dir("one")));
    let busy = format!("another worker uses the data directory {}", lab.dir("one").join("worker").display());
    assert!(same.contains(&busy) && same.contains(&format!("(process {})", first.id())), "{same}");

    // A worker that says goodbye leaves its name; one that is killed leaves it to the next on its directory.
    first.stop();
    let mut second = Daemon::start(&mut lab.worker("w", &lab.dir("two")));
    lab.joined("w");
    second.kill();
    let third = Daemon::start(&mut lab.worker("w", &lab.dir("two")));
    until("the third to be heard", || {
        let told = said(1, &mut lab.worker("w", &lab.dir("one")));
        told.contains(&format!("process {} ", third.id())).then_some(())
    });
}

#[test]
fn a_drained_worker_ends_its_run_and_gets_no_more_until_it_is_let() {
    let lab = Lab::start();
    let worker = Daemon::start(&mut lab.worker("w", &lab.dir("one")));
    lab.joined("w");
    lab.submit();
    let row = || lab.workers().swap_remove(0);
    until("a run", || (row()["busy"] == 1).then_some(()));
    let told = said(0, &mut lab.client(&["drain", "w"]));
    assert!(told.contains("ends the 1 run(s)") && told.contains("undrain w"), "{told}");
    assert_eq!(row()["draining"], true);
    let status = said(0, &mut lab.client(&["status"]));
    assert!(status.contains("worker w: draining, 1 run(s) go on there"), "{status}");
    until("its run to end", || (row()["busy"] == 0).then_some(()));
    let runs = || {
        let output = expect(0, &mut lab.client(&["status", "long", "--json"]));
        let runs: Value = serde_json::from_slice(&output.stdout).unwrap();
        runs["runs"].as_array().unwrap().clone()
    };
    let states: Vec<Value> = runs().iter().map(|run| run["state"].clone()).collect();
    let count = |state: &str| states.iter().filter(|known| **known == state).count();
    assert!(count("finished") >= 1 && count("pending") >= 1, "{states:?}");
    assert_eq!(count("finished") + count("pending"), 6, "{states:?}");
    let waiting = runs().into_iter().find(|run| run["state"] == "pending").unwrap();
    let explained = expect(0, &mut lab.client(&["explain", waiting["run_id"].as_str().unwrap()]));
    let why = String::from_utf8(explained.stdout).unwrap();
    assert!(why.contains("w is draining: `isoloss undrain w`"), "{why}");

    // The order outlives the worker.
    worker.stop();
    let _again = Daemon::start(&mut lab.worker("w", &lab.dir("one")));
    lab.joined("w");
    assert_eq!((&row()["draining"], &row()["busy"]), (&Value::Bool(true), &0.into()));
    said(0, &mut lab.client(&["undrain", "w"]));
    until("another run", || (row()["busy"] == 1).then_some(()));
    let unknown = said(4, &mut lab.client(&["drain", "x"]));
    assert!(unknown.contains("no worker \"x\" here: w"), "{unknown}");
}

#[test]
fn a_paused_sweep_that_is_handed_in_again_says_that_it_is_paused() {
    let lab = Lab::start();
    assert!(!lab.submit().contains("paused"));
    expect(0, &mut lab.client(&["pause", "long"]));
    let told = lab.submit();
    assert!(told.contains("it is paused, so no run of it starts: `isoloss resume "), "{told}");
    let id = told.split("isoloss resume ").nth(1).unwrap().split('`').next().unwrap();
    expect(0, &mut lab.client(&["resume", id]));
    assert!(!lab.submit().contains("paused"));
}

#[test]
fn up_stores_checkpoints_among_the_artifacts_too() {
    let home = tempfile::tempdir().unwrap();
    let (file, store) = (home.path().join("wsd.toml"), home.path().join("artifacts"));
    let wsd = SWEEP.replace(
        "tokens = [\"1M\"]\nseed = [1, 2, 3, 4, 5, 6]",
        "tokens = [\"20k\", \"40k\"]\n\n[train]\nschedule = { wsd = { decay = 0.2 } }",
    );
    std::fs::write(&file, wsd).unwrap();
    let up = |url: &str| {
        let mut command = isoloss(&home.path().join("data"));
        command.args(["up", file.to_str().unwrap(), "--port", "0", "--no-probe", "--artifacts", url]);
        command
    };
    let wrong = said(2, &mut up("ftp://nowhere"));
    assert!(wrong.contains("--artifacts: "), "{wrong}");
    std::fs::create_dir(&store).unwrap();
    expect(0, &mut up(store.to_str().unwrap()));
    let stored = std::fs::read_dir(store.join("checkpoints")).unwrap().count();
    assert_eq!(stored, 3, "of the trunk and its two branches");
}

/// A control program that only looks like NVIDIA's: with -f a daemon until it is asked to go, else its client.
const CONTROL: &str = r#"#!/bin/sh
pid=$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid
if [ "$1" = -f ]; then
    echo $$ >>"$(dirname "$0")/pids"
    echo $$ >"$pid"
    while [ -e "$pid" ]; do sleep 0.05; done
    exit 0
fi
read -r command
[ -e "$pid" ] || exit 1
[ "$command" != quit ] || rm "$pid"
"#;

#[test]
fn an_mps_that_does_not_work_is_told_once_and_nothing_of_it_stays() {
    let lab = Lab::start();
    let control = lab.dir("nvidia-cuda-mps-control");
    std::fs::write(&control, CONTROL).unwrap();
    std::fs::set_permissions(&control, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", lab.home.path().display(), std::env::var("PATH").unwrap());
    let doctor = said_on_stdout(isoloss(&lab.dir("one")).arg("doctor").env("PATH", &path));
    if !doctor.contains("no NVIDIA driver") {
        eprintln!("SKIPPED: with a driver no worker offers a GPU that is not there");
        return;
    }
    let on_gpu = |mps: &str| {
        let mut command = lab.worker("w", &lab.dir("one"));
        // No machine has a GPU of this name, so the real probe fails wherever this runs.
        command.args(["--gpu", "GPU-none=1GiB", "--gpu-runs", "2", "--mps", mps]).env("PATH", &path);
        command.env_remove("CUDA_MPS_PIPE_DIRECTORY");
        command
    };
    let worker = Daemon::start(&mut on_gpu("auto"));
    lab.joined("w");
    let pids = || std::fs::read_to_string(lab.dir("pids")).unwrap_or_default();
    let started = pids();
    assert_eq!(started.lines().count(), 1, "one daemon was started");
    assert!(!Path::new(&format!("/proc/{}", started.trim())).exists(), "and is gone before the first run");
    let said = worker.stop();
    assert_eq!(said.matches("MPS is here and does not work").count(), 1, "{said}");
    let worker = Daemon::start(&mut on_gpu("off"));
    lab.joined("w");
    assert_eq!((pids(), worker.stop().matches("MPS").count()), (started, 0), "off starts nothing and says nothing");
    assert!(doctor.contains("mps        ") && doctor.contains(control.to_str().unwrap()), "{doctor}");
}

fn said_on_stdout(command: &mut Command) -> String {
    String::from_utf8(expect(0, command).stdout).unwrap()
}
