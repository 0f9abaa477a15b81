//! Processes that time runs side by side, as runs will be made. A process that breaks or hangs costs one measurement.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::trial::{Answer, Order};

/// The first run of a shape compiles its kernels; nothing that is asked takes longer.
const ANSWER_MOST: Duration = Duration::from_secs(300);

/// Some processes that obey the same orders. They end when it is dropped.
pub(super) struct Crew {
    members: Vec<Member>,
}

struct Member {
    child: Child,
    orders: ChildStdin,
    answers: Receiver<Answer>,
    /// The last that it said on stderr.
    words: Arc<Mutex<String>>,
}

impl Crew {
    /// Starts `count` processes; also says how many seconds the quickest took to be ready.
    pub(super) fn start(command: &dyn Fn() -> Command, count: usize) -> Result<(Self, f64), String> {
        let started = Instant::now();
        let members = (0..count).map(|_| Member::start(command())).collect::<Result<Vec<_>, String>>()?;
        let mut crew = Self { members };
        let mut quickest = f64::INFINITY;
        for member in &mut crew.members {
            match member.answer()? {
                Answer::Ready => quickest = quickest.min(started.elapsed().as_secs_f64()),
                other => return Err(unexpected(&other)),
            }
        }
        Ok((crew, quickest))
    }

    /// Gives an order to some of them at once; their answers in the same order.
    pub(super) fn order(&mut self, which: Range<usize>, order: &Order) -> Result<Vec<Answer>, String> {
        let members = &mut self.members[which];
        for member in members.iter_mut() {
            member.order(order)?;
        }
        members.iter_mut().map(Member::answer).collect()
    }
}

impl Member {
    fn start(mut command: Command) -> Result<Self, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
        let orders = child.stdin.take().expect("stdin was asked for as a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("stdout was asked for as a pipe"));
        let stderr = BufReader::new(child.stderr.take().expect("stderr was asked for as a pipe"));
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let reason = || format!("no answer: {line}");
                let answer = serde_json::from_str(&line).unwrap_or_else(|_| Answer::Failed { reason: reason() });
                if sender.send(answer).is_err() {
                    return;
                }
            }
        });
        let words = Arc::new(Mutex::new(String::new()));
        let last = Arc::clone(&words);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok).filter(|line| !line.trim().is_empty()) {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
            }
        });
        Ok(Self { child, orders, answers, words })
    }

    /// One that does not read any more is on its way out, which the wait for its answer will tell.
    fn order(&mut self, order: &Order) -> Result<(), String> {
        let mut line = serde_json::to_vec(order).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let _ = self.orders.write_all(&line).and_then(|()| self.orders.flush());
        Ok(())
    }

    fn answer(&mut self) -> Result<Answer, String> {
        match self.answers.recv_timeout(ANSWER_MOST) {
            Ok(Answer::Failed { reason }) => Err(reason),
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => Err(format!("no answer within {} s", ANSWER_MOST.as_secs())),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                let words = self.words.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Err(if words.is_empty() { status } else { format!("{status}: {words}") })
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn unexpected(answer: &Answer) -> String {
    format!("an answer to another question: {answer:?}")
}
