//! A trainer that trains nothing: it speaks the child protocol and ends as its environment says.

use std::io::{BufReader, Write, stderr, stdin, stdout};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use isoloss_sweep::outcome::{Cost, CurvePoint, Failed, Finished, Provenance, Score};
use isoloss_sweep::{Outcome, Run};
use isoloss_wire::child::{Assignment, EXIT_DEVICE, EXIT_NO_RETRY, EXIT_RETRY, EXIT_STORAGE, EXIT_YIELDED, FromChild};
use isoloss_wire::orders::{listen, say};

/// A GPU that no trainer with several GPUs can have.
pub(crate) const DEAD_GPU: &str = "GPU-dead";

/// Does nothing unless this process was started as a trainer.
pub(crate) fn run() {
    let Ok(mode) = std::env::var("LAB_TRAINER") else { return };
    // The guard is started with the command's words behind two dashes.
    if std::env::args().any(|word| word == "--") {
        return;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let orders = listen(BufReader::new(stdin()), stop.clone(), |_| {}, || std::process::exit(EXIT_RETRY));
    let assignment = orders.recv().expect("a worker gives an order first");
    isoloss_worker::die_with_parent();
    note_pid();
    match mode.as_str() {
        "flaky" if assignment.attempt == 1 => {
            eprintln!("out of luck");
            std::process::exit(EXIT_RETRY);
        }
        "full" if assignment.attempt == 1 => {
            eprintln!("checkpoint: no space left on device");
            std::process::exit(EXIT_STORAGE);
        }
        "stuck" if assignment.attempt == 1 => loop {
            std::thread::park();
        },
        "hopeless" => std::process::exit(EXIT_NO_RETRY),
        "gpus" if std::env::var("CUDA_VISIBLE_DEVICES").as_deref() == Ok(DEAD_GPU) => {
            eprintln!("no such GPU");
            std::process::exit(EXIT_DEVICE);
        }
        "wait" => wait(&stop),
        "stages" | "doomed" | "spoiler" => crate::stages::run(&mode, &assignment, &stop),
        _ if mode.starts_with("mps") => crate::mps::run(&mode, &assignment),
        "foreign" => crate::rogue::run(&assignment, &orders),
        _ if mode.starts_with("again") => again(&mode, assignment, &orders),
        _ => {}
    }
    train(&assignment);
    // Like the real one: more orders may come, and the end of input ends the process.
    while orders.recv().is_ok() {}
    std::thread::park();
}

fn note_pid() {
    let Some(path) = std::env::var_os("LAB_PIDS") else {
        return;
    };
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    // In one piece: trainers beside it write there too.
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).unwrap();
}

/// Until the test says go on, or the worker says stop.
pub(crate) fn wait(stop: &AtomicBool) {
    let gate = PathBuf::from(std::env::var_os("LAB_GATE").expect("a waiting trainer has a gate"));
    while !gate.exists() {
        if stop.load(Ordering::SeqCst) {
            std::process::exit(EXIT_YIELDED);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn train(assignment: &Assignment) {
    assert!(assignment.corpus.join("manifest.json").is_file(), "the corpus is where the worker says");
    if assignment.device.starts_with("cpu") {
        assert_eq!(std::env::var("CUDA_VISIBLE_DEVICES").as_deref(), Ok(""), "a core sees no GPU");
    }
    let (run_id, attempt, run) = (assignment.run_id, assignment.attempt, &assignment.run);
    println!("this is not a line of the protocol");
    let progress = FromChild::Progress {
        run_id,
        attempt,
        step: run.train.steps,
        steps: run.train.steps,
        tokens: run.tokens().get(),
        loss_nats: 2.0,
        tokens_per_second: 1e6,
        memory_bytes: 1 << 20,
    };
    say(&mut stdout(), &progress).unwrap();
    let result = outcome(run, &assignment.device);
    say(&mut stdout(), &FromChild::Outcome { run_id, attempt, result, again: false }).unwrap();
}

/// Takes one run after another, or does not as it promised.
fn again(mode: &str, first: Box<Assignment>, orders: &Receiver<Box<Assignment>>) -> ! {
    let runs = Some(first).into_iter().chain(orders.iter());
    let mut before: Option<FromChild> = None;
    for order in runs {
        let (run_id, attempt) = (order.run_id, order.attempt);
        let say = |line: &FromChild| say(&mut stdout(), line).unwrap();
        let outcome = |result| FromChild::Outcome { run_id, attempt, result, again: true };
        if let Some(before) = &before {
            match mode {
                "again deaf" => break,
                "again crashes" => {
                    say(&FromChild::Taken { run_id, attempt });
                    std::process::exit(101);
                }
                "again fails" => {
                    let reason = "no memory is left".to_owned();
                    say(&outcome(Outcome::Failed(Failed { reason, retry: true })));
                    break;
                }
                "again old" => say(before),
                _ => {}
            }
        }
        say(&FromChild::Taken { run_id, attempt });
        // In one piece: an old outcome said just before ends a line that is half written.
        stderr().write_all(format!("learns {run_id}\n").as_bytes()).unwrap();
        let mut last = serde_json::to_string(&outcome(self::outcome(&order.run, &order.device))).unwrap();
        if mode == "again speaks" {
            last.push_str("\none word more");
        }
        last.push('\n');
        // In one piece, or the worker may have heard the outcome and not the word behind it.
        stdout().write_all(last.as_bytes()).unwrap();
        stdout().flush().unwrap();
        if mode == "again dies" {
            std::process::exit(0);
        }
        let result = Outcome::Failed(Failed { reason: "changed my mind".to_owned(), retry: false });
        before = Some(outcome(result));
    }
    loop {
        std::thread::park();
    }
}

/// A finished run on a planted law.
pub(crate) fn outcome(run: &Run, device: &str) -> Outcome {
    let params = run.model.param_counts();
    let tokens = run.tokens();
    let bits_per_byte = 1.5 + 20.0 / params.active_non_embedding.as_f64().powf(0.4) + 30.0 / tokens.as_f64().powf(0.4);
    let loss_nats = bits_per_byte * std::f64::consts::LN_2;
    let point = CurvePoint { step: run.train.steps, tokens, loss_nats, bits_per_byte, train_loss_nats: loss_nats };
    Outcome::Finished(Box::new(Finished {
        params,
        steps: run.train.steps,
        tokens,
        tokens_unique: tokens,
        bytes: tokens.get(),
        flops: run.flops(),
        flops_6nd: run.model.flops_6nd(tokens),
        flops_spent: run.flops(),
        flops_evaluation: isoloss_sweep::Flops(1.0),
        score: Score { loss_nats, bits_per_byte, tokens: 1000, bytes: 1000, true_bits_per_byte: None },
        train_loss_nats: loss_nats,
        curve: vec![point],
        routing: None,
        cost: Cost { seconds: 0.1, tokens_per_second: 1e6, peak_memory_bytes: 1 << 20, gpu_memory_bytes: None },
        provenance: Provenance {
            device: device.to_owned(),
            instruction_set: "none".to_owned(),
            threads: 1,
            code_version: "test".to_owned(),
        },
        gpu: None,
    }))
}
