//! Foreign trainers that do what they should not. Which one a run gets is the version of its trainer; only the smallest
//! run of a sweep is given to it, the others end as they should.

use std::io::{Write, stdout};
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use isoloss_sweep::Run;
use isoloss_wire::child::Assignment;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::signal::unix::SignalKind;

/// Whether this run is the one that is to go wrong.
pub(crate) fn is_victim(run: &Run) -> bool {
    run.tokens().get() < 30_000 && run.model.param_counts().non_embedding.get() < 15_000
}

pub(crate) fn run(order: &Assignment, orders: &Receiver<Box<Assignment>>) -> ! {
    let trainer = order.run.trainer.as_ref().expect("a foreign run says its trainer");
    let mode = trainer.version.as_deref().unwrap_or_default();
    if mode.starts_with("again") {
        again(mode, order, orders);
    }
    if is_victim(&order.run) {
        misbehave(mode, order);
    }
    say(&outcome(order));
    std::process::exit(0);
}

/// Takes one run after another; the victim does so that the next one might suffer.
fn again(mode: &str, first: &Assignment, orders: &Receiver<Box<Assignment>>) -> ! {
    let mut order = Box::new(first.clone());
    loop {
        let word = |event: &str| json!({ "event": event, "run_id": order.run_id, "attempt": order.attempt });
        say(&word("taken"));
        if mode == "again fork" && is_victim(&order.run) {
            fork();
        }
        let mut line = outcome(&order);
        line["again"] = json!(true);
        let is_victim = is_victim(&order.run);
        match mode {
            // In one piece, or the worker may have heard the outcome and not the word behind it.
            "again speaks" if is_victim => write(&format!("\n{line}\n{}\n", word("eval"))),
            _ => say(&line),
        }
        match mode {
            "again deaf" if is_victim => hang(),
            "again dies" if is_victim => std::process::exit(0),
            _ => {}
        }
        let Ok(next) = orders.recv() else { hang() };
        order = next;
    }
}

fn say(line: &Value) {
    // On a line of its own: the guard is this test program too, whose harness may have begun one.
    write(&format!("\n{line}\n"));
}

fn write(text: &str) {
    stdout().write_all(text.as_bytes()).unwrap();
    stdout().flush().unwrap();
}

/// As little as a foreign trainer has to say.
fn outcome(order: &Assignment) -> Value {
    let score = json!({ "loss_nats": 2.0, "tokens": 1000, "bytes": 1000 });
    json!({
        "event": "outcome", "run_id": order.run_id, "attempt": order.attempt,
        "result": { "outcome": "finished", "score": score, "train_loss_nats": 2.1 },
    })
}

/// A progress or eval line.
fn measured(event: &str, order: &Assignment) -> Value {
    json!({
        "event": event, "run_id": order.run_id, "attempt": order.attempt, "step": 3, "steps": 9, "tokens": 192,
        "loss_nats": 2.5, "bits_per_byte": 3.0, "tokens_per_second": 1e6, "memory_bytes": 1 << 20,
    })
}

fn with(order: &Assignment, pointer: &str, value: Value) -> Value {
    let mut line = outcome(order);
    *line.pointer_mut(pointer).expect("the outcome has this key") = value;
    line
}

/// What returns goes on to end well.
fn misbehave(mode: &str, order: &Assignment) {
    match mode {
        "silent" => std::process::exit(0),
        "exit 75" if order.attempt == 1 => std::process::exit(75),
        "exit 78" => std::process::exit(78),
        "exit 85" if order.attempt == 1 => std::process::exit(85),
        "garbage" => {
            stdout().write_all(b"\xff\xfe{]\n{\"event\":\"dance\"}\nnull\n[1]\n").unwrap();
            std::process::exit(0);
        }
        "long line" => {
            let piece = vec![b'{'; 1 << 20];
            (0..100).for_each(|_| stdout().write_all(&piece).unwrap());
            stdout().write_all(b"\n").unwrap();
        }
        "endless" => {
            let text = "all work and no play makes a dull run\n".repeat(1000);
            while stdout().write_all(text.as_bytes()).is_ok() {}
        }
        "flood" => flood(order),
        "hang" => hang(),
        "deaf" => {
            say(&outcome(order));
            hang();
        }
        "fork" => fork(),
        "murder" => {
            fork();
            kill(Pid::from_raw(parent_id() as i32), Signal::SIGKILL).unwrap();
            // What it says from here on may or may not be heard before it is ended.
            loop {
                std::thread::park();
            }
        }
        "other attempt" => {
            say(&with(order, "/attempt", json!(order.attempt + 1)));
            std::process::exit(0);
        }
        "twice" => {
            say(&outcome(order));
            say(&with(order, "/result", json!({ "outcome": "failed", "reason": "changed my mind" })));
        }
        "units" => {
            let score = json!({ "loss_nats": 2.0, "bits_per_byte": 2.0, "tokens": 1000, "bytes": 1000 });
            say(&with(order, "/result/score", score));
        }
        "curve" | "huge curve" => {
            let points = if mode == "curve" { 5000 } else { 100_000 };
            let point =
                |step| json!({ "step": step, "tokens": 1, "loss_nats": 2, "bits_per_byte": 3, "train_loss_nats": 2 });
            let mut line = outcome(order);
            line["result"]["curve"] = (0..points).map(point).collect();
            say(&line);
            std::process::exit(0);
        }
        "checkpoints" => checkpoints(order),
        _ => say_no_numbers(mode, order),
    }
}

