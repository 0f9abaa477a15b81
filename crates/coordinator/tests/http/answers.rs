//! The HTTP face under clumsy clients, over raw sockets: every refusal is a problem, nothing is started.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use isoloss_coordinator::{Config, ServeError, serve, token};
use isoloss_wire::api::{Acquire, Code, WORKER_VERSION};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::lab::{Lab, problem};

/// Request line, headers that differ from the right ones, body, refusal.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str, Code);

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_get_problems_and_start_nothing() {
    let lab = Lab::start().await;
    let sweeps = "POST /api/v1/sweeps";
    let huge = "x".repeat(5 << 20);
    let cases: Vec<Case<'_>> = vec![
        (sweeps, vec![], "{", Code::BadRequest),
        (sweeps, vec![], "\u{0}\u{1}", Code::BadRequest),
        (sweeps, vec![], r#"{"schema_version":1,"unknown":true}"#, Code::BadRequest),
        (sweeps, vec![], &huge, Code::TooLarge),
        (sweeps, vec![("authorization", "")], "{}", Code::Unauthorized),
        (sweeps, vec![("authorization", "Bearer guess")], "{}", Code::Unauthorized),
        (sweeps, vec![("host", "evil.example")], "{}", Code::ForeignOrigin),
        (sweeps, vec![("origin", "http://evil.example")], "{}", Code::ForeignOrigin),
        ("GET /api/v1/sweeps", vec![("host", "evil.example")], "", Code::ForeignOrigin),
        ("GET /api/v1/nothing", vec![], "", Code::NotFound),
        ("GET /api/v1/sweeps/none", vec![], "", Code::NotFound),
        ("GET /api/v1/runs/0000", vec![], "", Code::NotFound),
        ("GET /api/v1/sweeps/..%2f..%2ftoken", vec![], "", Code::NotFound),
        ("GET /api/v1/corpora/..%2f..%2ftoken/manifest", vec![], "", Code::NotFound),
        ("DELETE /api/v1/sweeps", vec![], "", Code::MethodNotAllowed),
        ("GET /api/v1/sweeps/%ff", vec![], "", Code::BadRequest),
        ("GET /api/v1/sweeps/none/runs?limit=x", vec![], "", Code::BadRequest),
        (sweeps, vec![("content-type", "text/plain")], "{}", Code::UnsupportedMedia),
        (sweeps, vec![("content-type", "")], "{}", Code::UnsupportedMedia),
        (
            "POST /api/v1/workers/acquire",
            vec![],
            r#"{"worker":"w","slot":"s","wait_seconds":0.0}"#,
            Code::UnknownWorker,
        ),
        ("POST /api/v1/workers/acquire", vec![], r#"{"worker":"w","slot":"s","wait_seconds":"x"}"#, Code::BadRequest),
    ];
    for (line, headers, body, code) in cases {
        let answer = lab.ask(line, &headers, body).await;
        assert_eq!(problem(&answer).code, code, "{line} {headers:?}");
    }
    lab.raw("\u{0}\u{1}\u{2} nonsense\r\n\r\n".to_owned()).await;
    assert!(lab.client().sweeps().await.unwrap().sweeps.is_empty());
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_sweeps_are_explained_and_not_admitted() {
    let lab = Lab::start().await;
    let client = lab.client();
    let error = client.submit(&lab.submit("schema = 1\nname = \"x\"\nspeling = 3\n")).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::InvalidSweep));
    assert!(error.to_string().contains("mine.toml:3"), "{error}");
    let dear = "schema = 1\nname = \"dear\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MiB\"\n\
                [model]\ncontext = 64\n[axes]\nparams = [\"10k\"]\ntokens = [\"20k\"]\n[budget]\nflops = 1e3\n";
    let error = client.submit(&lab.submit(dear)).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::RefusedPlan), "{error}");
    let mut old = lab.submit(dear);
    old.schema_version = 0;
    assert_eq!(client.submit(&old).await.unwrap_err().code(), Some(Code::Version));
    assert!(client.sweeps().await.unwrap().sweeps.is_empty());
    assert!(client.surveys().await.unwrap().surveys.is_empty());
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_health_and_metrics_answer_a_reader_without_token() {
    let lab = Lab::start().await;
    let without = [("authorization", "")];
    let (status, head, page) = lab.ask("GET /", &without, "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy:") && page.contains("isoloss"), "{head}");
    assert_eq!(lab.ask("GET /livez", &without, "").await.0, 200);
    assert_eq!(lab.ask("GET /readyz", &without, "").await.0, 200);
    let (status, _, metrics) = lab.ask("GET /metrics", &without, "").await;
    assert_eq!(status, 200);
    for name in [
        "isoloss_build_info{",
        "isoloss_runs{state=\"finished\"}",
        "isoloss_workers{",
        "isoloss_http_requests_total{",
        "isoloss_gpus_resting ",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    // All tests of this binary share one recorder, and none of them lets a worker end anything.
    for name in ["fenced_results", "duplicate_results", "lease_expirations", "store_fsync_errors", "results_recorded"] {
        assert!(metrics.contains(&format!("isoloss_{name}_total 0\n")), "{name} does not begin at 0 in\n{metrics}");
    }
    for series in
        ["run_transitions_total{to=\"diverged\",reason=\"outcome\"} 0", "device_seconds_total{use=\"lost\"} 0"]
    {
        assert!(metrics.contains(&format!("isoloss_{series}\n")), "{series} is not in\n{metrics}");
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_two_sweeps_is_read_with_a_note_and_not_ordered() {
    let lab = Lab::start().await;
    let client = lab.client();
    let twin = |tokens: &str| {
        format!(
            "schema = 1\nname = \"twin\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MiB\"\n\
             [model]\ncontext = 64\n[axes]\nparams = [\"10k\", \"20k\"]\ntokens = [{tokens:?}]\n"
        )
    };
    let old = client.submit(&lab.submit(&twin("20k"))).await.unwrap().sweep_id;
    let (status, head, _) = lab.ask("GET /api/v1/sweeps/twin", &[], "").await;
    assert!(status == 200 && !head.contains("isoloss-note"), "{head}");
    let new = client.submit(&lab.submit(&twin("40k"))).await.unwrap().sweep_id;
    for order in ["cancel", "pause", "resume", "retry"] {
        let refused = client.order_sweep("twin", order).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::Ambiguous));
        for candidate in [old, new] {
            assert!(refused.to_string().contains(&format!("{} (active)", candidate.short())), "{refused}");
        }
    }
    let changed = client.order_sweep(&new.to_string(), "cancel").await.unwrap();
    assert_eq!((changed.runs, changed.note), (2, None));
    let again = client.order_sweep(&new.to_string(), "cancel").await.unwrap();
    assert_eq!(again.runs, 0);
    assert!(again.note.unwrap().contains("was cancelled already"));

    assert_eq!(client.sweep("twin").await.unwrap().sweep.sweep_id, old, "the newest live one");
    let (_, head, _) = lab.ask("GET /api/v1/sweeps/twin/runs", &[], "").await;
    let note = format!("isoloss-note: 2 sweeps are called twin: this is {} (active)", old.short());
    assert!(head.contains(&note), "{head}");
    let (_, _, metrics) = lab.ask("GET /metrics", &[], "").await;
    for id in [old, new] {
        let series = format!("isoloss_sweep_progress_ratio{{sweep=\"twin-{}\"}}", id.short());
        assert!(metrics.contains(&series), "{series} is not in\n{metrics}");
    }
    let run = client.runs(&new.to_string()).await.unwrap()[0].run_id.to_string();
    let why = client.explain(&run).await.unwrap().reasons.join("; ");
    assert!(why.contains("an order cancelled its sweep twin") && why.contains("isoloss submit"), "{why}");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_the_owners_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let first = token(dir.path()).unwrap();
    let mode = std::fs::metadata(dir.path().join("token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(token(dir.path()).unwrap(), first);
    assert_eq!(first.len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_address_needs_leave() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let (_stop, shutdown) = watch::channel(false);
    let refused = serve(Config::new(dir.path().to_owned()), listener, shutdown).await;
    assert!(matches!(refused, Err(ServeError::NotLoopback(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_coordinator_ends_requests_that_wait() {
    let lab = Lab::start().await;
    let client = lab.client();
    let slot = isoloss_wire::api::Slot { name: "cpu:0".to_owned(), gpu: None, threads: 1, memory_bytes: 1 << 30 };
    let register = isoloss_wire::api::Register {
        schema_version: WORKER_VERSION,
        protocol: isoloss_wire::child::CHILD_PROTOCOL,
        code_version: "test".to_owned(),
        worker: "w".to_owned(),
        instance: None,
        slots: vec![slot],
        gpu_names: std::collections::BTreeMap::new(),
        storage: "w".to_owned(),
        allow_commands: false,
        holding: Vec::new(),
    };
    client.register(&register).await.unwrap();
    let waiting = tokio::spawn(async move {
        let acquire = Acquire { worker: "w".to_owned(), instance: None, slot: "cpu:0".to_owned(), wait_seconds: 30.0 };
        client.acquire(&acquire).await
    });
    // Whether the request is already there or not, it must not keep the coordinator.
    tokio::task::yield_now().await;
    tokio::time::timeout(Duration::from_secs(20), lab.stop()).await.expect("the coordinator ends");
    if let Ok(acquired) = waiting.await.unwrap() {
        assert!(acquired.lease.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corpus_without_end_is_refused_at_its_line_before_it_is_made() {
    let lab = Lab::start_with(|config| config.survey_memory_bytes = 100 << 20).await;
    let of = |bytes: &str| {
        format!(
            "schema = 1\nname = \"endless\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = {bytes:?}\n\
             [model]\ncontext = 64\n[axes]\nparams = [\"10k\"]\ntokens = [\"20k\"]\n"
        )
    };
    let client = lab.client();
    for bytes in ["900TiB", "40MiB"] {
        for refused in
            [client.submit(&lab.submit(&of(bytes))).await.err(), client.plan(&lab.submit(&of(bytes))).await.err()]
        {
            let refused = refused.unwrap();
            assert_eq!(refused.code(), Some(Code::InvalidSweep));
            let text = refused.to_string();
            assert!(text.contains("mine.toml:6") && text.contains("105MB may be used"), "{text}");
        }
    }
    let file = lab.dir.path().join("long.txt");
    std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    let of_file = of("1MiB").replace(
        "source = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MiB\"",
        "source = \"files\"\npaths = [\"long.txt\"]",
    );
    let text = client.submit(&lab.submit(&of_file)).await.unwrap_err().to_string();
    assert!(text.contains("mine.toml:5") && text.contains("1.10TB of text"), "{text}");
    client.submit(&lab.submit(&of("1MiB"))).await.unwrap();
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_comes_again_is_told_what_it_revives() {
    let lab = Lab::start().await;
    let client = lab.client();
    let toml = "schema = 1\nname = \"again\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MiB\"\n\
                [model]\ncontext = 64\n[axes]\nparams = [\"10k\"]\ntokens = [\"20k\", \"30k\"]\n";
    let first = client.submit(&lab.submit(toml)).await.unwrap();
    assert_eq!((first.runs, first.added, first.revived, first.failed), (2, 2, 0, 0));
    client.order_sweep("again", "cancel").await.unwrap();
    let again = client.submit(&lab.submit(toml)).await.unwrap();
    assert_eq!((again.runs, again.added, again.reused, again.revived, again.failed), (2, 0, 0, 2, 0));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_none_do_not_come_in() {
    let lab = Lab::start().await;
    let register = |worker: &str, slot: &str| {
        serde_json::json!({
            "schema_version": WORKER_VERSION, "protocol": isoloss_wire::child::CHILD_PROTOCOL, "worker": worker,
            "code_version": "1", "slots": [{ "name": slot, "threads": 1, "memory_bytes": 1 }],
            "storage": "s", "allow_commands": false, "holding": [],
        })
        .to_string()
    };
    let long = "w".repeat(5000);
    for (worker, slot) in
        [("", "s"), ("x\ny\u{1b}[31m", "s"), (long.as_str(), "s"), (" w", "s"), ("w", ""), ("w", "\u{7f}")]
    {
        let answer = lab.ask("POST /api/v1/workers/register", &[], &register(worker, slot)).await;
        let problem = problem(&answer);
        assert_eq!(problem.code, Code::BadRequest, "{problem:?}");
        assert!(problem.detail.contains("printable") && problem.detail.len() < 300, "{problem:?}");
    }
    let (status, _, body) = lab.ask("POST /api/v1/workers/register", &[], &register("nöde-7", "cpu 0")).await;
    assert_eq!(status, 200, "{body}");
    let names: Vec<String> = lab.client().workers().await.unwrap().workers.into_iter().map(|row| row.worker).collect();
    assert_eq!(names, ["nöde-7"]);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_below_its_floor_stops_grants_and_everybody_is_told() {
    let lab = Lab::start_with(|config| config.disk_floor_bytes = Some(1 << 62)).await;
    let client = lab.client();
    let toml = "schema = 1\nname = \"room\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MiB\"\n\
                [model]\ncontext = 64\n[axes]\nparams = [\"10k\"]\ntokens = [\"20k\"]\n";
    client.submit(&lab.submit(toml)).await.unwrap();
    let register = serde_json::json!({
        "schema_version": WORKER_VERSION, "protocol": isoloss_wire::child::CHILD_PROTOCOL, "worker": "w",
        "code_version": "1", "slots": [{ "name": "cpu 0", "threads": 1, "memory_bytes": 1_u64 << 40 }],
        "storage": "s", "allow_commands": false, "holding": [],
    });
    assert_eq!(lab.ask("POST /api/v1/workers/register", &[], &register.to_string()).await.0, 200);
    // It is looked at as soon as the coordinator serves; a question in that moment may come first.
    let mut head = String::new();
    for _ in 0..500 {
        head = lab.ask("GET /api/v1/sweeps", &[], "").await.1;
        if head.contains("isoloss-note: no run is granted") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(head.contains("isoloss-note: no run is granted"), "{head}");
    let acquire = r#"{"worker":"w","slot":"cpu 0","wait_seconds":0.1}"#;
    let (status, _, body) = lab.ask("POST /api/v1/workers/acquire", &[], acquire).await;
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(status == 200 && answer["lease"].is_null(), "{body}");
    let run = client.runs("room").await.unwrap().swap_remove(0).run_id;
    let reasons = client.explain(&run.to_string()).await.unwrap().reasons;
    assert!(reasons[0].starts_with("no run is granted: the coordinator's disk"), "{reasons:?}");
    let (_, _, metrics) = lab.ask("GET /metrics", &[], "").await;
    assert!(metrics.contains("isoloss_disk_free_bytes ") && metrics.contains("isoloss_disk_low "), "{metrics}");
    lab.stop().await;
}
