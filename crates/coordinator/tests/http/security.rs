//! Who may do what: roles, keys, TLS, and the files that a submission may name.

use std::path::PathBuf;

use isoloss_coordinator::tokens::{self, Role};
use isoloss_coordinator::{Config, Tls, serve, token};
use isoloss_wire::Client;
use isoloss_wire::api::{Code, Submitted};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::lab::{Lab, problem};

const SYNTHETIC: &str = "schema = 1\nname = \"small\"\n[corpus]\nsource = \"synthetic\"\npreset = \"tiny\"\nbytes = \"1MiB\"\n\
                         [model]\ncontext = 64\n[axes]\nparams = [\"10k\"]\ntokens = [\"20k\"]\n";

/// Method and path, body, and the roles that may.
const DOORS: [(&str, &str, &[Role]); 8] = [
    ("GET /api/v1/sweeps", "", &[Role::Viewer, Role::Submitter, Role::Admin]),
    ("GET /api/v1/workers", "", &[Role::Viewer, Role::Submitter, Role::Admin]),
    ("POST /api/v1/plan", "{}", &[Role::Submitter, Role::Admin]),
    ("POST /api/v1/sweeps", "{}", &[Role::Submitter, Role::Admin]),
    ("POST /api/v1/sweeps/none/cancel", "", &[Role::Submitter, Role::Admin]),
    ("POST /api/v1/runs/none/cancel", "", &[Role::Submitter, Role::Admin]),
    ("POST /api/v1/workers/register", "{}", &[Role::Worker, Role::Admin]),
    ("GET /api/v1/corpora/none/manifest", "", &[Role::Worker, Role::Admin]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_role_opens_its_doors_and_no_other() {
    let lab = Lab::start().await;
    for role in [Role::Viewer, Role::Submitter, Role::Worker, Role::Admin] {
        let (row, token) = tokens::create(lab.dir.path(), role, role.name()).unwrap();
        let bearer = format!("Bearer {token}");
        for (line, body, may) in DOORS {
            let (status, ..) = lab.ask(line, &[("authorization", &bearer)], body).await;
            let let_in = ![401, 403].contains(&status);
            assert_eq!(let_in, may.contains(&role), "{line} as {}: {status}", role.name());
        }
        tokens::revoke(lab.dir.path(), &row.id).unwrap();
        let answer = lab.ask("GET /api/v1/sweeps", &[("authorization", &bearer)], "").await;
        assert_eq!(problem(&answer).code, Code::Unauthorized, "a revoked token is refused at once");
    }
    let answer = lab.ask("GET /api/v1/corpora/none/manifest", &[("authorization", "")], "").await;
    assert_eq!(problem(&answer).code, Code::Unauthorized, "a corpus is not for every user of the machine");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gives_the_same_answer_again_and_takes_no_other_question() {
    let lab = Lab::start().await;
    let submit = |toml: &str| serde_json::to_string(&lab.submit(toml)).unwrap();
    let ask = async |key: &'static str, body: String| {
        let (status, _, body) = lab.ask("POST /api/v1/sweeps", &[("idempotency-key", key)], &body).await;
        (status, body)
    };
    let (status, first) = ask("one", submit(SYNTHETIC)).await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(ask("one", submit(SYNTHETIC)).await, (200, first.clone()), "the same answer, to the letter");
    let (status, other) = ask("one", submit(&SYNTHETIC.replace("20k", "40k"))).await;
    assert_eq!(status, 422, "{other}");
    // Without the key the sweep is still the same one: nothing is added.
    let (_, again) = ask("two", submit(SYNTHETIC)).await;
    let [first, again]: [Submitted; 2] = [&first, &again].map(|text| serde_json::from_str(text).unwrap());
    assert_eq!((first.sweep_id, first.added, again.added), (again.sweep_id, 1, 0));
    let long = "k".repeat(256);
    let answer = lab.ask("POST /api/v1/sweeps", &[("idempotency-key", &long)], &submit(SYNTHETIC)).await;
    assert_eq!(problem(&answer).code, Code::BadRequest);
    lab.stop().await;
}

/// Enough for both sides of a split.
fn text(word: &str) -> String {
    (0..40_000).map(|line| format!("line {line} of {word} text\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_on_this_machine_names_files_anywhere() {
    let texts = tempfile::tempdir().unwrap();
    let root = texts.path().canonicalize().unwrap();
    std::fs::write(root.join("a.txt"), text("a")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret.txt");
    std::fs::write(&secret, text("a secret")).unwrap();
    let roots = vec![root];
    let lab = Lab::start_with(|config| config.corpus_roots = roots).await;
    let of = |path: &str| {
        format!(
            "schema = 1\nname = \"files\"\n[corpus]\nsource = \"files\"\npaths = [{path:?}]\n[model]\ncontext = 64\n\
             [axes]\nparams = [\"10k\"]\ntokens = [\"20k\"]\n"
        )
    };
    let (_, guest) = tokens::create(lab.dir.path(), Role::Submitter, "guest").unwrap();
    let guest = Client::new(&format!("http://{}", lab.address), Some(guest)).unwrap().with_tries(1);
    guest.plan(&lab.submit(&of("a.txt"))).await.unwrap();
    for path in [secret.to_str().unwrap(), "../secret.txt", "/etc/passwd", "/etc/*"] {
        let refused = guest.plan(&lab.submit(&of(path))).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::InvalidSweep), "{refused}");
        let text = refused.to_string();
        assert!(text.contains("mine.toml:5") && text.contains("--corpus-root"), "{text}");
    }
    let missing = guest.plan(&lab.submit(&of("/etc/nofile"))).await.unwrap_err().to_string();
    let there = guest.plan(&lab.submit(&of("/etc/passwd"))).await.unwrap_err().to_string();
    assert_eq!(missing.replace("nofile", "passwd"), there, "no word on whether the file exists");
    lab.client().plan(&lab.submit(&of(secret.to_str().unwrap()))).await.unwrap();
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_where_certificate_and_key_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, cert.pem()).unwrap();
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();
    let data: PathBuf = dir.path().join("data");
    let secret = token(&data).unwrap();
    // Every address of this machine: with TLS that needs no further leave.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, shutdown) = watch::channel(false);
    let mut config = Config::new(data);
    config.tls = Some(Tls::load(&certificate, &key).unwrap());
    let task = tokio::spawn(serve(config, listener, shutdown));
    let server = format!("https://localhost:{port}");
    let client = Client::trusting(&server, Some(secret.clone()), Some(&certificate)).unwrap();
    client.ready().await.unwrap();
    assert!(client.sweeps().await.unwrap().sweeps.is_empty());
    let stranger = Client::trusting(&server, None, Some(&certificate)).unwrap().with_tries(1);
    assert_eq!(stranger.sweeps().await.unwrap_err().code(), Some(Code::Unauthorized));
    let other = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let wrong = dir.path().join("wrong.pem");
    std::fs::write(&wrong, other.cert.pem()).unwrap();
    let doubting = Client::trusting(&server, Some(secret.clone()), Some(&wrong)).unwrap().with_tries(1);
    let error = doubting.sweeps().await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    let plain = Client::new(&format!("http://localhost:{port}"), Some(secret)).unwrap().with_tries(1);
    assert!(plain.sweeps().await.is_err(), "no plain HTTP beside it");
    stop.send_replace(true);
    task.await.unwrap().unwrap();
}
