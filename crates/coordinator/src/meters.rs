//! Prometheus metrics, under the names that dashboards and alerts use. Labels are bounded: a run's id is never one. The
//! numbers that are states (runs, workers, progress) are read from the truth when somebody asks.

use std::sync::OnceLock;

use isoloss_wire::api::{Kind, RunRow, RunState, SweepRow};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Sweeps that get gauges of their own: the newest.
pub(crate) const SWEEPS_MAX: usize = 20;
/// Arms of a sweep that get gauges of their own.
const ARMS_MAX: usize = 20;
const SECONDS: [f64; 14] = [1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 300.0, 3600.0];

/// The recorder of this process; made at the first call, because a process can have only one.
pub(crate) fn recorder() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE.get_or_init(install).clone()
}

fn install() -> Option<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
    let recorder = builder.ok()?.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("this process records its metrics elsewhere: /metrics stays empty");
        return None;
    }
    describe();
    gauge!("isoloss_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Some(handle)
}

fn describe() {
    describe_gauge!("isoloss_build_info", "Version of the coordinator");
    describe_gauge!("isoloss_runs", "Runs by state, trunks included");
    describe_gauge!("isoloss_workers", "Workers by state");
    describe_gauge!("isoloss_devices", "Slots by state");
    describe_gauge!("isoloss_training_tokens_per_second", "Training speed of all live runs together");
    describe_gauge!("isoloss_sweep_progress_ratio", "Share of a sweep's training FLOPs that is done");
    describe_gauge!("isoloss_sweep_eta_timestamp_seconds", "When a sweep will end at the present speed");
    describe_gauge!("isoloss_sweep_best_bits_per_byte", "Lowest final loss of an arm");
    describe_gauge!("isoloss_store_size_bytes", Unit::Bytes, "Bytes of the journal");
    describe_counter!("isoloss_http_requests_total", "HTTP requests by route, method and status");
    describe_histogram!("isoloss_http_request_duration_seconds", Unit::Seconds, "Time to answer HTTP requests");
    describe_counter!("isoloss_results_recorded_total", "Outcomes made durable");
    describe_counter!("isoloss_lease_expirations_total", "Leases that ran out");
    describe_counter!("isoloss_journal_records_total", "Records written to the journal by this process");
    describe_counter!("isoloss_store_fsync_errors_total", "Failures of the disk, after which the process ends");
    describe_histogram!("isoloss_store_commit_seconds", Unit::Seconds, "Time to make a group of records durable");
    describe_histogram!("isoloss_scheduler_tick_seconds", Unit::Seconds, "Time of the scheduler's periodic look");
    describe_counter!("isoloss_duplicate_results_total", "Endings that were recorded before");
    describe_counter!("isoloss_fenced_results_total", "Endings refused because a newer attempt holds the run");
    describe_counter!("isoloss_tokens_total", "Training tokens of finished runs");
    describe_counter!("isoloss_flops_total", "Training FLOPs computed for finished runs");
    describe_histogram!("isoloss_run_duration_seconds", Unit::Seconds, "Wall time of finished runs");
    describe_gauge!("process_resident_memory_bytes", Unit::Bytes, "Resident memory");
    describe_gauge!("process_open_fds", "Open file descriptors");
    describe_gauge!("process_start_time_seconds", Unit::Seconds, "Start of the process since 1970");
    describe_counter!("process_cpu_seconds_total", Unit::Seconds, "User and system time");
}

/// One answered request. `route` is the pattern, not the path.
pub(crate) fn request(route: &str, method: &str, code: u16, seconds: f64) {
    let (route, method) = (route.to_owned(), method.to_owned());
    counter!("isoloss_http_requests_total", "route" => route.clone(), "method" => method.clone(), "code" => code.to_string())
        .increment(1);
    histogram!("isoloss_http_request_duration_seconds", "route" => route, "method" => method).record(seconds);
}

/// Runs of all sweeps by state; every state is there, so that a sum over them makes sense.
pub(crate) fn runs(states: impl Iterator<Item = RunState>) {
    let mut counts = [0_u32; RunState::ALL.len()];
    for state in states {
        let index = RunState::ALL.iter().position(|known| *known == state);
        counts[index.expect("ALL lists every state")] += 1;
    }
    for (state, count) in RunState::ALL.into_iter().zip(counts) {
        gauge!("isoloss_runs", "state" => state.name()).set(count);
    }
}

/// One sweep's gauges.
pub(crate) fn sweep(row: &SweepRow, runs: &[RunRow], now_seconds: f64) {
    let name = row.name.clone();
    gauge!("isoloss_sweep_progress_ratio", "sweep" => name.clone()).set(row.progress_ratio);
    let eta = row.eta_seconds.map_or(f64::NAN, |seconds| now_seconds + seconds);
    gauge!("isoloss_sweep_eta_timestamp_seconds", "sweep" => name.clone()).set(eta);
    let mut best: std::collections::BTreeMap<&str, f64> = std::collections::BTreeMap::new();
    for run in runs.iter().filter(|run| run.kind == Kind::Run) {
        if let Some(bits) = run.bits_per_byte {
            best.entry(&run.arm).and_modify(|best| *best = best.min(bits)).or_insert(bits);
        }
    }
    for (arm, bits) in best.into_iter().take(ARMS_MAX) {
        gauge!("isoloss_sweep_best_bits_per_byte", "sweep" => name.clone(), "arm" => arm.to_owned()).set(bits);
    }
}

/// Workers and their slots.
pub(crate) fn fleet(alive: usize, silent: usize, busy: usize, idle: usize, tokens_per_second: f64) {
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
