//! People and dashboards that look while the sweep runs: one call after the other at a fixed rate, each timed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Reader {
    http: reqwest::Client,
    server: String,
    token: String,
}

impl Reader {
    pub(crate) fn new(server: &str, token: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { http, server: server.to_owned(), token: token.to_owned() }
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        let answer = self.http.get(format!("{}{path}", self.server)).bearer_auth(&self.token).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status).unwrap_or_else(|e| panic!("{path}: {e}"));
        answer.text().await.unwrap_or_else(|e| panic!("{path}: {e}"))
    }
}

/// Milliseconds by route.
pub(crate) struct Latencies(BTreeMap<&'static str, Vec<f64>>);

/// Reads every route in turn until it is stopped.
pub(crate) async fn read(
    reader: Reader,
    sweeps: Vec<String>,
    per_second: f64,
    mut stopped: watch::Receiver<bool>,
) -> Latencies {
    let first: serde_json::Value =
        serde_json::from_str(&reader.text(&format!("/api/v1/sweeps/{}/runs", sweeps[0])).await).unwrap();
    let runs: Vec<String> =
        first["runs"].as_array().unwrap().iter().map(|row| row["run_id"].as_str().unwrap().to_owned()).collect();
    let mut latencies = Latencies(BTreeMap::new());
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
    for number in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        let sweep = &sweeps[number % sweeps.len()];
        let run = &runs[(number * 7) % runs.len()];
        let (route, path) = match number % 8 {
            0 => ("/sweeps", "/api/v1/sweeps".to_owned()),
            1 => ("/sweeps/{sweep}", format!("/api/v1/sweeps/{sweep}")),
            2 => ("/sweeps/{sweep}/runs", format!("/api/v1/sweeps/{sweep}/runs")),
            3 => ("/sweeps/{sweep}/results", format!("/api/v1/sweeps/{sweep}/results")),
            4 => ("/runs/{run}", format!("/api/v1/runs/{run}")),
            5 => ("/runs/{run}/explain", format!("/api/v1/runs/{run}/explain")),
            6 => ("/workers", "/api/v1/workers".to_owned()),
            _ => ("/metrics", "/metrics".to_owned()),
        };
        let begun = Instant::now();
        reader.text(&path).await;
        latencies.0.entry(route).or_default().push(1e3 * begun.elapsed().as_secs_f64());
    }
    latencies
}

impl Latencies {
    pub(crate) fn print(mut self) {
        let api = self.0.iter().filter(|(route, _)| **route != "/metrics");
        let api = api.flat_map(|(_, times)| times).copied().collect();
        self.0.insert("the API together", api);
        println!("{:<26}{:>8}{:>10}{:>10}{:>10}", "read API, ms", "calls", "median", "p99", "worst");
        for (route, mut times) in self.0 {
            times.sort_by(f64::total_cmp);
            let at = |share: f64| times[((times.len() - 1) as f64 * share).ceil() as usize];
            println!("{route:<26}{:>8}{:>10.1}{:>10.1}{:>10.1}", times.len(), at(0.5), at(0.99), at(1.0));
        }
    }
}
