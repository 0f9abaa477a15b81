//! A coordinator to knock at.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use isoloss_coordinator::{Config, ServeError, serve, token};
use isoloss_wire::Client;
use isoloss_wire::api::{Problem, SCHEMA_VERSION, Submit};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running coordinator with its data directory.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    pub(crate) address: String,
    pub(crate) token: String,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<Result<(), ServeError>>,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A coordinator with another configuration, plain HTTP on loopback.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let token = token(dir.path()).unwrap();
        let (stop, shutdown) = watch::channel(false);
        let mut config = Config::new(dir.path().to_owned());
        change(&mut config);
        let task = tokio::spawn(serve(config, listener, shutdown));
        let lab = Self { dir, address, token, stop, task };
        lab.client().ready().await.unwrap();
        lab
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&format!("http://{}", self.address), Some(self.token.clone())).unwrap().with_tries(1)
    }

    pub(crate) fn submit(&self, toml: &str) -> Submit {
        Submit {
            schema_version: SCHEMA_VERSION,
            toml: toml.to_owned(),
            file: "mine.toml".to_owned(),
            set: Vec::new(),
            base: self.dir.path().to_owned(),
            hold: false,
        }
    }

    /// Sends bytes and reads the answer to its end: status, head, body.
    pub(crate) async fn raw(&self, request: String) -> (u16, String, String) {
        let address = self.address.clone();
        let exchange = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            // The server may answer and close before it has read a body that is too long.
            let _ = stream.write_all(request.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        });
        let answer = exchange.await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    /// A request with the right host and token, unless `headers` say otherwise.
    pub(crate) async fn ask(&self, line: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
        let mut all = vec![
            ("host".to_owned(), self.address.clone()),
            ("authorization".to_owned(), format!("Bearer {}", self.token)),
            ("connection".to_owned(), "close".to_owned()),
            ("content-length".to_owned(), body.len().to_string()),
            ("content-type".to_owned(), "application/json".to_owned()),
        ];
        for (name, value) in headers {
            all.retain(|(known, _)| known != name);
            if !value.is_empty() {
                all.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        let head: String = all.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.raw(format!("{line} HTTP/1.1\r\n{head}\r\n{body}")).await
    }

    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap();
    }
}

/// The problem that an answer is.
pub(crate) fn problem(answer: &(u16, String, String)) -> Problem {
    let (status, head, body) = answer;
    assert!(head.contains("content-type: application/problem+json"), "{head}\n{body}");
    let problem: Problem = serde_json::from_str(body).unwrap();
    assert_eq!(problem.status, *status);
    assert_eq!(problem.code.status(), *status);
    assert!(problem.instance.as_ref().is_some_and(|path| path.starts_with('/')), "{body}");
    assert!(
        problem.r#type.starts_with("urn:isoloss:problem:") && !problem.title.is_empty() && !problem.detail.is_empty()
    );
    problem
}
