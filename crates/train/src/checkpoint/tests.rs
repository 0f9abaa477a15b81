use super::*;
use crate::fixture;
use crate::init::initial_state;

fn checkpoint(run: Run, step: u64) -> Checkpoint {
    let mut state = initial_state(&run.model, 3);
    state.step = step;
    state.first_moment[1] = f32::MIN_POSITIVE;
    let ledger = Ledger { recent: [0.1 + 0.2, 1.0 / 3.0].into(), flops_spent: 1e300 / 7.0, ..Ledger::default() };
    Checkpoint { run, trunk: false, state, ledger }
}

fn bytes(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut bytes = Vec::new();
    let snapshot = checkpoint.snapshot();
    let digest = stream::encode(&snapshot.header(), snapshot.state, &mut bytes).unwrap();
    assert_eq!(digest, Digest::of(&bytes));
    bytes
}

fn read(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::decoded(bytes, bytes.len() as u64, Path::new("a.checkpoint"))
}

fn moe() -> Run {
    fixture::moe(Digest::of(b"corpus"))
}

#[test]
fn a_file_gives_back_every_bit_and_has_the_digest_that_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(moe(), 12);
    let written = checkpoint.write(dir.path(), &[]).unwrap();
    assert_eq!(Checkpoint::read(&written.path).unwrap(), checkpoint);
    assert_eq!(Digest::of(&fs::read(&written.path).unwrap()), written.digest);
}

#[test]
fn damage_anywhere_is_found() {
    let bytes = bytes(&checkpoint(moe(), 12));
    for at in (0..bytes.len()).step_by(bytes.len() / 50) {
        let mut torn = bytes.clone();
        torn[at] ^= 1;
        assert!(read(&torn).is_err(), "byte {at}");
        let cut = read(&bytes[..at]);
        assert!(matches!(cut, Err(CheckpointError::Damaged { .. })), "cut at {at}");
    }
    assert!(read(&[&bytes[..], &[0]].concat()).is_err(), "a byte too many");
    // A length that a broken header claims takes no memory before it is seen to be wrong.
    let mut long = bytes.clone();
    long[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(read(&long), Err(CheckpointError::Damaged { .. })));
}

#[test]
fn another_format_version_is_named() {
    let bytes = bytes(&checkpoint(moe(), 12));
    let text = |s: &str| s.as_bytes().to_vec();
    let (from, to) = (text("\"version\":1,\"run\""), text("\"version\":9,\"run\""));
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    let mut other = bytes[..bytes.len() - 32].to_vec();
    other[at..at + to.len()].copy_from_slice(&to);
    let digest = Digest::of(&other);
    other.extend(digest.as_bytes());
    let refused = read(&other);
    assert!(matches!(refused, Err(CheckpointError::Version { found: 9, .. })));
}

#[test]
fn the_last_two_and_those_asked_for_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("0000000001.99.partial"), b"half").unwrap();
    for step in [5, 10, 15, 20, 25] {
        checkpoint(moe(), step).write(dir.path(), &[10]).unwrap();
    }
    let steps: Vec<u64> = list(dir.path()).unwrap().into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [10, 20, 25]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn a_full_disk_is_the_storages_fault_and_leaves_no_half_behind() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint(moe(), 5).write(dir.path(), &[]).unwrap();
    // Every write to /dev/full fails as on a full disk.
    let temporary = dir.path().join(format!("{:010}.{}.{PARTIAL}", 10, std::process::id()));
    std::os::unix::fs::symlink("/dev/full", &temporary).unwrap();
    let error = checkpoint(moe(), 10).write(dir.path(), &[]).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull),
        "{error:?}"
    );
    assert!(!temporary.is_symlink());
    assert_eq!(list(dir.path()).unwrap().len(), 1, "the older one is still there");
}

#[test]
fn only_the_same_run_or_its_trunk_may_go_on() {
    let path = Path::new("a.checkpoint");
    let base = fixture::run(Digest::of(b"corpus"));
    let admitted = |checkpoint: &Checkpoint, run: &Run, end| checkpoint.admit(run, end, path).is_ok();

    let cosine = checkpoint(base.clone(), 30);
    assert!(admitted(&cosine, &base, None));
    let mut other = base.clone();
    other.train.seed += 1;
    assert!(!admitted(&cosine, &other, None));
    let mut longer = base.clone();
    longer.train.steps += 1;
    assert!(!admitted(&cosine, &longer, None), "a cosine has no trunk");

    let (short, long) = (fixture::wsd(base.clone(), 40, 10), fixture::wsd(base, 80, 20));
    let stable = checkpoint(short.clone(), 30);
    assert!(admitted(&stable, &short, None) && admitted(&stable, &long, None));
    let decayed = checkpoint(short.clone(), 31);
    assert!(admitted(&decayed, &short, None) && !admitted(&decayed, &long, None));
    assert!(!admitted(&decayed, &short, Some(60)), "not as a trunk");
    let trunk = Checkpoint { trunk: true, ..checkpoint(short.clone(), 31) };
    assert!(!admitted(&trunk, &short, None) && admitted(&trunk, &long, None));
    assert!(admitted(&trunk, &short, Some(60)) && !admitted(&trunk, &short, Some(30)));
}

#[test]
fn up_to_the_branch_every_budget_has_the_trunks_learning_rate() {
    let base = fixture::run(Digest::of(b"corpus"));
    let (short, long) = (fixture::wsd(base.clone(), 40, 10), fixture::wsd(base, 80, 20));
    let branch = branch_step(&short).unwrap();
    assert_eq!(branch, 30);
    assert!((0..branch).all(|step| short.learning_rate(step) == long.learning_rate(step)));
    assert!((branch..40).all(|step| short.learning_rate(step) < long.learning_rate(step)));
}
