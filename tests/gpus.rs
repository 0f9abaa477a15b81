//! The engine cuda from the command line on stand-ins of CUDA's libraries (`crates/gpu/standin/README.md`): doctor, `up`
//! on two GPUs, workers that offer them, deaths and refusals. It shows that the parts fit together as the manuals were
//! read, and nothing of real hardware. Where no C++ compiler is the tests say so and pass.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::binary::{Daemon, children_of, expect, free_port, until};
use crate::gpu_lab::{FIRST, Lab, SECOND, text};

#[test]
fn the_doctor_names_gpus_and_libraries() {
    let Some(lab) = Lab::new() else { return };
    let told = lab.doctor(&[]);
    for uuid in [FIRST, SECOND] {
        let line = format!("ok   gpu        stand-in GPU, compute capability 9.0, 8.28GB of 8.59GB free, {uuid}");
        assert!(told.contains(&line), "{told}");
    }
    let file = |told: &str, library: &str| {
        let start = format!("ok   cuda       {library}: ");
        let found = told.lines().find_map(|line| line.strip_prefix(&start)).map(PathBuf::from);
        found.unwrap_or_else(|| panic!("no {library} in {told}"))
    };
    for (library, name) in
        [("NVIDIA driver", "libcuda.so.1"), ("NVRTC", "libnvrtc.so.13"), ("cuBLASLt", "libcublasLt.so.13")]
    {
        assert_eq!(file(&told, library), file(&told, "NVRTC").with_file_name(name), "{told}");
    }
    // A toolkit on the loader's path has the plain name too, which the bindings ask for first.
    let toolkit = lab.dir("toolkit");
    fs::create_dir(&toolkit).unwrap();
    let plain = toolkit.canonicalize().unwrap().join("libcublasLt.so");
    fs::copy(file(&told, "cuBLASLt"), &plain).unwrap();
    let path = format!("{}:{}", toolkit.display(), file(&told, "NVRTC").parent().unwrap().display());
    let told = lab.doctor(&[("LD_LIBRARY_PATH", &path)]);
    assert_eq!((file(&told, "cuBLASLt"), told.contains("fix  cuda")), (plain, false), "{told}");
}

#[test]
fn the_doctor_tells_what_is_broken_and_offers_what_is_not() {
    let Some(lab) = Lab::new() else { return };
    for none in [("CUDA_VISIBLE_DEVICES", ""), ("ISOLOSS_STANDIN_FAIL", "cuInit:0:100")] {
        let told = lab.doctor(&[none]);
        assert!(told.contains("ok   gpu        the driver shows none (see CUDA_VISIBLE_DEVICES"), "{told}");
    }
    let told = lab.doctor(&[("ISOLOSS_STANDIN_FAIL", "cuInit:0:803")]);
    let words = "fix  gpu        the NVIDIA driver does not work: cuInit failed: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH";
    assert!(told.contains(words) && told.contains("`engine = \"cuda\"` are refused"), "{told}");
    let told = lab.doctor(&[("ISOLOSS_STANDIN_FAIL", "cuDevicePrimaryCtxRetain:1:999")]);
    let words =
        format!("fix  gpu        GPU 1, stand-in GPU, {SECOND}: cuDevicePrimaryCtxRetain failed: CUDA_ERROR_UNKNOWN");
    let (whole, cure) = (format!("GB free, {FIRST}"), format!("`CUDA_VISIBLE_DEVICES={FIRST}` hides it"));
    for words in [&words, &whole, &cure] {
        assert!(told.contains(words.as_str()), "{words:?} is not in {told}");
    }
    let told = lab.doctor(&[("ISOLOSS_STANDIN_CAPABILITY", "75")]);
    let words =
        format!("fix  gpu        GPU 0, stand-in GPU, {FIRST}: compute capability 7.5 is too old, 8.0 or newer");
    assert!(told.contains(&words), "{told}");
}

