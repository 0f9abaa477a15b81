//! `survey`: one corpus in a process of its own, for a coordinator whose memory is not to hold it. The errand comes as a
//! line on stdin, what comes of it as JSON lines on stdout; the end of stdin ends it.

use std::io::{BufRead, Read};

use isoloss_coordinator::{Errand, Said};
use nix::sys::resource::{Resource, setrlimit};

use crate::exit::{Done, Exit};
use crate::{doctor, print};

/// What a survey may take at least, however little is free: the quickstart needs a tenth of it.
const MEMORY_BYTES_MIN: u64 = 1 << 30;

/// Memory that a survey may take where nobody said how much.
pub(crate) fn memory_bytes() -> u64 {
    (doctor::memory_available_bytes().unwrap_or(8 << 30) / 2).max(MEMORY_BYTES_MIN)
}

pub(crate) fn run() -> Done {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let errand: Errand = serde_json::from_str(&line).map_err(Exit::usage)?;
    // Its own and private memory; files that it maps do not count.
    let limit = errand.memory_bytes();
    setrlimit(Resource::RLIMIT_DATA, limit, limit).map_err(|e| Exit::failure(format!("cannot bound memory: {e}")))?;
    // When the machine runs out of memory the kernel is to take this process first (proc(5), oom_score_adj).
    let _refused = std::fs::write("/proc/self/oom_score_adj", "500");
    std::thread::spawn(|| {
        // Nobody waits for this any more: the coordinator was killed.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    let said = match errand.run(&mut |stage| drop(say(&Said::At(stage)))) {
        Ok(manifest) => Said::Made(Box::new(manifest)),
        Err(trouble) => Said::Failed(trouble),
    };
    say(&said)
}

fn say(said: &Said) -> Done {
    print::json_line(said)
}
