use super::*;
use crate::config::gpu_slots;

/// Slots of so many GPUs, one GPU after the other.
fn worker(gpus: u32, runs: u32) -> (Gpus, Vec<Slot>) {
    let slots: Vec<Slot> = (1..=gpus).flat_map(|gpu| gpu_slots(&format!("GPU-{gpu}"), 1 << 40, runs)).collect();
    (Gpus::of(&slots), slots)
}

/// What is there at once.
async fn soon<T>(waited: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::ZERO, waited).await.ok()
}

#[tokio::test(start_paused = true)]
async fn work_goes_to_the_gpu_with_the_fewest_runs() {
    let (gpus, slots) = worker(2, 4);
    let first = gpus.asking(&slots[0]).await;
    assert!(soon(gpus.asking(&slots[1])).await.is_none(), "one asks for all of a GPU");
    let other = gpus.asking(&slots[4]).await;
    assert!(first.is_patient().await && other.is_patient().await);
    let busy = first.granted();
    let second = gpus.asking(&slots[1]).await;
    assert_eq!(soon(second.is_patient()).await, None, "the other may take what comes");
    assert!(!second.is_patient().await, "it did not for a moment: there may be what does not fit it");
    let equal = other.granted();
    assert_eq!(soon(second.is_patient()).await, Some(true), "each has one");
    assert_eq!(soon(second.overtaken()).await, None);
    drop(equal);
    assert_eq!(soon(second.overtaken()).await, Some(()), "the other is emptier again");
    drop((second, busy));
    let full: Vec<Busy> = [gpus.asking(&slots[4]).await.granted(), gpus.asking(&slots[5]).await.granted()].into();
    assert_eq!(soon(gpus.asking(&slots[0]).await.is_patient()).await, Some(true));
    drop(full);
    let core = Slot { gpu: None, ..slots[0].clone() };
    let both = [gpus.asking(&core).await, gpus.asking(&core).await];
    assert!(both[0].is_patient().await && both[1].is_patient().await, "cores ask as they like");
}

#[tokio::test(start_paused = true)]
async fn a_slot_goes_on_unless_an_emptier_gpu_may_want_the_next_run() {
    let (gpus, slots) = worker(2, 2);
    let mut busy = vec![gpus.asking(&slots[0]).await.granted(), gpus.asking(&slots[1]).await.granted()];
    assert!(!gpus.may_go_on(&slots[0]), "the other GPU has none");
    let other = gpus.asking(&slots[2]).await;
    assert!(other.is_patient().await && !gpus.may_go_on(&slots[0]));
    tokio::time::advance(MOMENT).await;
    assert!(gpus.may_go_on(&slots[0]), "it asked in vain");
    busy.push(other.granted());
    assert!(gpus.may_go_on(&slots[0]), "without this run both had one");
    gpus.lost(&slots[1], Instant::now(), "no such GPU");
    assert!(!gpus.may_go_on(&slots[0]) && gpus.may_go_on(&slots[2]), "its GPU rests");
}

#[tokio::test(start_paused = true)]
async fn a_gpu_that_is_not_to_be_had_rests_longer_and_longer_until_a_run_trains() {
    let (gpus, slots) = worker(2, 2);
    let (sick, well) = (&slots[..2], &slots[2]);
    let begun = Instant::now();
    let work = [gpus.asking(&sick[0]).await.granted(), gpus.asking(&sick[1]).await.granted()];
    tokio::time::advance(MOMENT).await;
    gpus.lost(&sick[0], begun, "no such GPU");
    gpus.lost(&sick[1], begun, "no such GPU");
    drop(work);
    for rest in [2u32, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let told = RestingGpu { gpu: "GPU-1".to_owned(), reason: "no such GPU".to_owned(), seconds: f64::from(rest) };
        assert_eq!(gpus.resting(), [told]);
        let asking = gpus.asking(well).await;
        assert_eq!(soon(asking.is_patient()).await, Some(true), "a GPU that rests is not waited for");
        drop(asking);
        let since = Instant::now();
        let trial = gpus.asking(&sick[0]).await;
        assert_eq!((trial.is_patient().await, since.elapsed().as_secs()), (true, u64::from(rest)));
        assert_eq!(gpus.resting()[0].seconds, 0.0, "it has to prove itself");
        let trial = trial.granted();
        assert!(soon(gpus.asking(&sick[1])).await.is_none(), "one run at a time");
        gpus.works(&sick[1], begun);
        assert!(soon(gpus.asking(&sick[1])).await.is_none(), "what was under way before says nothing");
        gpus.lost(&sick[0], Instant::now(), "no such GPU");
        drop(trial);
    }
    let trial = gpus.asking(&sick[0]).await.granted();
    gpus.works(&sick[0], Instant::now());
    assert!(gpus.resting().is_empty());
    let next = gpus.asking(&sick[1]).await;
    assert!(gpus.may_go_on(&sick[0]), "it is there again");
    gpus.lost(&sick[0], Instant::now(), "no such GPU");
    assert_eq!(soon(next.overtaken()).await, Some(()), "whoever asks for it stops");
    drop((trial, next));
    let since = Instant::now();
    let _again = gpus.asking(&sick[0]).await;
    assert_eq!(since.elapsed().as_secs(), REST_FIRST.as_secs(), "a new trouble begins anew");
    gpus.lost(&sick[0], Instant::now(), &"x".repeat(10_000));
    assert_eq!(gpus.resting()[0].reason.len(), REASON_CHARS_MAX, "what a child said is bounded");
}

/// What each run has of a GPU adds up to the time in which it had any.
#[tokio::test(start_paused = true)]
async fn runs_that_share_a_gpu_share_its_time() {
    let (gpus, slots) = worker(2, 3);
    let clock = |slot: &Slot| gpus.clock(slot, Instant::now());
    tokio::time::advance(Duration::from_secs(7)).await;
    let first = gpus.asking(&slots[0]).await.granted();
    assert_eq!(clock(&slots[0]), Duration::ZERO, "it stands while nobody is there");
    tokio::time::advance(Duration::from_secs(10)).await;
    let second = gpus.asking(&slots[1]).await.granted();
    let came = clock(&slots[1]);
    tokio::time::advance(Duration::from_secs(12)).await;
    let third = gpus.asking(&slots[2]).await.granted();
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(clock(&slots[0]), Duration::from_secs(10 + 6 + 3));
    assert_eq!(clock(&slots[1]) - came, Duration::from_secs(6 + 3));
    drop((first, third));
    tokio::time::advance(Duration::from_secs(5)).await;
    // A look that comes late with an early time changes nothing.
    assert_eq!(gpus.clock(&slots[1], Instant::now() - Duration::from_secs(1)) - came, Duration::from_secs(6 + 3 + 4));
    assert_eq!(clock(&slots[1]) - came, Duration::from_secs(6 + 3 + 5));
    drop(second);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!((clock(&slots[2]), clock(&slots[3])), (Duration::from_secs(10 + 6 + 3 + 5), Duration::ZERO));
}