#[test]
fn gpus_beside_a_broken_one_train_all_runs() {
    let Some(lab) = Lab::new() else { return };
    // It is asked for twice: by the probe, and for slots.
    let mut up = lab.isoloss("beside", 2);
    up.arg("up")
        .arg(&lab.sweep)
        .args(["--port", "0", "--set", "axes.seed=[1]", "--out"])
        .arg(lab.dir("beside").join("out"));
    let said = text(expect(0, up.env("ISOLOSS_STANDIN_BROKEN", "0")).stderr);
    let warning = format!("warning: GPU 0, stand-in GPU, {FIRST}: cuDevicePrimaryCtxRetain failed: CUDA_ERROR_UNKNOWN");
    assert_eq!(said.matches(&warning).count(), 1, "{said}");
    let rows = lab.table("beside");
    assert!(rows.len() == 2 && rows.values().all(|row| row["device"].starts_with(SECOND)), "{rows:?}");
}

/// A library that does not load, and one that lacks what is called: told by the doctor, and before any run is tried.
#[test]
fn a_library_that_is_there_and_of_no_use_is_told_by_the_loader_s_words() {
    let Some(lab) = Lab::new() else { return };
    let [empty, lacking] = ["empty", "lacking"].map(|name| lab.dir(name));
    let standins = &lab.standins.folder;
    let before = |folder: &Path| format!("{}:{}", folder.display(), standins.display());
    let refused = |path: &str| {
        let mut worker = lab.isoloss("refused", 2);
        text(expect(1, worker.args(["worker", "--gpu", "auto"]).env("LD_LIBRARY_PATH", path)).stderr)
    };
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("libcuda.so.1"), "").unwrap();
    let path = before(&empty);
    let (told, words) = (lab.doctor(&[("LD_LIBRARY_PATH", &path)]), "libcuda.so.1 does not load: ");
    for start in ["fix  gpu        no NVIDIA driver: ", "fix  cuda       NVIDIA driver: "] {
        assert!(told.contains(&format!("{start}{words}")), "{told}");
    }
    assert!(refused(&path).contains(&format!("--gpu auto: no NVIDIA driver: {words}")));

    fs::create_dir(&lacking).unwrap();
    let library = lacking.join("libnvrtc.so.13");
    let mut compiler = Command::new("c++");
    compiler.args(["-shared", "-fPIC", "-Wl,-soname,libnvrtc.so.13", "-x", "c++", "/dev/null", "-o"]).arg(library);
    expect(0, &mut compiler);
    let path = before(&lacking);
    let (told, words) = (lab.doctor(&[("LD_LIBRARY_PATH", &path)]), "the one found lacks nvrtcVersion");
    assert!(told.lines().any(|line| line.starts_with("fix  cuda       NVRTC: ") && line.contains(words)), "{told}");
    assert!(refused(&path).contains(&format!("--gpu auto: no NVRTC: {words}")));
}

