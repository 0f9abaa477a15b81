//! `isoloss doctor`: what this machine offers, and each problem with its fix. It changes nothing.

use std::fs;
use std::net::TcpListener;

use serde::Serialize;

use crate::args::{Format, Place};
use crate::exit::{Done, Exit};
use crate::gpus;
use crate::mps;
use crate::place::DataDir;
use crate::print;

/// Below this a sweep's checkpoints and journal may not fit.
const DISK_BYTES_LOW: u64 = 2 << 30;

/// One thing looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    what: &'static str,
    pub(crate) found: String,
    /// What to do about it; empty when all is well.
    pub(crate) fix: String,
}

impl Finding {
    pub(crate) fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, found: found.into(), fix: String::new() }
    }

    pub(crate) fn bad(what: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, found: found.into(), fix: fix.into() }
    }
}

#[derive(Debug, Serialize)]
struct Examination {
    schema_version: u32,
    findings: Vec<Finding>,
}

pub(crate) fn run(place: &Place) -> Done {
    let mut findings = vec![processor(), vector_units(), memory()];
    findings.extend(gpus::findings());
    findings.extend([mps::finding()?, disk(place)?, port(place)]);
    match place.format() {
        Format::Json => print::json(&Examination { schema_version: 1, findings }),
        Format::Table | Format::Csv => {
            for finding in &findings {
                let mark = if finding.fix.is_empty() { "ok " } else { "fix" };
                print::line(&format!("{mark}  {:<10} {}", finding.what, finding.found));
                if !finding.fix.is_empty() {
                    print::line(&format!("                {}", finding.fix));
                }
            }
            Ok(())
        }
    }
}

fn processor() -> Finding {
    let cores = cores();
    let name = fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|l| Some(l.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()))
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    Finding::good("processor", format!("{name}, {cores} cores offered to this process"))
}

/// Cores that this process may run on.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn vector_units() -> Finding {
    let (chosen, all) = vector_names();
    if all.is_empty() {
        return Finding::good("vectors", format!("{chosen} (portable kernels)"));
    }
    Finding::good("vectors", format!("{}; the cpu engine uses {chosen}", all.join(", ")))
}

#[cfg(target_arch = "x86_64")]
fn vector_names() -> (&'static str, Vec<&'static str>) {
    let mut all = Vec::new();
    let mut chosen = "portable code";
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        all.push("avx2+fma");
        chosen = "avx2+fma";
    }
    if is_x86_feature_detected!("avx512f") {
        all.push("avx512f");
        chosen = "avx512f";
    }
    if is_x86_feature_detected!("avx512bf16") {
        all.push("avx512_bf16");
    }
    (chosen, all)
}

#[cfg(not(target_arch = "x86_64"))]
fn vector_names() -> (&'static str, Vec<&'static str>) {
    ("portable code", Vec::new())
}

fn memory() -> Finding {
    match memory_available_bytes() {
        Some(bytes) => Finding::good("memory", format!("{:.1} GiB available", bytes as f64 / (1u64 << 30) as f64)),
        None => Finding::good("memory", "unknown on this system"),
    }
}

/// Memory that could be used now; `None` where the system does not say.
pub(crate) fn memory_available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib << 10)
}

fn disk(place: &Place) -> Result<Finding, Exit> {
    let data = DataDir::of(place)?;
    let stat = nix::sys::statvfs::statvfs(data.root()).map_err(|e| Exit::failure(format!("statvfs: {e}")))?;
    let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
    let found = format!("{:.1} GiB free in {}", free as f64 / (1u64 << 30) as f64, data.root().display());
    Ok(if free < DISK_BYTES_LOW {
        Finding::bad("disk", found, "make room, or choose another place with --data-dir")
    } else {
        Finding::good("disk", found)
    })
}

fn port(place: &Place) -> Finding {
    let address = place.server().trim_start_matches("http://").trim_end_matches('/');
    match TcpListener::bind(address) {
        Ok(_) => Finding::good("port", format!("{address} is free")),
        Err(e) => Finding::bad(
            "port",
            format!("{address}: {e}"),
            "a coordinator may be running there already (isoloss status); else use `up --port 0` or `serve --listen`",
        ),
    }
}
