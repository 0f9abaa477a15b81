//! A coordinator whose disk is nearly full.

use super::*;

#[test]
fn a_full_disk_stops_grants_and_nothing_else() {
    let runs = [sample::planned(1), sample::planned(2), sample::planned(3)];
    let mut bench = Bench::new(&[sample::admission("one", runs.clone())]);
    bench.join(cpu("w", "here", 2));
    let grant = bench.acquire("w", "cpu:0").unwrap();
    let shortage = Some(Shortage { free_bytes: 5 << 20, floor_bytes: 256 << 20 });
    bench.tell(Event::Room { shortage });
    assert!(bench.acquire("w", "cpu:1").is_none());
    let why = bench.why(runs[0].run_id);
    assert!(why.contains("has 5.0 MiB left and keeps 256.0 MiB"), "{why}");
    // What is held goes on, is given again to a slot that lost the answer, and ends.
    assert_eq!(bench.acquire("w", "cpu:0").unwrap(), grant);
    bench.wait(LEASE - 1);
    assert!(stops(&bench.renew(&grant, 5)).is_empty());
    bench.wait(LEASE - 1);
    assert!(refusals(&bench.settle(&grant, sample::finished(1.0))).is_empty());
    assert_eq!(bench.status(grant.run_id), Status::Finished);
    assert!(bench.acquire("w", "cpu:0").is_none());
    bench.tell(Event::Room { shortage: None });
    assert!(bench.acquire("w", "cpu:0").is_some() && bench.acquire("w", "cpu:1").is_some());
}
