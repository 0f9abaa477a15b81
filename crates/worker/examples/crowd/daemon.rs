//! The daemon under test: a process of its own.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use isoloss_wire::Client;

use crate::readers::Reader;

pub(crate) struct Daemon {
    child: Child,
    server: String,
    folder: PathBuf,
}

impl Daemon {
    pub(crate) fn start(isoloss: &Path, folder: &Path) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let child = Command::new(isoloss)
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; build it first: cargo build --release", isoloss.display()));
        Self { child, server: format!("http://127.0.0.1:{port}"), folder: folder.to_owned() }
    }

    fn token(&self) -> String {
        fs::read_to_string(self.folder.join("token"))
            .expect("a daemon that serves has made its token")
            .trim()
            .to_owned()
    }

    /// A client, once the daemon serves.
    pub(crate) async fn client(&self) -> Client {
        let open = Client::new(&self.server, None).unwrap().with_tries(1);
        while open.ready().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Client::new(&self.server, Some(self.token())).unwrap()
    }

    pub(crate) fn reader(&self) -> Reader {
        Reader::new(&self.server, &self.token())
    }

    fn status(&self, key: &str) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = text.lines().find(|line| line.starts_with(key)).expect("a key of the kernel's");
        line.split_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok()).expect("kilobytes") / 1024.0
    }

    pub(crate) fn memory(&self) -> String {
        format!("{:.0} MiB now, {:.0} MiB at most", self.status("VmRSS"), self.status("VmHWM"))
    }

    /// User and system time.
    pub(crate) fn processor_seconds(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // Fields 14 and 15 of proc(5), counted from behind the name; a hundred ticks a second.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// The tick as the daemon's own metrics have it.
    pub(crate) async fn ticks(&self) -> String {
        let text = self.reader().text("/metrics").await;
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        let name = "isoloss_scheduler_tick_seconds";
        let (sum, count) = (value(&format!("{name}_sum")), value(&format!("{name}_count")));
        let mean = sum.zip(count).map_or(f64::NAN, |(sum, count)| sum / count);
        let within = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(&format!("{name}_bucket{{le=\""))?;
            let (bound, number) = rest.split_once("\"} ")?;
            (number.parse::<f64>().ok() == count).then(|| bound.to_owned())
        });
        let worst = within.into_iter().next().unwrap_or_else(|| "?".to_owned());
        format!("{:.2} ms in the mean, all within {worst} s", 1e3 * mean)
    }

    pub(crate) fn megabytes(&self, name: &str) -> f64 {
        fn bytes(path: &Path) -> u64 {
            let Ok(entries) = fs::read_dir(path) else {
                return fs::metadata(path).map_or(0, |data| data.len());
            };
            entries.filter_map(Result::ok).map(|entry| bytes(&entry.path())).sum()
        }
        bytes(&self.folder.join("store").join(name)) as f64 / 1e6
    }

    pub(crate) fn remove_index(&self) {
        fs::remove_dir_all(self.folder.join("store").join("index")).expect("an index");
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was ours");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
