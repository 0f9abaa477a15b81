//! One child process in a process group of its own, with its pipes read on a thread. Blocking threads, because a child
//! may ask the kernel to die with the *thread* that started it: that thread lives exactly as long as the child. It does
//! not know why a child is stopped or what its lines mean.

use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use isoloss_wire::child::{FromChild, ToChild};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use crate::lines::Line;
use crate::pipes::{self, Written};
use crate::strays;

/// Lines not yet looked at; a child that writes faster waits in its pipe.
const PENDING_LINES_MAX: usize = 256;
/// After a child's end its pipes close, unless something left its process group with them; then nobody waits longer.
const PIPES_CLOSE: Duration = Duration::from_secs(5);
/// A child without a run that does not end with its input is killed after this long.
const LEAVES: Duration = Duration::from_secs(1);

/// What a child did.
#[derive(Debug)]
pub(crate) enum Said {
    Line(Box<FromChild>),
    /// A line of stderr.
    Log(String),
    /// A line of stdout that is not of the protocol.
    Garbage(String),
    /// The last event: the child and its process group are gone.
    Exited(Exit),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

/// A running child.
#[derive(Debug)]
pub(crate) struct Child {
    said: mpsc::Receiver<Said>,
    stdin: Option<ChildStdin>,
    group: Group,
}

/// A process group that may be signalled as long as its leader is not reaped: later its number may be another's.
#[derive(Debug, Clone)]
struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    fn signal(&self, signal: Signal) {
        let leader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = *leader {
            // The group may be empty already, which is what was wanted.
            let _ = killpg(leader, signal);
        }
    }

    /// Kills what is left of the group, then lets the leader be reaped by `reap`.
    fn end<T>(&self, reap: impl FnOnce() -> T) -> T {
        self.signal(Signal::SIGKILL);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        reap()
    }
}

/// Starts `command` on a thread of its own and gives it `order`. At its end everything that carries `mark` ends too.
pub(crate) async fn start(mut command: Command, order: &ToChild, mark: Option<String>) -> io::Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let (started, start) = tokio::sync::oneshot::channel();
    let (sender, said) = mpsc::channel(PENDING_LINES_MAX);
    std::thread::Builder::new()
        .name("child".to_owned())
        .spawn(move || keep(command, started, &sender, mark.as_deref()))?;
    let (stdin, group) = start.await.map_err(|_| io::Error::other("the child's thread ended early"))??;
    let mut child = Child { said, stdin: Some(stdin), group };
    child.order(order);
    Ok(child)
}

type Started = io::Result<(ChildStdin, Group)>;

fn keep(
    mut command: Command,
    started: tokio::sync::oneshot::Sender<Started>,
    said: &mpsc::Sender<Said>,
    mark: Option<&str>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process numbers are positive 32-bit integers"));
    let group = Group(Arc::new(Mutex::new(Some(pid))));
    let stdin = child.stdin.take().expect("stdin was asked for as a pipe");
    let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
    let stderr = child.stderr.take().expect("stderr was asked for as a pipe");
    let (closed, close) = std::sync::mpsc::channel::<()>();
    let heard = said.clone();
    std::thread::spawn(move || {
        // Without a listener the pipes are still drained: the child must not block on a full one.
        pipes::read(stdout, stderr, |written| drop(heard.blocking_send(understood(written))));
        drop(closed);
    });
    if started.send(Ok((stdin, group.clone()))).is_err() {
        group.signal(Signal::SIGKILL);
    }
    // Without reaping, so that the group's number stays its own until the group was killed.
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::Error::EINTR) {}
    let status = group.end(|| child.wait());
    mark.into_iter().for_each(strays::end);
    // The reader drops its end when done; nothing is ever sent.
    while close.recv_timeout(PIPES_CLOSE) == Ok(()) {}
    drop(said.blocking_send(Said::Exited(status.map_or(Exit::Code(-1), exit))));
}

fn exit(status: ExitStatus) -> Exit {
    status.code().map_or_else(|| Exit::Signal(status.signal().unwrap_or(0)), Exit::Code)
}

fn understood(written: Written) -> Said {
    match written {
        Written::Err(Line::Text(text)) => Said::Log(text),
        Written::Out(Line::Text(text)) => match serde_json::from_str(&text) {
            Ok(line) => Said::Line(Box::new(line)),
            Err(_) => Said::Garbage(text),
        },
        Written::Out(Line::TooLong(bytes)) | Written::Err(Line::TooLong(bytes)) => {
            Said::Log(format!("(a line of {bytes} bytes was left out)"))
        }
    }
}

impl Child {
    /// What the child did next; `None` after [`Said::Exited`].
    pub(crate) async fn next(&mut self) -> Option<Said> {
        self.said.recv().await
    }

    /// Whether it lives and has said nothing that was not heard.
    pub(crate) fn is_silent(&mut self) -> bool {
        matches!(self.said.try_recv(), Err(TryRecvError::Empty))
    }

    /// The process that was started, as long as it lives.
    pub(crate) fn leader(&self) -> Option<Pid> {
        *self.group.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an order. A child that does not read any more is on its way out, which its exit will tell. Orders are
    /// far smaller than a pipe, so this does not block.
    pub(crate) fn order(&mut self, order: &ToChild) {
        let Some(stdin) = &mut self.stdin else { return };
        let mut line = serde_json::to_vec(order).expect("orders are plain data");
        line.push(b'\n');
        if let Err(error) = stdin.write_all(&line).and_then(|()| stdin.flush()) {
            tracing::debug!(%error, "the child does not read its orders");
        }
    }

    /// Ends a child that has no run; returns when it is gone.
    pub(crate) async fn end(mut self) {
        self.close();
        if tokio::time::timeout(LEAVES, self.gone()).await.is_err() {
            self.signal(Signal::SIGKILL);
            self.gone().await;
        }
    }

    async fn gone(&mut self) {
        while !matches!(self.next().await, None | Some(Said::Exited(_))) {}
    }

    /// End of input: stop at once.
    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }
}

impl Drop for Child {
    /// A child that nobody listens to must not live on.
    fn drop(&mut self) {
        self.close();
        self.signal(Signal::SIGKILL);
    }
}
