//! Malformed and hostile HTTP, byte by byte. Whatever comes in: the coordinator stays up, nothing is started, nothing
//! outside of its data directory is read, and what its own code refuses is a problem.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;

use crate::lab::{Lab, problem};

const CANARY: &str = "canary-that-nobody-may-read";

/// Sends bytes, ends the sending side, reads what comes. Nothing that is sent so needs an answer after that.
async fn throw(address: &str, bytes: Vec<u8>) -> String {
    exchange(address, bytes, true).await
}

/// Sends bytes, reads to the end of the answer; `hang_up` ends the sending side before that.
async fn exchange(address: &str, bytes: Vec<u8>, hang_up: bool) -> String {
    let address = address.to_owned();
    let exchange = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // The server may have seen enough before all is sent.
        let _ = stream.write_all(&bytes);
        if hang_up {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    exchange.await.unwrap()
}

fn statuses(answer: &str) -> Vec<u16> {
    let lines = answer.split("HTTP/1.1 ").skip(1);
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

async fn is_well(lab: &Lab) {
    assert_eq!(lab.ask("GET /livez", &[("authorization", "")], "").await.0, 200);
    assert!(lab.client().sweeps().await.unwrap().sweeps.is_empty(), "nothing was started");
}

/// A head with the right host and token, and what comes after the request line.
fn head(lab: &Lab, line: &str, rest: &str) -> Vec<u8> {
    format!("{line}\r\nhost: {}\r\nauthorization: Bearer {}\r\n{rest}", lab.address, lab.token).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http_are_refused_or_met_with_silence() {
    let lab = Lab::start().await;
    // A good deal above the bound, which hyper keeps to within one read.
    let long = "a".repeat(300_000);
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let folded = "x: a\r\n  b\r\n\r\n";
    let thrown: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\r\n\r\n\r\n\r\n".to_vec(),
        b"\0\0\0\0\0\0\0\0".to_vec(),
        (0..=255).collect(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nhost\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n: empty\r\n\r\n".to_vec(),
        b"GET /\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\nhost: a\0b\n\n".to_vec(),
        format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes(),
        format!("{long} / HTTP/1.1\r\n\r\n").into_bytes(),
        head(&lab, "GET /livez HTTP/1.1", &format!("x: {long}\r\n\r\n")),
        head(&lab, "GET /livez HTTP/1.1", &format!("{many}\r\n")),
        head(&lab, "GET /livez HTTP/1.1", folded),
        b"CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example\r\n\r\n".to_vec(),
        b"GET http://evil.example/api/v1/sweeps HTTP/1.1\r\nhost: evil.example\r\n\r\n".to_vec(),
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"TRACE / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
    ];
    for bytes in thrown {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let answer = throw(&lab.address, bytes).await;
        assert!(statuses(&answer).iter().all(|status| *status >= 400), "{shown:?} and so on: {answer}");
        assert!(!answer.contains(&lab.token));
    }
    is_well(&lab).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_does_not_hide_in_the_first() {
    let lab = Lab::start().await;
    let hidden = format!("POST /api/v1/sweeps/x/cancel HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", lab.address);
    let posts =
        |rest: &str| head(&lab, "POST /api/v1/sweeps HTTP/1.1", &format!("content-type: application/json\r\n{rest}"));
    let length = hidden.len();
    // Lengths that contradict each other: the connection ends with the first answer, whatever that is.
    let thrown = [
        posts(&format!("content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}")),
        posts(&format!("content-length: 2\r\ncontent-length: {length}\r\n\r\n{{}}{hidden}")),
        posts(&format!("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n{hidden}")),
        posts(&format!("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}")),
        posts(&format!("content-length: +2\r\n\r\n{{}}{hidden}")),
        posts(&format!("content-length: -1\r\n\r\n{hidden}")),
        posts(&format!("content-length: 99999999999999999999999\r\n\r\n{hidden}")),
        posts(&format!("content-length : 2\r\n\r\n{{}}{hidden}")),
    ];
    for bytes in thrown {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let answer = exchange(&lab.address, bytes, false).await;
        let statuses = statuses(&answer);
        assert!(statuses.iter().all(|status| *status >= 400), "{shown}\n{answer}");
        // The hidden one has no token: 401 would say that it was read as a request of its own.
        assert!(!statuses.contains(&401), "{shown}\n{answer}");
    }
    for chunks in
        ["zz\r\n{}\r\n0\r\n\r\n", "-1\r\n\r\n", "ffffffffffffffffff\r\n{}\r\n", "2\r\n{}", "2\r\n{}x\r\n0\r\n\r\n"]
    {
        let answer = throw(&lab.address, posts(&format!("transfer-encoding: chunked\r\n\r\n{chunks}"))).await;
        assert!(statuses(&answer).iter().all(|status| *status >= 400), "{chunks}: {answer}");
    }
    let twice = format!("GET /livez HTTP/1.1\r\nhost: {0}\r\nhost: {0}\r\nconnection: close\r\n\r\n", lab.address);
    assert_eq!(statuses(&exchange(&lab.address, twice.into_bytes(), false).await), [400], "more than one host");
    is_well(&lab).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_data_directory() {
    let lab = Lab::start().await;
    let outside = lab.dir.path().parent().unwrap().join(format!("outside-{}.json", std::process::id()));
    std::fs::write(&outside, CANARY).unwrap();
    std::fs::write(lab.dir.path().join("corpora/manifest.json"), CANARY).unwrap();
    let name = outside.file_name().unwrap().to_str().unwrap();
    let ups = [
        "..",
        "%2e%2e",
        "..%2f..",
        "%2e%2e%2f%2e%2e",
        "..%5c..",
        "....//",
        "%252e%252e",
        "..;",
        "%c0%ae%c0%ae",
        ".%00.",
    ];
    let mut paths = Vec::new();
    for up in ups {
        paths.extend([
            format!("/{up}/{name}"),
            format!("/{up}/token"),
            format!("/app.js/{up}/token"),
            format!("/api/v1/corpora/{up}/manifest"),
            format!("/api/v1/corpora/{up}%2f{name}/manifest"),
            format!("/api/v1/corpora/{}/artifacts/{up}%2ftoken", "0".repeat(64)),
            format!("/api/v1/runs/{up}%2ftoken/log"),
            format!("/api/v1/sweeps/{up}/runs"),
        ]);
    }
    paths.extend([
        format!("/{}", outside.display()),
        "//etc/passwd".to_owned(),
        "/api/v1/corpora/%2fetc/manifest".to_owned(),
    ]);
    for path in paths {
        let answer = lab.ask(&format!("GET {path}"), &[], "").await;
        assert!([400, 404].contains(&problem(&answer).status), "{path}: {answer:?}");
        assert!(!answer.2.contains(CANARY) && !answer.2.contains(&lab.token) && !answer.2.contains("root:"), "{path}");
    }
    std::fs::remove_file(outside).unwrap();
    is_well(&lab).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_any_depth_size_or_number_is_a_problem() {
    let lab = Lab::start().await;
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"toml\":{}", "{\"a\":".repeat(100_000));
    let acquire = |wait: &str| format!(r#"{{"worker":"w","slot":"s","wait_seconds":{wait}}}"#);
    let bodies = [
        deep.clone(),
        nested,
        "null".to_owned(),
        "[]".to_owned(),
        "\"\"".to_owned(),
        "\u{feff}{}".to_owned(),
        acquire("NaN"),
        acquire("-Infinity"),
        acquire("1e999"),
        acquire(&"9".repeat(400)),
        acquire("1,\"wait_seconds\":2"),
        format!(r#"{{"worker":"{}","slot":"\ud800","wait_seconds":0}}"#, "w".repeat(100_000)),
    ];
    for body in &bodies {
        for line in ["POST /api/v1/sweeps", "POST /api/v1/workers/acquire", "POST /api/v1/workers/settle"] {
            let answer = lab.ask(line, &[], body).await;
            assert!([400, 409].contains(&problem(&answer).status), "{line} {body:.60}: {answer:?}");
        }
    }
    // Numbers that are numbers, but not ones to wait for.
    for wait in ["-1.0", "1e300", "-0.0"] {
        let answer = lab.ask("POST /api/v1/workers/acquire", &[], &acquire(wait)).await;
        assert_eq!(problem(&answer).status, 409, "an unknown worker is told so at once");
    }
    let submit = |toml: &str| serde_json::to_string(&lab.submit(toml)).unwrap();
    let tomls = [
        "\0".to_owned(),
        "a = ".repeat(10_000),
        format!("a = {}", "[".repeat(50_000)),
        format!("{}=1", "a.".repeat(50_000)),
        "schema = 1\nname = \"../../x\"\n".to_owned(),
        "schema = 99999999999999999999\n".to_owned(),
        "schema = 1\nname = \"x\"\n[axes]\nparams = [nan]\ntokens = [inf]\n".to_owned(),
        format!("schema = 1\nname = \"x\"\n[derive]\ntokens = \"{}1{}\"\n", "(".repeat(20_000), ")".repeat(20_000)),
    ];
    for toml in tomls {
        let answer = lab.ask("POST /api/v1/plan", &[], &submit(&toml)).await;
        assert_eq!(problem(&answer).status, 422, "{toml:.60}: {answer:?}");
    }
    is_well(&lab).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_dawdle_hold_nobody_up() {
    let lab = Lab::start().await;
    let mut dawdlers = Vec::new();
    for beginning in ["", "GET", "GET / HTTP/1.1\r\nhost: localhost\r\nx:"] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(&lab.address).unwrap();
            stream.write_all(beginning.as_bytes()).unwrap();
            dawdlers.push(stream);
        }
    }
    for _ in 0..20 {
        let mut stream = TcpStream::connect(&lab.address).unwrap();
        let begun = "content-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
        stream.write_all(&head(&lab, "POST /api/v1/sweeps HTTP/1.1", begun)).unwrap();
        dawdlers.push(stream);
    }
    is_well(&lab).await;
    // They do not keep the coordinator from ending either.
    lab.stop().await;
    drop(dawdlers);
}

/// A connection that comes from another address of this machine; Linux has all of 127/8.
async fn connect_from(from: &str, to: &str) -> Option<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    if let Err(error) = socket.bind(format!("{from}:0").parse().unwrap()) {
        eprintln!("SKIPPED: this machine has no address {from}: {error}");
        return None;
    }
    Some(socket.connect(to.parse().unwrap()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_nothing_take_few_places_and_not_for_long() {
    let lab = Lab::start().await;
    let mut silent = Vec::new();
    for n in 0..400 {
        let Some(stream) = connect_from("127.0.0.2", &lab.address).await else { return };
        if n % 2 == 0 {
            // The one byte may meet a door that is shut already.
            let _ = stream.try_write(b"G");
        }
        silent.push(stream);
    }
    // Connections are taken in order: those before this one have a place by now, or none.
    is_well(&lab).await;
    let is_open = |stream: &tokio::net::TcpStream| matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    let open = silent.iter().filter(|stream| is_open(stream)).count();
    assert!(open <= 256, "{open} of one address");
    for stream in &mut silent {
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut [0])).await;
        assert!(!matches!(ended, Ok(Ok(1..))) && ended.is_ok(), "it stays open");
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_gets_through_a_flood_of_silent_connections_from_its_own_address() {
    let lab = Lab::start().await;
    let silent = async |many: usize| {
        let mut held = Vec::new();
        for _ in 0..many {
            held.push(tokio::net::TcpStream::connect(&lab.address).await.unwrap());
        }
        held
    };
    let mut held = silent(270).await;
    let server = format!("http://{}", lab.address);
    for _ in 0..8 {
        // A new client each time: none has a place from before.
        let client = isoloss_wire::Client::new(&server, Some(lab.token.clone())).unwrap().with_tries(1);
        client.sweeps().await.unwrap();
        held.drain(..30);
        held.extend(silent(30).await);
    }
    // Also without a token, as a browser on this machine.
    assert_eq!(lab.ask("GET /api/v1/sweeps", &[("authorization", "")], "").await.0, 200);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_with_tokens_comes_in_at_once_through_one_address() {
    let lab = Lab::start().await;
    let server = format!("http://{}", lab.address);
    let clients = (0..400).map(|_| isoloss_wire::Client::new(&server, Some(lab.token.clone())).unwrap());
    let clients: Vec<_> = clients.collect();
    let mut asking = tokio::task::JoinSet::new();
    for client in clients {
        // It keeps its connection while the others come.
        asking.spawn(async move { client.sweeps().await.map(|_| client) });
    }
    let inside: Vec<_> = asking.join_all().await.into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(inside.len(), 400);
    is_well(&lab).await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessers_are_slowed_and_hold_nobody_else_up() {
    let lab = Lab::start().await;
    let mut last = 0;
    for guess in 0..60 {
        let answer = lab.ask("GET /api/v1/sweeps", &[("authorization", &format!("Bearer {guess}"))], "").await;
        last = problem(&answer).status;
        if last == 429 {
            assert!(answer.1.contains("retry-after:"), "{}", answer.1);
            break;
        }
        assert!(answer.1.contains("www-authenticate: bearer"), "{}", answer.1);
    }
    assert_eq!(last, 429);
    is_well(&lab).await;
    lab.stop().await;
}
