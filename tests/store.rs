//! `isoloss store` on a coordinator's data directory, and what a coordinator does when its disk fails or is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use isoloss_store::{Record, Store, sample};
use serde_json::Value;

use crate::binary::{Daemon, expect, isoloss, until};

const SWEEP: &str = r#"schema = 1
name = "kept"

[corpus]
source = "synthetic"
preset = "tiny"
bytes = "400kB"
validation = 0.2

[model]
context = 64

[axes]
params = ["6k"]
tokens = ["20k"]
seed = [1, 2]

[[arm]]
name = "dense"
"#;

/// A store with runs that were lost, granted again, settled and cancelled.
fn fill(data: &Path) {
    let mut store = Store::open(&data.join("store")).unwrap();
    let planned: Vec<_> = (1..=20).map(sample::planned).collect();
    let ids: Vec<_> = planned.iter().map(|planned| planned.run_id).collect();
    store.append(&Record::Admitted { admission: sample::admission("one", planned).into() }).unwrap();
    for (n, run_id) in ids.into_iter().enumerate() {
        for attempt in 1..=5 {
            let (worker, slot) = ("w".to_owned(), "cpu:0".to_owned());
            store.append(&Record::Granted { run_id, attempt, worker, slot }).unwrap();
            // No lease is left that could run out while a coordinator serves this.
            let record = if attempt == 5 && n % 2 == 0 {
                let outcome = Box::new(sample::finished(1.0 + n as f64));
                Record::Settled { run_id, attempt, worker: "w".to_owned(), outcome }
            } else {
                Record::Lapsed { run_id, attempt, lapse: isoloss_store::Lapse::Cancelled }
            };
            store.append(&record).unwrap();
        }
        store.commit().unwrap();
    }
}

fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&expect(0, command.arg("--json")).stdout).unwrap()
}

fn store(data: &Path, arguments: &[&str]) -> Command {
    let mut command = isoloss(data);
    command.arg("store").args(arguments);
    command
}

fn said(code: i32, command: &mut Command) -> String {
    String::from_utf8(expect(code, command).stderr).unwrap()
}

/// A coordinator on a port of its own.
struct Serving {
    daemon: Daemon,
    data: PathBuf,
    url: String,
}

impl Serving {
    fn start(data: &Path, crash: Option<&str>) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = isoloss(data);
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
        command.args(crash.iter().flat_map(|crash| ["--crash-at", crash]));
        let daemon = Daemon::start(&mut command);
        let serving = Self { daemon, data: data.to_owned(), url: format!("http://127.0.0.1:{port}") };
        until("the coordinator", || serving.client(&["status"]).output().unwrap().status.success().then_some(()));
        serving
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = isoloss(&self.data);
        command.args(["--server", &self.url]).args(arguments);
        command
    }
}

#[test]
fn a_store_is_backed_up_under_its_coordinator_restored_elsewhere_and_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let backup = folder.path().join("backup");
    let backup = backup.to_str().unwrap();
    let missing = said(4, &mut store(&data, &["backup", backup]));
    assert!(missing.contains("there is no store in"), "{missing}");
    fill(&data);
    let serving = Serving::start(&data, None);
    let locked = said(1, &mut store(&data, &["verify"]));
    let port = serving.url.rsplit(':').next().unwrap();
    assert!(locked.contains("in use") && locked.contains("(pid ") && locked.contains(port), "{locked}");
    assert!(said(1, &mut store(&data, &["compact"])).contains("in use"));
    let copied = json(&mut store(&data, &["backup", backup]));
    assert_eq!((&copied["runs"], &copied["settled"], &copied["sound"]), (&20.into(), &10.into(), &true.into()));
    let again = said(1, &mut store(&data, &["backup", backup]));
    assert!(again.contains("never overwritten"), "{again}");
    serving.daemon.stop();
    assert_eq!(json(&mut store(&data, &["verify"])), copied);
    assert_eq!(json(&mut store(&data, &["verify", backup])), copied);

    let told = said(0, &mut store(&other, &["restore", backup]));
    assert!(told.contains("restored into"), "{told}");
    assert!(said(1, &mut store(&other, &["restore", backup])).contains("never overwritten"));
    assert_eq!(json(&mut store(&other, &["verify"])), copied);
    let serving = Serving::start(&other, None);
    let row = |serving: &Serving| json(&mut serving.client(&["status", "one"]));
    let before = row(&serving);
    serving.daemon.stop();
    let shrunk = json(&mut store(&other, &["compact"]));
    assert!(shrunk["bytes_before"].as_u64() > shrunk["now"]["bytes"].as_u64(), "{shrunk}");
    assert_eq!(fs::read(shrunk["old"].as_str().unwrap()).unwrap(), fs::read(backup).unwrap());
    assert_eq!(row(&Serving::start(&other, None)), before);

    fs::write(backup, &fs::read(backup).unwrap()[..5000]).unwrap();
    let damaged = said(1, &mut store(&folder.path().join("third"), &["restore", backup]));
    assert!(damaged.contains("damaged at byte"), "{damaged}");
}