#[test]
fn a_plan_that_wants_a_gpu_says_why_none_was_timed() {
    let Some(lab) = Lab::new() else { return };
    let note =
        "no GPU was timed here, so runs of the engine cuda have no ETA and no GPU hours: the driver shows no GPU";
    let said = |more: &[&str]| {
        let mut plan = lab.isoloss("plan", 0);
        let output = expect(0, plan.args(["plan", "--json"]).arg(&lab.sweep).args(more));
        (text(output.stderr), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (told, plan) = said(&[]);
    assert_eq!((told.matches(note).count(), &plan["totals"]["seconds"]), (1, &Value::Null), "{told}");
    // Nobody wished to know, or no run wants one.
    for quiet in [&["--no-probe"][..], &["--set", "train.engine='cpu'"]] {
        assert!(!said(quiet).0.contains("no GPU was timed"));
    }
}

/// The losses are those of the CPU engine, and those of a sweep whose worker and children died on the way are the same
/// to the last bit.
#[test]
fn a_sweep_on_two_gpus_has_the_losses_of_the_cpu_engine_and_survives_deaths() {
    let Some(lab) = Lab::new() else { return };
    expect(0, &mut lab.up("gpus", 2, &[]));
    let found = lab.table("gpus");
    expect(0, &mut lab.up("cores", 0, &["--set", "train.engine='cpu'"]));
    let expected = lab.table("cores");
    assert_eq!((found.len(), expected.len()), (4, 4));
    for (name, row) in &found {
        let loss = |row: &BTreeMap<String, String>| row["loss_nats"].parse::<f64>().unwrap();
        let off = loss(row) / loss(&expected[name]) - 1.0;
        assert!(off.abs() < 2e-3, "{name}: {off}");
        assert_eq!((row["engine"].as_str(), row["state"].as_str()), ("cuda", "finished"));
    }
    let on = |uuid: &str| found.values().filter(|row| row["device"].starts_with(uuid)).count();
    assert!(on(FIRST) > 0 && on(SECOND) > 0 && on(FIRST) + on(SECOND) == 4, "{found:?}");
    for row in found.values() {
        assert!(row["device"].starts_with(row["gpu"].strip_prefix("stand-in GPU ").unwrap()), "{row:?}");
        let [had, took] = ["gpu_seconds", "seconds"].map(|name| row[name].parse::<f64>().unwrap());
        assert!(0.0 < had && had <= took && row["mps"] == "false", "{row:?}");
    }
    assert!(expected.values().all(|row| row["gpu"].is_empty() && row["gpu_seconds"].is_empty()), "{expected:?}");
    let page = fs::read_to_string(lab.dir("gpus").join("out").join("index.html")).unwrap();
    let trained = format!("Trained on stand-in GPU {FIRST}; stand-in GPU {SECOND}. Runs that ended took 0.0");
    assert!(page.contains(&trained), "{trained:?} is not in the report");

    let again = disturbed(&lab);
    for (name, row) in &found {
        assert_eq!(again[&row["run_id"]], row["bits_per_byte"].parse::<f64>().unwrap(), "{name}");
    }
}

/// A coordinator of its own beside the lab's machine.
struct House<'a> {
    lab: &'a Lab,
    name: &'static str,
    url: String,
    _coordinator: Daemon,
}

impl<'a> House<'a> {
    fn open(lab: &'a Lab, name: &'static str) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        fs::create_dir_all(lab.dir(name)).unwrap();
        // So that steps are told often.
        let settings = lab.dir(name).join("coordinator.toml");
        fs::write(&settings, "lease_seconds = 10.0\n").unwrap();
        let mut serve = lab.isoloss(name, 0);
        let coordinator = Daemon::start(serve.arg("serve").arg("--config").arg(settings).args(["--listen", &address]));
        let house = Self { lab, name, url: format!("http://{address}"), _coordinator: coordinator };
        until("the coordinator", || house.client(&["status"]).output().unwrap().status.success().then_some(()));
        house
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = self.lab.isoloss(self.name, 0);
        command.args(["--server", &self.url]).args(arguments);
        command
    }

    /// A worker that offers both GPUs, the way `more` says.
    fn worker(&self, more: &[&str]) -> Daemon {
        let mut command = self.lab.isoloss(&format!("{}-worker", self.name), 2);
        command.args(["--server", &self.url, "--token-file"]).arg(self.lab.dir(self.name).join("token"));
        command.args(["worker", "--cores", "1", "--name", "w", "--gpu", "auto"]).args(more);
        Daemon::start(&mut command)
    }

    /// The sweep's runs as `status` has them.
    fn rows(&self) -> Option<Vec<Value>> {
        let output = self.client(&["status", "gpus", "--json"]).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(status["runs"].as_array()?.clone())
    }

    /// The same once so many are finished.
    fn finished(&self, count: usize) -> Vec<Value> {
        until("all runs", || {
            let rows = self.rows()?;
            (rows.len() == count && rows.iter().all(|row| row["state"] == "finished")).then_some(rows)
        })
    }
}

