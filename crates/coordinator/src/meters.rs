//! Prometheus metrics, under the names that dashboards and alerts use. Labels are bounded: a run's id is never one. The
//! numbers that are states (runs, workers, progress) are read from the truth when somebody asks.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use isoloss_wire::api::{RunState, SweepRow};
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use serde_json::Value;

use crate::routing::Routed;

mod words;

/// Sweeps that get gauges of their own: the newest.
pub(crate) const SWEEPS_MAX: usize = 20;
/// Arms of a sweep that get gauges of their own.
const ARMS_MAX: usize = 20;
/// A gauge that no look sets any more is forgotten: sweeps beyond the newest, and labels that are no longer unique.
const FORGOTTEN: Duration = Duration::from_secs(60);
const SECONDS: [f64; 14] = [1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 300.0, 3600.0];

/// The recorder of this process; made at the first call, because a process can have only one.
pub(crate) fn recorder() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE.get_or_init(install).clone()
}

fn install() -> Option<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
    let recorder = builder.ok()?.idle_timeout(MetricKindMask::GAUGE, Some(FORGOTTEN)).build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("this process records its metrics elsewhere: /metrics stays empty");
        return None;
    }
    words::describe();
    register();
    Some(handle)
}

/// What is true of every look.
pub(crate) fn build() {
    gauge!("isoloss_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Counters stand at 0 from the start: a rate over one that appears with its first event misses that event.
fn register() {
    for name in [
        "isoloss_results_recorded_total",
        "isoloss_duplicate_results_total",
        "isoloss_fenced_results_total",
        "isoloss_lease_expirations_total",
        "isoloss_journal_records_total",
        "isoloss_store_fsync_errors_total",
        "isoloss_tokens_total",
        "isoloss_flops_total",
    ] {
        counter!(name).increment(0);
    }
    for (to, reason) in TRANSITIONS {
        counter!("isoloss_run_transitions_total", "to" => to, "reason" => reason).increment(0);
    }
    for kind in ["worker_held_back", "no_progress"] {
        counter!("isoloss_alarms_total", "kind" => kind).increment(0);
    }
    for spent in ["useful", "lost", "idle"] {
        counter!("isoloss_device_seconds_total", "use" => spent).increment(0);
    }
}

/// Every way of a run into another state.
const TRANSITIONS: [(&str, &str); 13] = [
    ("pending", "submitted"),
    ("pending", "failed"),
    ("pending", "expired"),
    ("pending", "yielded"),
    ("pending", "retried"),
    ("pending", "revived"),
    ("leased", "granted"),
    ("leased", "adopted"),
    ("finished", "outcome"),
    ("diverged", "outcome"),
    ("failed", "outcome"),
    ("cancelled", "order"),
    ("quarantined", "workers_lost"),
];

/// Workers that get no run because runs failed there, and runs that live and make no step.
pub(crate) fn alarmed(held_back: usize, stalled: usize) {
    gauge!("isoloss_workers_held_back").set(held_back as f64);
    gauge!("isoloss_runs_stalled").set(stalled as f64);
}

/// Room on the disk of the data directory, and whether there is too little for more runs.
pub(crate) fn disk(free_bytes: u64, low: bool) {
    gauge!("isoloss_disk_free_bytes").set(free_bytes as f64);
    gauge!("isoloss_disk_low").set(if low { 1.0 } else { 0.0 });
}

/// Workers that an order keeps runs from.
pub(crate) fn draining(workers: usize) {
    gauge!("isoloss_workers_draining").set(workers as f64);
}

/// GPUs that were not to be had for a run and have trained none since.
pub(crate) fn gpus_resting(gpus: usize) {
    gauge!("isoloss_gpus_resting").set(gpus as f64);
}

/// Runs that came into a state.
pub(crate) fn transitions(to: &'static str, reason: &'static str, runs: u64) {
    counter!("isoloss_run_transitions_total", "to" => to, "reason" => reason).increment(runs);
}

/// One answered request. `route` is the pattern, not the path.
pub(crate) fn request(route: &str, method: &str, code: u16, seconds: f64) {
    let (route, method) = (route.to_owned(), method.to_owned());
    counter!("isoloss_http_requests_total", "route" => route.clone(), "method" => method.clone(), "code" => code.to_string())
        .increment(1);
    histogram!("isoloss_http_request_duration_seconds", "route" => route, "method" => method).record(seconds);
}

/// Runs of all sweeps by state; every state is there, so that a sum over them makes sense.
pub(crate) fn runs(counts: &BTreeMap<RunState, usize>) {
    for state in RunState::ALL {
        gauge!("isoloss_runs", "state" => state.name()).set(counts.get(&state).copied().unwrap_or(0) as f64);
    }
}

/// How long devices were `useful`, `lost` or `idle`, all of them together.
pub(crate) fn device_seconds(spent: &'static str, ms: u64) {
    counter!("isoloss_device_seconds_total", "use" => spent).absolute(ms / 1000);
}

/// Exponents and hold-out error of the law that was last chosen for a sweep. Numbers that the runs do not pin down are
/// left out: they would be read all the same.
pub(crate) fn law(name: &str, fit: &Value) {
    let laws = fit["laws"].as_array().into_iter().flatten();
    for law in laws.filter(|law| law["name"] == fit["chosen"] && law["identified"] == true) {
        let label = law["name"].as_str().unwrap_or_default().to_owned();
        for exponent in ["alpha", "beta"] {
            if let Some(value) = law["parameters"][exponent].as_f64() {
                gauge!("isoloss_law_exponent", "sweep" => name.to_owned(), "law" => label.clone(), "name" => exponent)
                    .set(value);
            }
        }
        if let Some(error) = law["holdout"]["mean_relative_error"].as_f64() {
            gauge!("isoloss_law_holdout_error_ratio", "sweep" => name.to_owned(), "law" => label).set(error);
        }
    }
}

/// The worst routing among a sweep's finished mixtures of experts.
pub(crate) fn routing(name: &str, worst: Routed) {
    gauge!("isoloss_moe_load_max_ratio", "sweep" => name.to_owned()).set(worst.load_max_ratio);
    gauge!("isoloss_moe_dropped_tokens_ratio", "sweep" => name.to_owned()).set(worst.dropped_fraction);
}

/// One sweep's gauges, under a name that is its alone.
pub(crate) fn sweep(name: &str, row: &SweepRow, best_by_arm: &BTreeMap<String, f64>, now_seconds: f64) {
    let name = name.to_owned();
    gauge!("isoloss_sweep_progress_ratio", "sweep" => name.clone()).set(row.progress_ratio);
    let eta = row.eta_seconds.map_or(f64::NAN, |seconds| now_seconds + seconds);
    gauge!("isoloss_sweep_eta_timestamp_seconds", "sweep" => name.clone()).set(eta);
    for (arm, bits) in best_by_arm.iter().take(ARMS_MAX) {
        gauge!("isoloss_sweep_best_bits_per_byte", "sweep" => name.clone(), "arm" => arm.clone()).set(*bits);
    }
}

/// Workers and their slots.
pub(crate) fn fleet(
    alive: usize,
    silent: usize,
    busy: usize,
    idle: usize,
    reserved_bytes: u64,
    tokens_per_second: f64,
) {
    gauge!("isoloss_device_memory_reserved_bytes").set(reserved_bytes as f64);
    gauge!("isoloss_workers", "state" => "alive").set(alive as f64);
    gauge!("isoloss_workers", "state" => "silent").set(silent as f64);
    gauge!("isoloss_devices", "state" => "busy").set(busy as f64);
    gauge!("isoloss_devices", "state" => "idle").set(idle as f64);
    gauge!("isoloss_training_tokens_per_second").set(tokens_per_second);
}

/// Bytes of the journal in `dir`; the index beside it can be rebuilt and is not counted.
pub(crate) fn store(dir: &std::path::Path) {
    if let Ok(journal) = std::fs::metadata(dir.join("journal")) {
        gauge!("isoloss_store_size_bytes").set(journal.len() as f64);
    }
}

/// What the kernel says of this process; nothing where there is no `/proc`.
pub(crate) fn process() {
    // Fixed by the kernel's interface to programs on every 64-bit Linux: sysconf(_SC_CLK_TCK) and the page size of x86-64.
    const TICKS_PER_SECOND: f64 = 100.0;
    const PAGE_BYTES: f64 = 4096.0;
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return;
    };
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return;
    };
    // The first field here is the third of proc(5): state.
    let field = |number: usize| -> f64 {
        fields.split_whitespace().nth(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0.0)
    };
    counter!("process_cpu_seconds_total").absolute(((field(14) + field(15)) / TICKS_PER_SECOND) as u64);
    gauge!("process_resident_memory_bytes").set(field(24) * PAGE_BYTES);
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    if let Some(boot) = boot {
        gauge!("process_start_time_seconds").set(boot + field(22) / TICKS_PER_SECOND);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(entries.count() as f64);
    }
}
