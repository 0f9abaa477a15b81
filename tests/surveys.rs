//! Surveys of submissions, in processes of their own: a bound on their memory, and none goes on for nobody.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::binary::{Daemon, children_of, expect, free_port, isoloss, until};

/// A sweep over `bytes` bytes of the synthetic language with `more` lines of its corpus.
fn sweep(bytes: &str, more: &str) -> String {
    format!(
        "schema = 1\nname = \"s\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = \"{bytes}\"\n{more}\n\
         [model]\ncontext = 64\n[axes]\nparams = [\"10k\"]\ntokens = [\"20k\"]\n"
    )
}

fn submit(data: &Path, port: u16, name: &str, toml: &str) -> Command {
    let file = data.join(name);
    fs::write(&file, toml).unwrap();
    let mut command = isoloss(data);
    command.args(["submit", "--server", &format!("http://127.0.0.1:{port}")]).arg(file);
    command
}

/// Most that a process ever held in memory, in bytes.
fn most_held(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn no_corpus_takes_the_memory_of_the_coordinator_and_none_is_read_for_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (data, port) = (folder.path(), free_port());
    let mut serve = isoloss(data);
    serve.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--survey-memory", "600MB"]);
    let daemon = Daemon::start(&mut serve);
    let server = format!("http://127.0.0.1:{port}");
    until("a coordinator", || {
        isoloss(data).args(["status", "--server", &server]).output().unwrap().status.success().then_some(())
    });
    let said = |code, command: &mut Command| String::from_utf8(expect(code, command).stderr).unwrap();
    // Known to be too large before a byte of it is made.
    let endless = said(2, &mut submit(data, port, "endless.toml", &sweep("900TiB", "")));
    assert!(endless.contains("endless.toml:6") && endless.contains("--survey-memory"), "{endless}");
    // Found out where it happens: a MiB of text, a few thousand times.
    let copies = "transforms = [{ duplicate = { fraction = 1.0, copies = 4000 } }]";
    let swollen = said(2, &mut submit(data, port, "swollen.toml", &sweep("1MiB", copies)));
    assert!(swollen.contains("swollen.toml:6") && swollen.contains("needs more than the 600MB"), "{swollen}");
    // Its client does not wait for it.
    let mut long = Daemon::start(&mut submit(data, port, "long.toml", &sweep("190MB", "")));
    let survey = until("a survey", || children_of(daemon.id()).first().copied());
    long.kill();
    // Ended, and after a moment waited for by the daemon too.
    let trace = format!("/proc/{survey}");
    until("the end of the survey", || {
        (children_of(daemon.id()).is_empty() && !Path::new(&trace).exists()).then_some(())
    });
    // And the next one has its turn.
    said(0, &mut submit(data, port, "sound.toml", &sweep("1MiB", "")));
    assert!(most_held(daemon.id()) < 300 << 20, "{}", most_held(daemon.id()));
    daemon.stop();
}
