//! A bounded run of what `fuzz/` fuzzes: seeded mutations of sound inputs, so that a failure comes again. `ISOLOSS_FUZZ=n`
//! makes n times as many.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use isoloss_store::disk::sim::SimDisk;
use isoloss_store::journal::{FILE, Journal};
use isoloss_store::record::Record;
use isoloss_store::sample::{self, Dice};
use isoloss_wire::api;
use isoloss_wire::child::{Assignment, CHILD_PROTOCOL, FromChild, ToChild};
use serde_json::json;

/// Mutations of each input.
const ROUNDS: u64 = 300;

fn rounds() -> u64 {
    let times = std::env::var("ISOLOSS_FUZZ").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    ROUNDS * times
}

/// One to four changes: bytes set, flipped, removed, doubled, or a piece of another input put in.
fn mutate(input: &[u8], others: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = |dice: &mut Dice, length: usize| usize::try_from(dice.roll(length as u64 + 1)).unwrap();
        let start = at(dice, bytes.len());
        let end = (start + at(dice, 40)).min(bytes.len());
        match dice.roll(6) {
            0 if start < bytes.len() => bytes[start] = u8::try_from(dice.roll(256)).unwrap(),
            1 if start < bytes.len() => bytes[start] ^= 1 << dice.roll(8),
            2 => drop(bytes.drain(start..end)),
            3 => {
                let piece = bytes[start..end].to_vec();
                bytes.splice(end..end, piece);
            }
            4 => bytes.truncate(start),
            _ => {
                let other = dice.pick(others);
                let from = at(dice, other.len());
                let to = (from + at(dice, 60)).min(other.len());
                bytes.splice(start..start, other[from..to].to_vec());
            }
        }
    }
    bytes
}

fn run(seeds: &[Vec<u8>], body: impl Fn(&[u8], &[u8])) {
    for (number, seed) in (0_u64..).zip(seeds) {
        body(seed, seed);
        let mut dice = Dice(number);
        for _ in 0..rounds() {
            body(seed, &mutate(seed, seeds, &mut dice));
        }
    }
}

#[test]
fn sweep_files_of_any_text_are_parsed_or_refused() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sweeps");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(seeds.len() > 5);
    run(&seeds, |_, data| bodies::sweep(data));
}

#[test]
fn messages_that_are_understood_keep_their_meaning() {
    let run_id = sample::run(1).id();
    let assignment = Assignment {
        protocol: CHILD_PROTOCOL,
        run_id,
        attempt: 3,
        run: sample::run(1),
        corpus: "/corpus".into(),
        checkpoints: "/checkpoints".into(),
        resume: Some("/checkpoints/1".into()),
        trunk_steps: vec![1, 2],
        threads: 2,
        device: "cpu:0-1".to_owned(),
        memory_bytes: Some(1 << 30),
        gpu_process_bytes: None,
    };
    let progress = json!({
        "event": "progress", "run_id": run_id, "attempt": 1, "step": 2, "steps": 3, "tokens": 4, "loss_nats": 5.5,
        "tokens_per_second": 6.25, "memory_bytes": 7,
    });
    let settle = json!({
        "worker": "w", "run_id": run_id, "attempt": 1, "device": "cpu:0",
        "ending": { "outcome": sample::finished(1.25) }, "log": ["a line", "\u{0}\u{ffff}"],
    });
    let yielded = json!({
        "worker": "w", "run_id": run_id, "attempt": 1, "device": "cpu:0", "ending": { "yielded": { "reason": "ends" } },
    });
    let renew = json!({ "worker": "w", "leases": [{
        "run_id": run_id, "attempt": 1, "slot": "cpu:0", "log": ["x"],
        "points": [{ "step": 1, "tokens": 2, "loss_nats": 1e-300, "bits_per_byte": 1e300, "train_loss_nats": -0.0 }],
    }] });
    let submit = json!({ "schema_version": 1, "toml": "schema = 1", "file": "a.toml", "base": "/", "set": ["a=1"] });
    let problem = api::Problem::new(api::Code::NotFound, "no run here");
    let sound: [(bool, Vec<u8>); 7] = [
        (true, serde_json::to_vec(&ToChild::Run(Box::new(assignment))).unwrap()),
        (serde_json::from_value::<FromChild>(progress.clone()).is_ok(), progress.to_string().into_bytes()),
        (serde_json::from_value::<api::Settle>(settle.clone()).is_ok(), settle.to_string().into_bytes()),
        (serde_json::from_value::<api::Settle>(yielded.clone()).is_ok(), yielded.to_string().into_bytes()),
        (serde_json::from_value::<api::Renew>(renew.clone()).is_ok(), renew.to_string().into_bytes()),
        (serde_json::from_value::<api::Submit>(submit.clone()).is_ok(), submit.to_string().into_bytes()),
        (true, serde_json::to_vec(&problem).unwrap()),
    ];
    assert!(sound.iter().all(|(sound, _)| *sound), "mutations of what is wrong already would find little");
    let seeds: Vec<Vec<u8>> = sound.into_iter().map(|(_, seed)| seed).collect();
    run(&seeds, |_, data| bodies::wire(data));
}

/// Frames of several groups, as a store writes them.
fn sound_journal() -> Vec<u8> {
    let disk = SimDisk::default();
    let mut journal = Journal::open(Box::new(disk.clone())).unwrap();
    for seed in 0..6 {
        let admission = sample::admission("fuzzed", [sample::planned(seed), sample::planned(seed + 100)]);
        let record = Record::Admitted { admission: admission.into() };
        journal.append(&serde_json::to_vec(&record).unwrap()).unwrap();
        journal.append(format!("a payload of its own, number {seed}").as_bytes()).unwrap();
        if seed % 2 == 1 {
            journal.commit().unwrap();
        }
    }
    disk.bytes(FILE)
}

#[test]
fn journals_of_any_bytes_serve_only_what_was_written() {
    let seed = sound_journal();
    let written = bodies::journal(&seed);
    assert_eq!(written.len(), 12);
    let seeds = [seed];
    for _ in 0..4 {
        run(&seeds, |_, data| {
            let served = bodies::journal(data);
            assert!(written.starts_with(&served), "a frame was served that was not written there");
        });
    }
    // Bytes of no journal at all, behind a sound beginning or none.
    let mut dice = Dice(7);
    for _ in 0..rounds() {
        let noise: Vec<u8> = (0..dice.roll(300)).map(|_| u8::try_from(dice.roll(256)).unwrap()).collect();
        assert!(bodies::journal(&noise).is_empty());
        let kept = usize::try_from(dice.roll(seeds[0].len() as u64)).unwrap();
        let served = bodies::journal(&[&seeds[0][..kept], &noise[..]].concat());
        assert!(written.starts_with(&served));
    }
}
