//! Whose word counts about an attempt: its lease's holder, who shows the key, and nobody else.

use isoloss_coordinator::tokens::{self, Role};
use isoloss_coordinator::{Config, serve};
use isoloss_sweep::{Digest, RunId};
use isoloss_wire::api::{
    Acquire, Code, Ending, Lease, LeaseKey, Live, Register, Renew, Renewal, RestingGpu, RunState, Settle, Slot,
    Verdict, WORKER_VERSION,
};
use isoloss_wire::child::CHILD_PROTOCOL;
use isoloss_wire::{Client, ClientError};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::lab::{Lab, problem};

const SYNTHETIC: &str = "schema = 1\nname = \"small\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MiB\"\n\
                         [model]\ncontext = 64\n[axes]\nparams = [\"10k\"]\ntokens = [\"20k\"]\n";

/// A client with a worker's token of its own.
fn worker(lab: &Lab, name: &str) -> Client {
    let (_, token) = tokens::create(lab.dir.path(), Role::Worker, name).unwrap();
    Client::new(&format!("http://{}", lab.address), Some(token)).unwrap().with_tries(1)
}

fn register(name: &str) -> Register {
    Register {
        schema_version: WORKER_VERSION,
        protocol: CHILD_PROTOCOL,
        code_version: "test".to_owned(),
        worker: name.to_owned(),
        instance: None,
        slots: vec![Slot { name: "cpu:0".to_owned(), gpu: None, threads: 1, memory_bytes: 8 << 30 }],
        gpu_names: std::collections::BTreeMap::new(),
        storage: name.to_owned(),
        allow_commands: false,
        holding: Vec::new(),
    }
}

/// A worker that joins and is given the only run.
async fn take(lab: &Lab, name: &str) -> (Client, Lease) {
    lab.client().submit(&lab.submit(SYNTHETIC)).await.unwrap();
    let client = worker(lab, name);
    client.register(&register(name)).await.unwrap();
    let acquire = Acquire { worker: name.to_owned(), instance: None, slot: "cpu:0".to_owned(), wait_seconds: 10.0 };
    let lease = *client.acquire(&acquire).await.unwrap().lease.expect("there is work");
    (client, lease)
}

fn diverged(name: &str, lease: &Lease, key: Option<LeaseKey>) -> Settle {
    let outcome =
        serde_json::json!({ "outcome": "diverged", "step": 2, "reason": "too hot", "curve": [], "seconds": 1.5 });
    Settle {
        worker: name.to_owned(),
        instance: None,
        run_id: lease.run_id,
        attempt: lease.attempt,
        key,
        device: "cpu:0".to_owned(),
        ending: Ending::Outcome(serde_json::from_value(outcome).unwrap()),
        checkpoints: Vec::new(),
        log: vec!["forged".to_owned()],
        next: false,
    }
}

