//! A trainer whose checkpoints say whose they are and of which step, so that a test sees where an attempt went on.

use std::io::stdout;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use isoloss_sweep::Digest;
use isoloss_wire::child::{Assignment, FromChild};
use isoloss_wire::orders::say;

/// Writes the checkpoints of a trunk, or two of its own; `doomed`, it then waits, unless it is a trunk. The first attempt of
/// a `spoiler` breaks the store before it speaks.
pub(crate) fn run(mode: &str, assignment: &Assignment, stop: &AtomicBool) {
    let from = match &assignment.resume {
        None => 0,
        Some(file) => {
            let text = std::fs::read_to_string(file).expect("the file to start from can be read");
            eprintln!("goes on from {text}");
            text.split_once(' ').unwrap().1.parse().unwrap()
        }
    };
    if std::env::var_os("LAB_BUCKET").is_some() {
        let hidden = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| std::env::var_os(name).is_none());
        assert_eq!(hidden, [true, true], "a child sees no credentials of the store");
    }
    let is_trunk = !assignment.trunk_steps.is_empty();
    let steps = if is_trunk { assignment.trunk_steps.clone() } else { vec![from + 1, from + 2] };
    if mode == "spoiler" && assignment.attempt == 1 {
        let store = PathBuf::from(std::env::var_os("LAB_STORE").unwrap());
        let _ = std::fs::remove_dir_all(store.join("checkpoints"));
        std::fs::write(store.join("checkpoints"), "no folder").unwrap();
    }
    for step in steps.into_iter().filter(|step| *step > from) {
        let text = format!("{} {step}", assignment.run_id);
        let path = assignment.checkpoints.join(format!("{step}.bin"));
        std::fs::write(&path, &text).unwrap();
        let (run_id, attempt, digest) = (assignment.run_id, assignment.attempt, Digest::of(text.as_bytes()));
        say(&mut stdout(), &FromChild::Checkpoint { run_id, attempt, step, path, digest }).unwrap();
        // Of two that wait only the newer would be stored.
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    if (mode == "doomed" && !is_trunk) || (mode == "spoiler" && assignment.attempt == 1) {
        crate::trainer::wait(stop);
    }
}