/// Bits per byte by run of the same sweep, given to a worker with two runs side by side on each GPU: one child is killed,
/// and then the worker is asked to stop and started again.
fn disturbed(lab: &Lab) -> BTreeMap<String, f64> {
    let house = House::open(lab, "disturbed");
    let trained = |least: u64| {
        let steps: Vec<u64> = house.rows()?.iter().filter_map(|row| row["live"]["step"].as_u64()).collect();
        steps.iter().any(|step| *step >= least).then_some(())
    };
    let first = house.worker(&["--gpu-runs", "2"]);
    expect(0, &mut house.client(&["submit", lab.sweep.to_str().unwrap()]));
    let four = until("four children", || Some(children_of(first.id())).filter(|children| children.len() == 4));
    until("steps", || trained(2));
    let mut seen: Vec<String> = four.iter().map(visible).collect();
    seen.sort();
    assert_eq!(seen, [FIRST, FIRST, SECOND, SECOND]);
    let killed = nix::unistd::Pid::from_raw(four[0].cast_signed());
    nix::sys::signal::kill(killed, nix::sys::signal::Signal::SIGKILL).unwrap();
    until("another child", || children_of(first.id()).iter().any(|child| !four.contains(child)).then_some(()));
    let said = first.stop();
    let _second = house.worker(&["--gpu-runs", "2"]);
    let all = house.finished(4);
    assert!(all.iter().any(|row| row["attempts"].as_u64() >= Some(2)), "{all:?}\n{said}");
    let of = |row: &Value| (row["run_id"].as_str().unwrap().to_owned(), row["bits_per_byte"].as_f64().unwrap());
    all.iter().map(of).collect()
}

/// One of three GPUs is not there: no run fails for it, and the worker says so once.
#[test]
fn a_gpu_that_is_not_to_be_had_fails_no_run() {
    let Some(lab) = Lab::new() else { return };
    let house = House::open(&lab, "dead");
    // Parts of GPUs are not looked for when a worker starts.
    let worker = house.worker(&["--gpu", "MIG-5a5a=8GiB"]);
    expect(0, &mut house.client(&["submit", lab.sweep.to_str().unwrap(), "--set", "retry.failures=0"]));
    house.finished(4);
    // Whoever looks sees it too, for it has trained nothing since.
    let told = until("the GPU that rests", || {
        let told = text(expect(0, &mut house.client(&["workers"])).stdout);
        let is_rest = |line: &&str| line.starts_with("worker w: MIG-5a5a was not to be had and ");
        told.lines().find(is_rest).map(str::to_owned)
    });
    assert!(told.contains("opening GPU 0 where 0 are visible"), "{told}");
    let noted = text(expect(0, &mut house.client(&["status"])).stderr);
    assert!(noted.contains("worker w: MIG-5a5a was not to be had and "), "{noted}");
    let said = worker.stop();
    assert_eq!(said.matches("a GPU is not to be had").count(), 1, "{said}");
    assert!(said.contains("opening GPU 0 where 0 are visible"), "{said}");
}

/// The GPUs that a child sees.
fn visible(pid: &u32) -> String {
    let variables = text(fs::read(format!("/proc/{pid}/environ")).unwrap());
    let found = variables.split('\0').find_map(|line| line.strip_prefix("CUDA_VISIBLE_DEVICES="));
    found.expect("a child on a GPU sees it").to_owned()
}