fn renewal(lease: &Lease, key: Option<LeaseKey>) -> Renewal {
    let live = Live {
        worker: "anybody".to_owned(),
        device: "cpu:0".to_owned(),
        gpu: None,
        attempt: lease.attempt,
        step: 7,
        steps: 9,
        tokens: isoloss_sweep::Tokens(7),
        tokens_per_second: 1.0,
        loss_nats: None,
        bits_per_byte: None,
        memory_bytes: 0,
        seconds: 1.0,
    };
    Renewal {
        run_id: lease.run_id,
        attempt: lease.attempt,
        key,
        slot: "cpu:0".to_owned(),
        live: Some(live),
        points: Vec::new(),
        checkpoints: Vec::new(),
        log: vec!["forged".to_owned()],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_ended_and_renewed_by_its_holder_alone() {
    let lab = Lab::start().await;
    let (holder, lease) = take(&lab, "t").await;
    let run = lease.run_id.to_string();
    let forger = worker(&lab, "w2");
    forger.register(&register("w2")).await.unwrap();
    let of_another = lease.key.as_ref().map(|key| LeaseKey(key.0.chars().rev().collect()));
    for key in [None, of_another, Some(LeaseKey("0".repeat(64)))] {
        for name in ["w2", "t", "never-registered"] {
            let refused = forger.settle(&diverged(name, &lease, key.clone())).await.unwrap_err();
            assert_eq!(refused.code(), Some(Code::WrongKey), "{refused}");
        }
        let leases = vec![renewal(&lease, key)];
        let renew = Renew { worker: "w2".to_owned(), instance: None, leases, resting: None, gpus_resting: Vec::new() };
        let verdicts = forger.renew(&renew).await.unwrap().leases;
        assert!(matches!(verdicts[0].verdict, Verdict::Stop { .. }), "{verdicts:?}");
    }
    let detail = lab.client().run(&run).await.unwrap();
    assert_eq!((detail.row.state, detail.row.live.map(|live| live.step)), (RunState::Leased, Some(0)));
    assert!(lab.client().log(&run, 0).await.unwrap().lines.is_empty(), "nothing that was forged is shown");
    // Neither is a lease taken up by naming it.
    let mut thief = register("w3");
    thief.holding = vec![renewal(&lease, None)];
    worker(&lab, "w3").register(&thief).await.unwrap();
    assert_eq!(lab.client().run(&run).await.unwrap().row.live.unwrap().worker, "t");
    // What tells the key to nobody: the pages, the history, the lists.
    let key = lease.key.clone().unwrap();
    for path in ["/api/v1/workers", &format!("/api/v1/runs/{run}"), &format!("/api/v1/runs/{run}/explain")] {
        let (status, _, text) = lab.ask(&format!("GET {path}"), &[], "").await;
        assert!(status == 200 && !text.contains(&key.0), "{text}");
    }
    let leases = vec![renewal(&lease, Some(key.clone()))];
    let renew = Renew { worker: "t".to_owned(), instance: None, leases, resting: None, gpus_resting: Vec::new() };
    let verdicts = holder.renew(&renew).await.unwrap().leases;
    assert!(matches!(verdicts[0].verdict, Verdict::Keep { .. }), "{verdicts:?}");
    assert!(!holder.settle(&diverged("t", &lease, Some(key.clone()))).await.unwrap().duplicate);
    assert!(holder.settle(&diverged("t", &lease, Some(key))).await.unwrap().duplicate);
    let unknown = Settle { run_id: RunId(Digest::of(b"nobody's")), ..diverged("t", &lease, None) };
    assert!(matches!(holder.settle(&unknown).await, Err(ClientError::NotFound(_))), "of a run that nobody knows");
    lab.stop().await;
}

/// Another life of the coordinator on the same data directory.
async fn restarted(lab: Lab) -> Lab {
    let Lab { dir, token, stop, task, .. } = lab;
    stop.send_replace(true);
    task.await.unwrap().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, shutdown) = watch::channel(false);
    let task = tokio::spawn(serve(Config::new(dir.path().to_owned()), listener, shutdown));
    let lab = Lab { dir, address, token, stop, task };
    lab.client().ready().await.unwrap();
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_outlives_the_coordinator_and_what_was_leased_without_one_still_counts() {
    let lab = Lab::start().await;
    let (_, lease) = take(&lab, "t").await;
    let lab = restarted(lab).await;
    let refused = lab.client().settle(&diverged("t", &lease, None)).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::WrongKey));
    // As after an upgrade, or over a restored store: the attempt was leased when there was another secret, or none.
    std::fs::remove_file(lab.dir.path().join("lease-keys.json")).unwrap();
    let lab = restarted(lab).await;
    assert!(!lab.client().settle(&diverged("t", &lease, None)).await.unwrap().duplicate);
    lab.stop().await;

    let lab = Lab::start().await;
    let (_, lease) = take(&lab, "t").await;
    let lab = restarted(lab).await;
    assert!(!lab.client().settle(&diverged("t", &lease, lease.key.clone())).await.unwrap().duplicate);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_another_version_is_told_both() {
    let lab = Lab::start().await;
    let old = Register { schema_version: WORKER_VERSION - 1, ..register("old") };
    let refused = lab.client().register(&old).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Version));
    let words = refused.to_string();
    let told = [format!("speaks version {}.", WORKER_VERSION - 1), format!("this coordinator {WORKER_VERSION}.")];
    assert!(told.iter().all(|part| words.contains(part)), "{words}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_why_it_asks_for_nothing() {
    let lab = Lab::start().await;
    let client = lab.client();
    client.submit(&lab.submit(SYNTHETIC)).await.unwrap();
    let run = client.runs("small").await.unwrap()[0].run_id.to_string();
    client.register(&register("full")).await.unwrap();
    let say = async |resting: Option<&str>| {
        let resting = resting.map(str::to_owned);
        let (worker, leases, gpus_resting) = ("full".to_owned(), Vec::new(), Vec::new());
        let renew = Renew { worker, instance: None, leases, resting, gpus_resting };
        client.renew(&renew).await.unwrap();
        (client.workers().await.unwrap().workers.remove(0).resting, client.explain(&run).await.unwrap().reasons)
    };
    let (resting, reasons) = say(Some("its disk has 40.0 MiB free and 64.0 MiB are needed\n")).await;
    assert_eq!(resting.as_deref(), Some("its disk has 40.0 MiB free and 64.0 MiB are needed"));
    assert_eq!(reasons[0], "full asks for no work: its disk has 40.0 MiB free and 64.0 MiB are needed");
    let (resting, _) = say(Some(&"x".repeat(100_000))).await;
    assert!(resting.unwrap().len() < 1000, "what a worker says of itself is bounded");
    let (resting, reasons) = say(None).await;
    assert!(resting.is_none() && reasons[0].contains("it waits for a worker to ask"), "{reasons:?}");
    lab.stop().await;
}

