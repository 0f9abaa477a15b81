//! The process's heap: how much it took, and how glibc should give it out. Nothing else of the operating system.

/// Largest resident size of this process so far; 0 where the system does not say.
pub(crate) fn peak_bytes() -> u64 {
    status_bytes("VmHWM:").unwrap_or(0)
}

fn status_bytes(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Starts the peak anew, so that a smaller model is not charged with a larger one before it; whether the system let it.
/// Linux; elsewhere the peak stays.
pub(crate) fn forget_peak() -> bool {
    give_back();
    // 5 resets the high-water mark (proc(5), clear_refs); a system that refuses keeps the old one.
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Makes a process that ended a run as if it had had none: what is free goes back to the system, and the peak starts anew.
/// Gives the bytes still resident, or nothing where one of that cannot be done.
pub fn settle() -> Option<u64> {
    if forget_peak() { status_bytes("VmRSS:") } else { None }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "malloc_trim is a foreign function; it takes a plain integer")]
fn give_back() {
    // SAFETY: no pointers are passed; glibc takes its own lock and only returns pages that hold no block.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

/// Keeps large blocks in the heap instead of returning each to the system: candle allocates anew for every operation,
/// and without this 40 % of its time goes into page faults (measured: 1.7 times the tokens per second).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "mallopt is a foreign function; it takes plain integers and is safe to call at any time"
)]
pub(crate) fn keep_blocks() {
    const GIB: i32 = 1 << 30;
    // SAFETY: no pointers are passed; glibc takes its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIB);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// For a process that serves: every thread takes from one heap, and large blocks go back to the system as they are let
/// go. By itself glibc gives threads heaps of their own and keeps what each needed at its worst: a coordinator's
/// half. To be called before there are threads; with the few that it has they do not get into each other's way.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "mallopt is a foreign function; it takes plain integers and is safe to call at any time"
)]
pub fn share_one_heap() {
    const MIB: i32 = 1 << 20;
    // SAFETY: no pointers are passed; glibc takes its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // Both named, or glibc raises them to the size of what was let go.
        libc::mallopt(libc::M_MMAP_THRESHOLD, MIB);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 * MIB);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share_one_heap() {}

/// Other allocators need no such help, or have no such knob.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_blocks() {}
