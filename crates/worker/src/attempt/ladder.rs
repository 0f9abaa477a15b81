//! How a child is stopped: asked first, forced at last, each rung with its patience.

use std::time::Duration;

use isoloss_wire::child::ToChild;
use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::child::Child;

/// What the next rung does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rung {
    /// SIGTERM means the same as the stop order: checkpoint, report, exit.
    Terminate,
    /// End of input means stop at once.
    Close,
    Kill,
    Top,
}

/// The state of stopping one child.
#[derive(Debug)]
pub(crate) struct Ladder {
    grace: Duration,
    /// Whether a child may not be ended without being asked first.
    gently: bool,
    next: Rung,
    at: Option<Instant>,
}

impl Ladder {
    /// `grace` is what the child gets to write its checkpoint. A process that ends with work under way may leave the server of
    /// MPS in an undefined state, and its neighbours with it (NVIDIA, "Multi-Process Service"): a client of it is to be ended
    /// `gently`.
    pub(crate) fn new(grace: Duration, gently: bool) -> Self {
        Self { grace, gently, next: Rung::Terminate, at: None }
    }

    /// Asks the child to checkpoint and go.
    pub(crate) fn stop(&mut self, child: &mut Child) {
        self.gently = false;
        child.order(&ToChild::Stop);
        self.next = Rung::Terminate;
        self.wait(self.grace);
    }

    /// The child has said all that it had to say. One that `waits` for more orders does so until its input ends; another
    /// may still tidy up.
    pub(crate) fn said_all(&mut self, child: &mut Child, waits: bool) {
        self.next = Rung::Close;
        if waits {
            self.climb(child);
        } else {
            self.wait(self.grace);
        }
    }

    /// Ends a child whose work nobody wants.
    pub(crate) fn end_now(&mut self, child: &mut Child) {
        if self.gently {
            return self.stop(child);
        }
        self.next = Rung::Close;
        self.climb(child);
    }

    /// Done when it is time for the next rung; never before [`Ladder::stop`].
    pub(crate) async fn patience_ends(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the next rung.
    pub(crate) fn climb(&mut self, child: &mut Child) {
        match self.next {
            Rung::Terminate => {
                child.signal(Signal::SIGTERM);
                self.next = Rung::Close;
                self.wait(Duration::from_secs(2));
            }
            Rung::Close => {
                child.close();
                self.next = Rung::Kill;
                self.wait(Duration::from_secs(1));
            }
            Rung::Kill => {
                child.signal(Signal::SIGKILL);
                self.next = Rung::Top;
                self.at = None;
            }
            Rung::Top => {}
        }
    }

    fn wait(&mut self, patience: Duration) {
        self.at = Some(Instant::now() + patience);
    }
}
