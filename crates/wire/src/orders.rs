//! The child's side of its stdin: orders are read on a thread of their own, so that the end of input is seen while a
//! step is being computed. It does not end the process: what to do at the end of input is the caller's word.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use crate::child::{Assignment, FromChild, ToChild};

/// Reads orders until the end of input, then calls `at_end` on the reading thread (a child exits there: its worker is
/// gone, or wants it gone). A `stop` raises the flag, which the trainer looks at between steps. A line that is not an
/// order goes to `on_garbage`.
pub fn listen(
    input: impl BufRead + Send + 'static,
    stop: Arc<AtomicBool>,
    on_garbage: impl Fn(&str) + Send + 'static,
    at_end: impl FnOnce() + Send + 'static,
) -> Receiver<Box<Assignment>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in input.lines() {
            let Ok(line) = line else { break };
            match serde_json::from_str(&line) {
                // The receiver may be gone when the child is about to end: nothing is lost then.
                Ok(ToChild::Run(assignment)) => drop(sender.send(assignment)),
                Ok(ToChild::Stop) => stop.store(true, Ordering::SeqCst),
                Err(_) if line.trim().is_empty() => {}
                Err(error) => on_garbage(&error.to_string()),
            }
        }
        at_end();
    });
    receiver
}

/// Writes one line and flushes it, so that the worker sees it now.
pub fn say(output: &mut impl Write, line: &FromChild) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    output.write_all(&text)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_raises_the_flag_and_end_of_input_is_reported() {
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, end) = channel();
        let input = io::Cursor::new("rubbish\n\n{\"event\":\"stop\"}\n");
        let garbage = ended.clone();
        let orders =
            listen(input, stop.clone(), move |_| garbage.send("garbage").unwrap(), move || ended.send("end").unwrap());
        assert!(orders.recv().is_err(), "no run was ordered");
        assert_eq!(end.iter().collect::<Vec<_>>(), ["garbage", "end"]);
        assert!(stop.load(Ordering::SeqCst));
    }
}