/// What Python's `json.dumps` prints for numbers that are none, and a line that lacks one.
fn say_no_numbers(mode: &str, order: &Assignment) {
    match mode {
        "nan" => {
            let text = outcome(order).to_string().replace("2.1", "NaN");
            println!("{text}");
            std::process::exit(0);
        }
        "nan progress" | "null progress" | "infinite eval" => {
            let (event, loss) = match mode {
                "nan progress" => ("progress", "NaN"),
                "null progress" => ("progress", "null"),
                _ => ("eval", "-Infinity"),
            };
            println!("{}", measured(event, order).to_string().replace("2.5", loss));
            // It does not notice: the worker ends it.
            hang();
        }
        "nan elsewhere" => {
            println!("{}", measured("progress", order).to_string().replace("1000000.0", "NaN"));
            std::process::exit(0);
        }
        "half a progress" | "half a progress and no end" => {
            let mut line = measured("progress", order);
            line.as_object_mut().unwrap().remove("tokens_per_second");
            say(&line);
            if mode.ends_with("no end") {
                loop {
                    say(&line);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            std::process::exit(0);
        }
        "nan in the curve" => {
            let point =
                |loss| json!({ "step": 1, "tokens": 1, "loss_nats": loss, "bits_per_byte": 3, "train_loss_nats": 2 });
            let mut line = outcome(order);
            line["result"]["curve"] = json!([point(9.5), point(2.0)]);
            println!("{}", line.to_string().replace("9.5", "NaN"));
            std::process::exit(0);
        }
        _ => {}
    }
}

/// Says far more than anybody can keep, all of it well formed.
fn flood(order: &Assignment) {
    let (run_id, attempt) = (order.run_id, order.attempt);
    for step in 0..200_000 {
        let eval = json!({ "event": "eval", "run_id": run_id, "attempt": attempt, "step": step, "tokens": step,
            "loss_nats": 2, "bits_per_byte": 3 });
        say(&eval);
    }
}

/// Deaf to SIGTERM and to the end of its input.
fn hang() -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _heard_and_ignored = tokio::signal::unix::signal(SignalKind::terminate()).unwrap();
        loop {
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
    })
}

/// Leaves two processes behind in sessions of their own, one with a parent that is gone.
fn fork() {
    let script = "setsid sleep 600 & echo $! >> $LAB_PIDS; (setsid sleep 601 & echo $! >> $LAB_PIDS) & wait $!";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(shell.status().unwrap().success());
}

/// The first attempt leaves one usable checkpoint among traps; the second must be given that one.
fn checkpoints(order: &Assignment) {
    let say_of = |path: &Path, step: u64, digest: Option<&str>| {
        let mut line = json!({ "event": "checkpoint", "run_id": order.run_id, "attempt": order.attempt,
            "path": path, "step": step });
        if let Some(digest) = digest {
            line["digest"] = json!(digest);
        }
        say(&line);
    };
    if let Some(resume) = &order.resume {
        let code = if resume.ends_with("1/good.bin") { return } else { 78 };
        std::process::exit(code);
    }
    let file = |name: &str| order.checkpoints.join(name);
    std::fs::write(file("good.bin"), "weights").unwrap();
    // Relative paths begin in the folder of the attempt.
    say_of(Path::new("good.bin"), 5, None);
    let pipe = file("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    say_of(&pipe, 6, None);
    std::os::unix::fs::symlink("/dev/zero", file("endless")).unwrap();
    say_of(&file("endless"), 7, None);
    say_of(Path::new("/etc/hostname"), 8, None);
    say_of(&order.checkpoints.join("../../../worker.lock"), 9, None);
    std::fs::write(file("other.bin"), "other").unwrap();
    say_of(&file("other.bin"), 10, Some(&"0".repeat(64)));
    // One more, damaged once the worker has taken note of it.
    std::fs::write(file("later.bin"), "later weights").unwrap();
    say_of(Path::new("later.bin"), 11, None);
    let noted = || std::fs::read_to_string(file("checkpoints.json")).is_ok_and(|notes| notes.contains("later.bin"));
    while !noted() {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::write(file("later.bin"), "later weigths").unwrap();
    std::process::exit(75);
}
