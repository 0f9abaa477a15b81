//! The built binary in a data directory of its own, and daemons that end with the test.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything in these tests may take before it counts as stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// A command of the binary, with its data in `data` and nothing from the environment of the person who tests.
pub(crate) fn isoloss(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isoloss"));
    command.env("ISOLOSS_DATA_DIR", data).env("NO_COLOR", "1");
    for name in ["ISOLOSS_SERVER", "ISOLOSS_TOKEN_FILE", "ISOLOSS_CA_FILE", "ISOLOSS_LOG"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs to the end; panics with what it said when the exit code is another.
pub(crate) fn expect(code: i32, command: &mut Command) -> Output {
    let output = command.output().expect("the binary starts");
    assert_eq!(
        output.status.code(),
        Some(code),
        "{command:?}\nstdout: {}\nstderr: {}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A daemon that is killed when the test lets go of it.
#[derive(Debug)]
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("a child can be waited for").is_some()
    }

    /// SIGKILL, as the kernel does it when memory runs out.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits for it to end by itself: its exit code and what it said on stderr.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        until("the end of a daemon", || self.has_ended().then_some(()));
        let code = self.0.wait().expect("a child can be waited for").code();
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        (code, said)
    }

    /// SIGTERM, then what it said on stderr.
    pub(crate) fn stop(mut self) -> String {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a pid fits"));
        let _ = kill(pid, Signal::SIGTERM);
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        let _ = self.0.wait();
        said
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of loopback that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Processes whose parent is `pid`.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    ids.filter(|id| parent_of(*id) == Some(pid)).collect()
}

/// The fourth field of `/proc/<pid>/stat`, after the name in parentheses; `None` for one that is gone or a zombie.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (state != "Z").then_some(parent)
}

/// Polls until `ready` gives a value; panics with `what` when patience ends.
pub(crate) fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The folder of real text and tables beside the repository; tests that need it skip aloud without it.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if !found.exists() {
        eprintln!("SKIPPED: {} is not there", found.display());
        return None;
    }
    Some(found)
}