/// What it says of GPUs that it does not have is nothing; what it says of its own is bounded and of one line.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_which_gpus_rest_and_why() {
    let lab = Lab::start().await;
    let client = lab.client();
    let slot = Slot { name: "GPU-1".to_owned(), gpu: Some("GPU-1".to_owned()), threads: 1, memory_bytes: 80 << 30 };
    client.register(&Register { slots: vec![slot.clone()], ..register("sick") }).await.unwrap();
    // Nor does it name them as it likes.
    for names in [&[("GPU-1", "\u{1b}[2J")][..], &[("GPU-1", "H200"), ("GPU-2", "H200")]] {
        let gpu_names = names.iter().map(|(gpu, name)| ((*gpu).to_owned(), (*name).to_owned())).collect();
        let wrong = Register { slots: vec![slot.clone()], gpu_names, ..register("sick") };
        assert_eq!(client.register(&wrong).await.unwrap_err().code(), Some(Code::BadRequest), "{names:?}");
    }
    let rest =
        |gpu: &str, reason: &str, seconds| RestingGpu { gpu: gpu.to_owned(), reason: reason.to_owned(), seconds };
    let say = async |gpus_resting: Vec<RestingGpu>| {
        let renew =
            Renew { worker: "sick".to_owned(), instance: None, leases: Vec::new(), resting: None, gpus_resting };
        client.renew(&renew).await.unwrap();
        client.workers().await.unwrap().workers.remove(0).gpus_resting
    };
    let lost = "cuInit failed:\n \u{1b}[31mno such\u{202e} device";
    let told =
        say(vec![rest("GPU-1", lost, 250.0), rest("GPU-7", "not its own", 9.0), rest("GPU-1", "again", 1.0)]).await;
    assert_eq!(
        (told.len(), told[0].gpu.as_str(), told[0].reason.as_str()),
        (1, "GPU-1", "cuInit failed: [31mno such device")
    );
    assert!((200.0..=250.0).contains(&told[0].seconds), "{told:?}");
    // Also from a worker that gets it all wrong.
    let told = say(vec![rest("GPU-1", &"x".repeat(100_000), -9.0)]).await;
    assert!(told[0].reason.len() < 1000 && told[0].seconds == 0.0, "{told:?}");
    let told = say(vec![rest("GPU-1", "", 1e12)]).await;
    assert!((3000.0..=3600.0).contains(&told[0].seconds), "{told:?}");
    assert!(say(Vec::new()).await.is_empty());
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_says_anew_what_runs_need_and_one_run_is_retried() {
    let lab = Lab::start().await;
    let client = lab.client();
    let with = |memory: &str| lab.submit(&format!("{SYNTHETIC}[resources]\nmemory = \"{memory}\"\n"));
    let first = client.submit(&with("900TiB")).await.unwrap();
    assert_eq!((first.runs, first.added, first.amended, first.kept), (1, 1, 0, 0));
    client.register(&register("w")).await.unwrap();
    let run = client.runs("small").await.unwrap()[0].run_id.to_string();
    let reasons = client.explain(&run).await.unwrap().reasons;
    assert!(reasons[0].contains("needs 900 TiB of memory, 8.00 GiB are free"), "{reasons:?}");
    let again = client.submit(&with("10MiB")).await.unwrap();
    assert_eq!((again.runs, again.added, again.amended, again.kept), (1, 0, 1, 0));
    // It is in the journal: the next life of the coordinator knows it, with its index and without.
    let mut lab = restarted(lab).await;
    for _ in 0..2 {
        lab.client().register(&register("w")).await.unwrap();
        let reasons = lab.client().explain(&run).await.unwrap().reasons;
        assert!(reasons[0].contains("it waits for a worker to ask"), "{reasons:?}");
        std::fs::remove_dir_all(lab.dir.path().join("store/index")).unwrap();
        lab = restarted(lab).await;
    }
    let client = lab.client();
    client.register(&register("w")).await.unwrap();
    let acquire = Acquire { worker: "w".to_owned(), instance: None, slot: "cpu:0".to_owned(), wait_seconds: 10.0 };
    let lease = *client.acquire(&acquire).await.unwrap().lease.expect("there is work");
    assert_eq!(lease.memory_bytes, Some(10 << 20));
    let kept = client.submit(&lab.submit(&format!("{SYNTHETIC}[resources]\nmemory = \"20MiB\"\n"))).await.unwrap();
    assert_eq!((kept.amended, kept.kept), (0, 1), "its child was told what it may take");
    client.settle(&diverged("w", &lease, lease.key.clone())).await.unwrap();
    let short = &run[..8];
    assert_eq!(client.order_run(short, "retry").await.unwrap().runs, 1);
    assert_eq!(client.run(&run).await.unwrap().row.state, RunState::Pending);
    let note = client.order_run(short, "retry").await.unwrap().note.unwrap();
    assert!(note.ends_with("is pending: nothing changed"), "{note}");
    let answer = lab.ask(&format!("POST /api/v1/runs/{}/retry", &run[..2]), &[], "").await;
    let words = problem(&answer).detail;
    assert!(words.contains("the beginning of an id has 4 digits or more"), "{words}");
    lab.stop().await;
}