#[test]
fn a_store_that_lost_what_was_acknowledged_is_refused_told_and_salvaged() {
    let folder = tempfile::tempdir().unwrap();
    let (data, new) = (folder.path().join("data"), folder.path().join("new"));
    fill(&data);
    let journal = data.join("store/journal");
    let whole = fs::read(&journal).unwrap();
    let mut rotten = whole.clone();
    let at = rotten.len() - 30;
    rotten[at] ^= 4;
    let copy = folder.path().join("copy");
    let copy = copy.to_str().unwrap();
    // Nothing is left, a part, a changed last record: for the journal alone an empty store, a shorter one and a torn tail.
    let spoiled: [(Option<&[u8]>, &str); 3] = [
        (None, "missing or empty"),
        (Some(&whole[..whole.len() / 2]), "it ends after"),
        (Some(&rotten), "bytes that were durable have changed"),
    ];
    for (bytes, words) in spoiled {
        match bytes {
            Some(bytes) => fs::write(&journal, bytes).unwrap(),
            None => fs::remove_file(&journal).unwrap(),
        }
        let serve = &mut isoloss(&data);
        serve.args(["serve", "--listen", "127.0.0.1:0"]);
        let commands = [serve, &mut store(&data, &["verify"]), &mut store(&data, &["compact"])];
        for command in commands.into_iter().chain([&mut store(&data, &["backup", copy])]) {
            let told = said(1, command);
            assert!(told.contains(words) && told.contains("restore a backup"), "{told}");
            assert!(!told.contains("never acknowledged") && !told.contains("verify"), "{told}");
        }
        assert!(!Path::new(copy).exists() && fs::read(&journal).ok().as_deref() == bytes);
    }
    let salvaged = json(&mut store(&data, &["salvage", "--to", new.to_str().unwrap()]));
    assert_eq!((&salvaged["now"]["runs"], &salvaged["now"]["sound"]), (&20.into(), &true.into()), "{salvaged}");
    assert_eq!(salvaged["gaps"].as_array().unwrap().len(), 1);
    assert!(salvaged["attempts_raised_by"].as_u64().unwrap() > 1000);
    assert_eq!(fs::read(&journal).unwrap(), rotten);
    let serving = Serving::start(&new, None);
    assert_eq!(json(&mut serving.client(&["status", "one"]))["runs"].as_array().unwrap().len(), 20);
}

#[test]
fn who_only_looks_makes_no_data_directory_and_a_place_that_is_not_there_is_no_broken_disk() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    for arguments in [&["verify"][..], &["compact"], &["backup", "copy"], &["salvage", "--to", "new"]] {
        assert!(said(4, &mut store(&nowhere, arguments)).contains("there is no store in"));
    }
    assert!(!nowhere.exists());
    let data = folder.path().join("data");
    fill(&data);
    let told = said(1, &mut store(&data, &["backup", "/nonexistent/copy"]));
    assert!(told.contains("cannot write /nonexistent/copy") && !told.contains("dmesg"), "{told}");
}

#[test]
fn a_coordinator_whose_fsync_fails_ends_and_has_acknowledged_nothing_since() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kept.toml");
    fs::write(&file, SWEEP).unwrap();
    let data = folder.path().join("data");
    fill(&data);
    let before = json(&mut store(&data, &["verify"]))["records"].as_u64().unwrap();
    let serving = Serving::start(&data, Some("fsync-fails:1"));
    let refused = serving.client(&["submit"]).arg(&file).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    let (code, told) = serving.daemon.end();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("the store failed") && told.contains("what was acknowledged is safe"), "{told}");

    // What was written but never synced may be there or not; nobody was told that it is.
    let after = json(&mut store(&data, &["verify"]))["records"].as_u64().unwrap();
    assert!(after == before || after == before + 1, "{before} records, then {after}");
    let serving = Serving::start(&data, None);
    expect(0, serving.client(&["submit"]).arg(&file));
    assert_eq!(json(&mut serving.client(&["status", "kept"]))["runs"].as_array().unwrap().len(), 2);
}

/// A small file system of its own, gone with the test.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            other => {
                eprintln!("SKIPPED: a small file system cannot be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_coordinator_with_words_and_room_lets_it_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(_disk) = Disk::mount(&data) else {
        return;
    };
    fill(&data);
    let serving = Serving::start(&data, None);
    let filler = data.join("filler");
    while fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&filler)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &[1; 4096]))
        .is_ok()
    {}
    let mut acknowledged = 0;
    let mut order = || {
        let word = if acknowledged % 2 == 0 { "pause" } else { "resume" };
        let done = serving.client(&[word, "one"]).output().unwrap().status.success();
        acknowledged += u64::from(done);
        done
    };
    assert!((0..200).any(|_| !order()), "the journal found room on a full disk");
    let (code, told) = serving.daemon.end();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("No space left") && told.contains("make room"), "{told}");

    fs::remove_file(&filler).unwrap();
    let serving = Serving::start(&data, None);
    let row = json(&mut serving.client(&["status"]));
    let paused = row["sweeps"][0]["paused"].as_bool();
    assert!(paused.is_none() || paused == Some(acknowledged % 2 == 1), "{acknowledged} orders: {row}");
    expect(0, &mut serving.client(&["cancel", "one"]));
    serving.daemon.stop();
    assert_eq!(json(&mut store(&data, &["verify"]))["sound"], true);
}
