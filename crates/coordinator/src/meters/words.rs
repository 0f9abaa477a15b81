//! What each metric means, in words that `/metrics` shows.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(super) fn describe() {
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
    describe_counter!("isoloss_run_transitions_total", "Runs that came into a state, by reason");
    describe_histogram!(
        "isoloss_run_queue_wait_seconds",
        Unit::Seconds,
        "From ready, in this life of the coordinator, to granted"
    );
    describe_histogram!(
        "isoloss_dispatch_seconds",
        Unit::Seconds,
        "From a slot's question to its durable grant, waits for work left out"
    );
    describe_counter!(
        "isoloss_device_seconds_total",
        Unit::Seconds,
        "Slot time: attempts that gave a result, attempts that gave none (checkpoints or not), idle"
    );
    describe_gauge!(
        "isoloss_device_memory_reserved_bytes",
        Unit::Bytes,
        "Memory that leases have reserved on all devices"
    );
    describe_counter!("isoloss_alarms_total", "Things a person should hear of, by kind");
    describe_gauge!("isoloss_workers_held_back", "Workers without grants because one run after the other failed there");
    describe_gauge!("isoloss_disk_free_bytes", Unit::Bytes, "Room on the disk of the data directory");
    describe_gauge!("isoloss_disk_low", "1 while no run is granted because that disk has too little room");
    describe_gauge!("isoloss_workers_draining", "Workers that an order keeps further runs from");
    describe_gauge!("isoloss_gpus_resting", "GPUs that were not to be had for a run and have trained none since");
    describe_gauge!("isoloss_runs_stalled", "Runs whose worker breathes while their step does not rise");
    describe_gauge!("isoloss_law_exponent", "Exponent of the identified law that a sweep's last fit chose");
    describe_gauge!("isoloss_law_holdout_error_ratio", "Mean relative error of that law on runs kept from the fit");
    describe_gauge!(
        "isoloss_moe_load_max_ratio",
        "Largest expert load over the even one, worst finished run of a sweep"
    );
    describe_gauge!("isoloss_moe_dropped_tokens_ratio", "Dropped over routed tokens, worst finished run of a sweep");
}