/// Each of two GPUs takes one sequence of every batch, and NCCL's stand-in adds up.
#[test]
fn two_gpus_train_one_run_together_with_the_losses_of_the_cpu_engine() {
    let Some(lab) = Lab::new() else { return };
    let seed = ["--set", "axes.seed=[1]"];
    expect(0, lab.up("cores", 0, &["--set", "train.engine='cpu'"]).args(seed));
    let expected = lab.table("cores");
    let house = House::open(&lab, "together");
    let worker = house.worker(&["--gpus-per-run", "2"]);
    expect(0, house.client(&["submit", lab.sweep.to_str().unwrap()]).args(seed));
    let child = until("a child", || children_of(worker.id()).first().copied());
    assert_eq!(visible(&child), format!("{FIRST},{SECOND}"));
    house.finished(2);
    let told = text(expect(0, &mut house.client(&["status", "gpus"])).stdout);
    assert!(
        told.contains(&format!("  2 x stand-in GPU {FIRST},{SECOND}")) && told.contains(" GPU hours of runs"),
        "{told}"
    );
    let told = text(expect(0, &mut house.client(&["workers"])).stdout);
    assert!(told.contains("gpus") && told.contains("2 x stand-in GPU  "), "{told}");
    let rows = text(expect(0, &mut house.client(&["export", "gpus", "--format", "csv"])).stdout);
    let mut reader = csv::Reader::from_reader(rows.as_bytes());
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let other = &expected[&format!("{} 1", row["arm"])];
        let loss = |row: &BTreeMap<String, String>| row["loss_nats"].parse::<f64>().unwrap();
        let off = loss(&row) / loss(other) - 1.0;
        assert!(off.abs() < 2e-3, "{}: {off}", row["arm"]);
        let both = format!("{FIRST},{SECOND}");
        let [had, took] = ["gpu_seconds", "seconds"].map(|name| row[name].parse::<f64>().unwrap());
        assert_eq!((&row["device"], &row["gpu"]), (&both, &format!("2 x stand-in GPU {both}")));
        assert!((had / took - 2.0).abs() < 1e-9, "it had both to itself: {row:?}");
    }
}

#[test]
fn gpus_with_too_little_memory_and_missing_libraries_are_refused_before_anything_starts() {
    let Some(lab) = Lab::new() else { return };
    let mut small = lab.up("small", 2, &[]);
    let said = text(expect(6, small.env("ISOLOSS_STANDIN_MEMORY", "943718400")).stderr);
    assert!(said.contains("of GPU memory, 629MB are free: `[resources] memory` gives it less"), "{said}");
    let mut hidden = lab.up("hidden", 2, &[]);
    let said = text(expect(6, hidden.env("CUDA_VISIBLE_DEVICES", "-1")).stderr);
    for words in ["4 run(s) ask for the engine cuda", "the driver shows no GPU", "--set train.engine=cpu"] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    let mut old = lab.up("old", 2, &[]);
    let said = text(expect(6, old.env("ISOLOSS_STANDIN_CAPABILITY", "75")).stderr);
    assert!(said.contains("compute capability 7.5 is too old, 8.0 or newer is needed"), "{said}");
    let mut worker = lab.isoloss("hidden", 0);
    worker.args(["worker", "--gpu", "auto"]);
    let said = text(expect(1, &mut worker).stderr);
    assert!(said.contains("--gpu auto: the driver shows no GPU; see CUDA_VISIBLE_DEVICES and nvidia-smi"), "{said}");
    let much = format!("{FIRST}=900GiB");
    for (arguments, words) in [
        (&["--gpu", "GPU-77=1GiB"][..], "--gpu: there is no GPU-77 here; the driver shows GPU-5a5a0000"),
        (
            &["--gpu", much.as_str()],
            "900 GiB of GPU-5a5a0000-0000-4000-8000-000000000001 are offered, and it has 8.00 GiB",
        ),
        (&["--gpu-runs", "2"], "--gpu"),
        (&["--gpus-per-run", "2"], "--gpu"),
    ] {
        let said = text(expect(2, lab.isoloss("hidden", 2).arg("worker").args(arguments)).stderr);
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

/// A GPU that breaks in the middle ends attempts, not the sweep's other runs; what it said is found with the run.
#[test]
fn a_gpu_that_breaks_ends_its_attempts_with_the_driver_s_words() {
    let Some(lab) = Lab::new() else { return };
    let mut up = lab.up("broken", 1, &["--set", "axes.seed=[1]"]);
    let output = up.env("ISOLOSS_STANDIN_FAIL", "cuGraphLaunch:3:719").output().unwrap();
    let said = text(output.stderr);
    assert!(!output.status.success() && !said.contains("panicked"), "{said}");
    let reasons: Vec<String> = lab.table("broken").values().map(|row| row["reason"].clone()).collect();
    assert!(
        reasons.iter().all(|reason| reason.contains("cuGraphLaunch failed: CUDA_ERROR_LAUNCH_FAILED")),
        "{reasons:?}"
    );
}
