//! Pages of large sweeps: every run once, in the order of the plan, by any size of page; and the same rows as events.

use std::collections::BTreeMap;

use isoloss_wire::api::{Event, Runs, StateCounts};

use crate::lab::{Lab, problem};

/// More runs than one look at the truth takes.
const RUNS: usize = 1500;

fn many() -> String {
    format!(
        "schema = 1\nname = \"many\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MiB\"\n[model]\n\
         context = 64\n[axes]\nparams = [\"10k\"]\ntokens = [\"20k\", \"30k\", \"40k\"]\nseed = {:?}\n",
        (0..RUNS / 3).collect::<Vec<_>>()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_size_hold_every_run_once_in_order() {
    let lab = Lab::start().await;
    let client = lab.client();
    let submitted = client.submit(&lab.submit(&many())).await.unwrap();
    assert_eq!(submitted.runs, RUNS as u64);
    let all = client.runs("many").await.unwrap();
    assert_eq!(all.len(), RUNS);
    for limit in [7, 499, 1000, 5000] {
        let mut rows = Vec::new();
        let mut after = String::new();
        loop {
            let (status, _, body) =
                lab.ask(&format!("GET /api/v1/sweeps/many/runs?limit={limit}{after}"), &[], "").await;
            assert_eq!(status, 200, "{body}");
            let page: Runs = serde_json::from_str(&body).unwrap();
            assert!(page.runs.len() <= limit && !page.runs.is_empty());
            rows.extend(page.runs);
            let Some(next) = page.next else { break };
            after = format!("&after={next}");
        }
        assert_eq!(rows, all, "pages of {limit}");
    }
    let answer = lab.ask("GET /api/v1/sweeps/many/runs?after=nowhere", &[], "").await;
    assert_eq!(problem(&answer).status, 400);
    let (_, _, beyond) = lab.ask("GET /api/v1/sweeps/many/runs?after=99999999", &[], "").await;
    assert!(serde_json::from_str::<Runs>(&beyond).unwrap().runs.is_empty());
    assert_eq!(client.results("many").await.unwrap().len(), RUNS);
    let row = client.sweep("many").await.unwrap().sweep;
    assert_eq!(row.counts, StateCounts { pending: RUNS as u64, ..StateCounts::default() });
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_to_the_events_gets_everything_again_and_an_end() {
    let lab = Lab::start().await;
    let client = lab.client();
    client.submit(&lab.submit(&many())).await.unwrap();
    let all = client.runs("many").await.unwrap();
    let mut first = client.events("many").await.unwrap();
    assert!(matches!(first.next().await.unwrap(), Some(Event::Sweep { .. })));
    for _ in 0..10 {
        assert!(matches!(first.next().await.unwrap(), Some(Event::Run { .. })));
    }
    drop(first);
    let mut events = client.events("many").await.unwrap();
    let mut rows = BTreeMap::new();
    while rows.len() < RUNS {
        match events.next().await.unwrap().unwrap() {
            Event::Run { row } => drop(rows.insert(row.run_id, *row)),
            Event::Sweep { .. } => {}
            Event::End { .. } => panic!("nothing has ended"),
        }
    }
    assert!(all.iter().all(|row| rows[&row.run_id] == *row));
    client.order_run(&all[0].run_id.to_string(), "cancel").await.unwrap();
    client.order_sweep("many", "cancel").await.unwrap();
    let end = loop {
        match events.next().await.unwrap().expect("the last event is an end") {
            Event::Run { row } => drop(rows.insert(row.run_id, *row)),
            Event::Sweep { .. } => {}
            Event::End { row } => break row,
        }
    };
    assert_eq!(end.counts.cancelled, RUNS as u64);
    let now = client.runs("many").await.unwrap();
    assert!(now.iter().all(|row| rows[&row.run_id] == *row), "every run was told as it ended");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_sweeps_and_workers_have_pages_too() {
    let lab = Lab::start().await;
    let client = lab.client();
    for n in 0..5 {
        let one = many().replace("\"many\"", &format!("\"sweep-{n}\"")).replace("1MiB", "1100kB");
        let one = format!("{}seed = [1]\n", &one[..one.find("seed").unwrap()]);
        client.submit(&lab.submit(&one)).await.unwrap();
        let register = serde_json::json!({
            "schema_version": isoloss_wire::api::WORKER_VERSION, "protocol": isoloss_wire::child::CHILD_PROTOCOL, "worker": format!("w {n}/&"),
            "code_version": "1", "slots": [], "storage": "s", "allow_commands": false,
            "holding": [],
        });
        let (status, _, body) = lab.ask("POST /api/v1/workers/register", &[], &register.to_string()).await;
        assert_eq!(status, 200, "{body}");
    }
    let all = client.sweeps().await.unwrap().sweeps;
    assert_eq!((all.len(), all[0].name.as_str()), (5, "sweep-4"));
    let workers = client.workers().await.unwrap().workers;
    for (path, key, name, want) in [
        ("sweeps", "sweeps", "name", all.iter().map(|row| row.name.clone()).collect::<Vec<_>>()),
        ("workers", "workers", "worker", workers.iter().map(|row| row.worker.clone()).collect()),
    ] {
        let (mut found, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let (status, _, body) = lab.ask(&format!("GET /api/v1/{path}?limit=2{after}"), &[], "").await;
            assert_eq!(status, 200, "{body}");
            let page: serde_json::Value = serde_json::from_str(&body).unwrap();
            let rows = page[key].as_array().unwrap();
            found.extend(rows.iter().map(|row| row[name].as_str().unwrap().to_owned()));
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            let word: String = next.bytes().map(|byte| format!("%{byte:02x}")).collect();
            after = format!("&after={word}");
            if pages == 1 && path == "sweeps" {
                // What comes meanwhile moves no page.
                client
                    .submit(&lab.submit(&many().replace("1MiB", "1200kB").replace("\"many\"", "\"late\"")))
                    .await
                    .unwrap();
            }
        }
        assert_eq!((found, pages), (want, 3), "{path}");
    }
    for wrong in ["sweeps?limit=abc", "sweeps?after=zzz", "surveys?after=zzz", "workers?limit=-1", "surveys?limit=x"] {
        assert_eq!(problem(&lab.ask(&format!("GET /api/v1/{wrong}"), &[], "").await).status, 400, "{wrong}");
    }
    lab.stop().await;
}
