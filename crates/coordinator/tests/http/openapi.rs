//! The OpenAPI document: the committed file is the one that is served, and answers are what it says.

use std::path::PathBuf;

use isoloss_coordinator::token;
use isoloss_wire::api::{CheckpointRef, Instance, Register, Slot, WORKER_VERSION};
use isoloss_wire::child::CHILD_PROTOCOL;
use serde_json::{Value, json};

use crate::lab::Lab;

fn committed() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/openapi.json"))
}

async fn served(lab: &Lab) -> Value {
    let (status, _, text) = lab.ask("GET /api/v1/openapi.json", &[("authorization", "")], "").await;
    assert_eq!(status, 200);
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_committed_document_is_the_one_that_the_code_makes() {
    let lab = Lab::start().await;
    let document = served(&lab).await;
    let text = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
    if std::env::var_os("ISOLOSS_BLESS").is_some() {
        std::fs::write(committed(), &text).unwrap();
    }
    let known = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(known == text, "crates/wire/openapi.json is not what the code makes; ISOLOSS_BLESS=1 rewrites it");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    lab.stop().await;
}

/// What a schema of the document says about a value; references lead into the document.
fn check(document: &Value, schema: &Value, value: &Value) {
    let mut whole = schema.clone();
    whole["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&whole).unwrap();
    let wrong: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{schema}\n{value}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_complete_and_lead_somewhere() {
    let lab = Lab::start().await;
    let document = served(&lab).await;
    let mut names = std::collections::BTreeSet::new();
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{path} {method}");
            assert!(operation["summary"].is_string(), "{path} {method}");
            assert!(operation["security"][0]["token"][0].is_string(), "{path} {method}");
            assert!(operation["responses"]["200"].is_object() && operation["responses"]["default"].is_object());
            let words = path.matches('{').count();
            let parameters = operation["parameters"]
                .as_array()
                .map_or(0, |all| all.iter().filter(|one| one["in"] == "path" && one["required"] == true).count());
            assert_eq!(words, parameters, "{path}");
            let line = format!("{} {}", method.to_uppercase(), path.replace(['{', '}'], ""));
            let (status, _, body) = lab.ask(&line, &[], if method == "post" { "{}" } else { "" }).await;
            assert!(status != 405 && !body.contains("nothing is here"), "{line}: {status}");
            if status >= 400 {
                let problem: Value = serde_json::from_str(&body).unwrap();
                check(&document, &document["components"]["schemas"]["Problem"], &problem);
            }
        }
    }
    // As many as the table of `isoloss_wire::api` lists, its lines for several paths counted out.
    assert_eq!(names.len(), 25, "{names:?}");
    lab.stop().await;
}

const SMALL: &str = "schema = 1\nname = \"small\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MiB\"\n\
                     [model]\ncontext = 64\n[axes]\nparams = [\"10k\"]\ntokens = [\"20k\"]\n\
                     [[arm]]\nname = \"dense\"\n[[arm]]\nname = \"moe\"\nfamily = \"moe\"\nexperts = 4\ntop_k = 2\n";

/// A worker that says hello.
fn register() -> Value {
    let slot = Slot { name: "cpu:0".to_owned(), gpu: None, threads: 1, memory_bytes: 8 << 30 };
    let word = |word: &str| word.to_owned();
    let instance = Instance { id: word("one"), home: word("here"), start: 1, place: word("process 7") };
    let register = Register {
        schema_version: WORKER_VERSION,
        protocol: CHILD_PROTOCOL,
        code_version: "test".to_owned(),
        worker: "w".to_owned(),
        instance: Some(instance),
        slots: vec![slot],
        gpu_names: std::collections::BTreeMap::new(),
        storage: "w".to_owned(),
        allow_commands: false,
        holding: Vec::new(),
    };
    serde_json::to_value(&register).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_answers_and_questions_are_as_the_document_says() {
    let lab = Lab::start().await;
    let document = served(&lab).await;
    assert_eq!(token(lab.dir.path()).unwrap(), lab.token);
    let submit = serde_json::to_value(lab.submit(SMALL)).unwrap();
    let acquire = json!({ "worker": "w", "instance": "one", "slot": "cpu:0", "wait_seconds": 0.0 });
    let ask = async |method: &str, pattern: &str, path: &str, body: Option<&Value>| {
        let operation = &document["paths"][format!("/api/v1{pattern}")][method];
        assert!(operation.is_object(), "{method} {pattern}");
        if let Some(body) = body {
            check(&document, &operation["requestBody"]["content"]["application/json"]["schema"], body);
        }
        let text = body.map(Value::to_string).unwrap_or_default();
        let (status, _, answer) = lab.ask(&format!("{} /api/v1{path}", method.to_uppercase()), &[], &text).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        check(&document, &operation["responses"]["200"]["content"]["application/json"]["schema"], &answer);
        answer
    };
    ask("post", "/plan", "/plan", Some(&submit)).await;
    ask("post", "/sweeps", "/sweeps", Some(&submit)).await;
    ask("post", "/workers/register", "/workers/register", Some(&register())).await;
    let lease = ask("post", "/workers/acquire", "/workers/acquire", Some(&acquire)).await["lease"].clone();
    let (run, attempt) = (lease["run_id"].as_str().unwrap(), &lease["attempt"]);
    let live = json!({
        "worker": "w", "device": "cpu:0", "attempt": attempt, "step": 1, "steps": 9, "tokens": 64, "tokens_per_second": 9.5,
        "loss_nats": 5.5, "memory_bytes": 1, "seconds": 0.5, "gpu": { "uuid": "GPU-1", "mps": true },
    });
    let point = json!({ "step": 1, "tokens": 64, "loss_nats": 5.5, "bits_per_byte": 7.9, "train_loss_nats": 5.5 });
    let digest = lease["run"]["data"]["corpus"].as_str().unwrap().parse().unwrap();
    let checkpoint = CheckpointRef { path: "a/1".to_owned(), step: 1, digest };
    let rest = json!({ "gpu": "GPU-1", "reason": "no such GPU", "seconds": 4.0 });
    let renew = json!({ "worker": "w", "instance": "one", "resting": "full", "gpus_resting": [rest], "leases": [{
        "run_id": run, "attempt": attempt, "key": lease["key"], "slot": "cpu:0", "live": live, "points": [point],
        "checkpoints": [checkpoint], "log": ["a line"],
    }] });
    ask("post", "/workers/renew", "/workers/renew", Some(&renew)).await;
    for order in ["drain", "undrain"] {
        ask("post", "/workers/{worker}/{order}", &format!("/workers/w/{order}"), None).await;
        ask("get", "/workers", "/workers", None).await;
    }
    ask("get", "/sweeps/{sweep}/runs", "/sweeps/small/runs", None).await;
    let result = json!({ "outcome": { "outcome": "diverged", "step": 2, "reason": "too hot", "curve": [point], "seconds": 1.5 } });
    let settle = json!({
        "worker": "w", "run_id": run, "attempt": attempt, "key": lease["key"], "device": "cpu:0", "ending": result,
    });
    ask("post", "/workers/settle", "/workers/settle", Some(&settle)).await;
    for (pattern, path) in [
        ("/sweeps", "/sweeps".to_owned()),
        ("/sweeps/{sweep}", "/sweeps/small".to_owned()),
        ("/sweeps/{sweep}/runs", "/sweeps/small/runs?limit=1".to_owned()),
        ("/sweeps/{sweep}/results", "/sweeps/small/results".to_owned()),
        ("/surveys", "/surveys".to_owned()),
        ("/runs/{run}", format!("/runs/{run}")),
        ("/runs/{run}/explain", format!("/runs/{run}/explain")),
        ("/runs/{run}/log", format!("/runs/{run}/log?after=0")),
        (
            "/corpora/{digest}/manifest",
            format!("/corpora/{}/manifest", lease["run"]["data"]["corpus"].as_str().unwrap()),
        ),
    ] {
        ask("get", pattern, &path, None).await;
    }
    ask("post", "/runs/{run}/{order}", &format!("/runs/{run}/retry"), None).await;
    ask("post", "/sweeps/{sweep}/{order}", "/sweeps/small/cancel", None).await;
    ask("post", "/workers/leave", "/workers/leave", Some(&json!({ "worker": "w", "instance": "one" }))).await;
    lab.stop().await;
}
