//! A coordinator and two workers, each in a host with a disk of its own where that can be had.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::disk::Disk;
use super::fault::Fault;
use super::net::Net;
use super::{Dice, text};
use crate::binary::{children_of, expect, free_port, isoloss, until};

const LEASE_SECONDS: f64 = 4.0;
const WORKERS: usize = 2;
const PORT: u16 = 8470;
/// The coordinator's host; worker n lives in host n + 1.
const HEAD: usize = 0;

pub(crate) struct House {
    folder: PathBuf,
    port: u16,
    coordinator: Child,
    workers: Vec<Child>,
    net: Option<Net>,
    /// The coordinator's, then the workers'.
    disks: Vec<Option<Disk>>,
    /// How often the coordinator ended by itself because it could not write.
    pub(crate) given_up: usize,
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
    kill(pid, signal).expect("it is our child and was not waited for");
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl House {
    pub(crate) fn build(folder: &Path) -> Self {
        let folder = folder.to_owned();
        let disk = |name: &str, megabytes| Disk::mount(&folder.join(name), megabytes);
        let disks = vec![disk("coordinator", 96), disk("worker-0", 1200), disk("worker-1", 1200)];
        let net = Net::build(WORKERS + 1);
        let port = if net.is_some() { PORT } else { free_port() };
        fs::create_dir_all(folder.join("coordinator")).unwrap();
        fs::write(folder.join("coordinator.toml"), format!("lease_seconds = {LEASE_SECONDS:.1}\n")).unwrap();
        let coordinator = serve(&folder, net.as_ref(), port);
        until("the token", || folder.join("coordinator/token").exists().then_some(()));
        let workers = (0..WORKERS).map(|number| work(&folder, net.as_ref(), port, number)).collect();
        Self { folder, port, coordinator, workers, net, disks, given_up: 0 }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("coordinator")
    }

    pub(crate) fn allows(&self, fault: Fault) -> bool {
        match fault {
            Fault::Cut => self.net.is_some(),
            Fault::FillCoordinator | Fault::FillWorker => self.disks.iter().all(Option::is_some),
            _ => true,
        }
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = isoloss(&self.data());
        command.arg("--server").arg(server(self.net.as_ref(), self.port)).args(arguments);
        inside(self.net.as_ref(), HEAD, command)
    }

    pub(crate) fn submit(&self, round: usize, toml: &str) {
        let file = self.folder.join(format!("soak-{round}.toml"));
        fs::write(&file, toml).unwrap();
        until("the coordinator", || self.client(&["status"]).output().unwrap().status.success().then_some(()));
        expect(0, self.client(&["submit"]).arg(&file));
    }

    /// Runs with a result, over all sweeps, as soon as the coordinator says so.
    pub(crate) fn finished(&self) -> usize {
        until("an answer", || {
            let output = self.client(&["status", "--json"]).output().unwrap();
            let said: Value = serde_json::from_slice(&output.stdout).ok()?;
            let finished = |sweep: &Value| sweep["counts"]["finished"].as_u64();
            said["sweeps"].as_array()?.iter().map(finished).sum::<Option<u64>>()?.try_into().ok()
        })
    }

    /// Lets it happen, and mends it.
    pub(crate) fn suffer(&mut self, fault: Fault, dice: &mut Dice) {
        std::thread::sleep(Duration::from_millis(dice.below(400)));
        let who = usize::try_from(dice.below(WORKERS as u64)).expect("a small number");
        // Half of them are over before a lease is, half not.
        let pause = Duration::from_millis(500 + dice.below(2 * (1000.0 * LEASE_SECONDS) as u64));
        match fault {
            Fault::KillCoordinator => end(&mut self.coordinator),
            Fault::KillWorker => end(&mut self.workers[who]),
            Fault::KillChild => {
                if let Some(pid) = children_of(self.workers[who].id()).first() {
                    // It may have ended by itself by now.
                    let _ = kill(Pid::from_raw(i32::try_from(*pid).expect("a pid fits")), Signal::SIGKILL);
                }
            }
            Fault::StopCoordinator => hold(&self.coordinator, pause),
            Fault::StopWorker => hold(&self.workers[who], pause),
            Fault::RestartCoordinator => {
                signal(&self.coordinator, Signal::SIGTERM);
                assert!(self.coordinator.wait().unwrap().success(), "an orderly end");
            }
            Fault::RestartWorker => {
                signal(&self.workers[who], Signal::SIGTERM);
                assert!(self.workers[who].wait().unwrap().success(), "an orderly end");
            }
            Fault::Cut => {
                let net = self.net.as_ref().expect("asked only where there is one");
                net.cut(who + 1);
                std::thread::sleep(pause);
                net.heal(who + 1);
            }
            Fault::FillCoordinator => {
                self.fill(HEAD, pause);
                self.given_up += usize::from(self.coordinator.try_wait().unwrap().is_some());
            }
            Fault::FillWorker => self.fill(who + 1, pause),
        }
        self.mend();
    }

    fn fill(&self, host: usize, pause: Duration) {
        let disk = self.disks[host].as_ref().expect("asked only where there is one");
        disk.fill();
        std::thread::sleep(pause);
        disk.empty();
    }

    /// Starts again whoever has ended, as a service manager does.
    fn mend(&mut self) {
        let ended = |child: &mut Child| child.try_wait().expect("a child can be waited for").is_some();
        if ended(&mut self.coordinator) {
            self.coordinator = serve(&self.folder, self.net.as_ref(), self.port);
        }
        for number in 0..WORKERS {
            if ended(&mut self.workers[number]) {
                self.workers[number] = work(&self.folder, self.net.as_ref(), self.port, number);
            }
        }
    }

    /// Ends everybody in order; what they said.
    pub(crate) fn end(&mut self) -> String {
        for child in self.workers.iter_mut().chain([&mut self.coordinator]) {
            signal(child, Signal::SIGTERM);
            let _ = child.wait();
        }
        ["coordinator.log", "worker-0.log", "worker-1.log"].map(|name| text(&self.folder.join(name))).concat()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(end);
        end(&mut self.coordinator);
    }
}

fn hold(child: &Child, pause: Duration) {
    signal(child, Signal::SIGSTOP);
    std::thread::sleep(pause);
    signal(child, Signal::SIGCONT);
}

fn server(net: Option<&Net>, port: u16) -> String {
    let host = if net.is_some() { Net::address(HEAD) } else { "127.0.0.1".to_owned() };
    format!("http://{host}:{port}")
}

fn inside(net: Option<&Net>, host: usize, command: Command) -> Command {
    match net {
        Some(net) => net.enter(host, &command),
        None => command,
    }
}

fn spawn(mut command: Command, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("the binary starts")
}

fn serve(folder: &Path, net: Option<&Net>, port: u16) -> Child {
    let host = if net.is_some() { Net::address(HEAD) } else { "127.0.0.1".to_owned() };
    let mut command = isoloss(&folder.join("coordinator"));
    command.args(["serve", "--listen", &format!("{host}:{port}"), "--config"]).arg(folder.join("coordinator.toml"));
    if net.is_some() {
        command.arg("--insecure-listen");
    }
    spawn(inside(net, HEAD, command), &folder.join("coordinator.log"))
}

fn work(folder: &Path, net: Option<&Net>, port: u16, number: usize) -> Child {
    let name = format!("worker-{number}");
    let mut command = isoloss(&folder.join(&name));
    command.args(["worker", "--name", &name, "--cores", "1", "--server", &server(net, port)]);
    command.arg("--token-file").arg(folder.join("coordinator/token"));
    spawn(inside(net, number + 1, command), &folder.join(format!("{name}.log")))
}
