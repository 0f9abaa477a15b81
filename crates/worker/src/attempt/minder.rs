//! Minding a child until it is gone or waits for another run: it is stopped when it must be. What its lines mean is
//! `listen`'s.

use isoloss_wire::api::CheckpointRef;
use isoloss_wire::child::EXIT_DONE;
use tokio::sync::watch;

use super::ending::End;
use super::ladder::Ladder;
use super::listen::Heard;
use super::start::Started;
use super::upload::Uploads;
use crate::artifacts::TransferError;
use crate::child::{Child, Exit, Said};
use crate::spare::{Past, Spare};

/// How an attempt, or one try at it, ended.
pub(super) enum Over {
    /// The child is gone.
    End(End),
    /// The run ended well, and its child waits for another.
    Kept(End, Spare),
    /// The child had other runs before and broke. That is not held against this one, which begins again in a child of its
    /// own.
    Afresh,
}

/// What happens while a child runs.
enum Event {
    Said(Option<Said>),
    Revoked(String),
    Shutdown,
    /// It does not take the run.
    Deaf,
    Silent,
    /// A checkpoint is among the artifacts, or is not.
    Stored(Result<CheckpointRef, TransferError>),
    /// The next rung of the ladder is due.
    Impatient,
}

/// A child with its run.
pub(super) struct Minder<'a> {
    heard: Heard<'a>,
    child: Child,
    past: Past,
    uploads: Uploads<'a>,
    ladder: Ladder,
    revoked: watch::Receiver<Option<String>>,
    shutdown: watch::Receiver<bool>,
    is_revoked: bool,
    is_yielding: bool,
    is_over: bool,
}

impl<'a> Minder<'a> {
    pub(super) fn new(
        heard: Heard<'a>,
        started: Started,
        revoked: watch::Receiver<Option<String>>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let (uploads, ladder) =
            (Uploads::new(heard.context, heard.lease), Ladder::new(heard.context.config.grace, heard.seat.is_client()));
        let Started { child, past, .. } = started;
        let [is_revoked, is_yielding, is_over] = [false; 3];
        Self { heard, child, past, uploads, ladder, revoked, shutdown, is_revoked, is_yielding, is_over }
    }

    pub(super) async fn supervise(mut self) -> Over {
        loop {
            match self.next().await {
                Event::Said(Some(Said::Exited(exit))) => return self.gone(exit).await,
                Event::Said(Some(said)) => {
                    self.hear(said).await;
                    if self.heard.outcome.is_some() && !self.is_over {
                        self.is_over = true;
                        self.heard.meter.outcome();
                        if self.may_go_on() {
                            return self.keep().await;
                        }
                        if self.heard.is_judged {
                            self.ladder.end_now(&mut self.child);
                            continue;
                        }
                        let waits = self.heard.again || !self.heard.is_foreign();
                        self.ladder.said_all(&mut self.child, waits);
                    }
                }
                Event::Said(None) => {
                    return Over::End(End::broke("the child's thread ended without a word".to_owned()));
                }
                Event::Revoked(reason) => {
                    self.is_revoked = true;
                    let lease = self.heard.lease;
                    tracing::info!(run = lease.run_id.short(), attempt = lease.attempt, reason, "attempt revoked");
                    self.ladder.end_now(&mut self.child);
                }
                Event::Shutdown => self.stop(),
                Event::Deaf => {
                    self.is_over = true;
                    self.heard.note("the child does not take the run".to_owned());
                    self.ladder.end_now(&mut self.child);
                }
                Event::Silent => {
                    self.is_over = true;
                    self.heard.outcome = Some(self.heard.silent());
                    self.ladder.end_now(&mut self.child);
                }
                Event::Stored(stored) => {
                    let failed = self.heard.take_stored(stored);
                    if failed && !self.is_yielding && !self.is_revoked && !self.is_over {
                        self.stop();
                    }
                }
                Event::Impatient => self.ladder.climb(&mut self.child),
            }
        }
    }

    /// What guards a channel must not be held while a file is read, so this gives plain data.
    async fn next(&mut self) -> Event {
        let (is_revoked, is_over) = (self.is_revoked, self.is_over);
        tokio::select! {
            said = self.child.next() => Event::Said(said),
            reason = self.revoked.wait_for(Option::is_some), if !is_revoked => {
                Event::Revoked(reason.ok().and_then(|reason| reason.clone()).unwrap_or_default())
            }
            _ = self.shutdown.wait_for(|ended| *ended), if !self.is_yielding && !is_revoked && !is_over => {
                Event::Shutdown
            }
            () = self.heard.is_deaf(), if !is_revoked && !is_over => Event::Deaf,
            () = self.heard.silence_ends(), if !is_revoked && !is_over => Event::Silent,
            stored = self.uploads.next() => Event::Stored(stored),
            () = self.ladder.patience_ends() => Event::Impatient,
        }
    }

    async fn hear(&mut self, said: Said) {
        self.heard.hear(said).await;
        for one in std::mem::take(&mut self.heard.recorded) {
            if let Some(known) = self.uploads.add(one) {
                self.heard.make_known(known);
            }
        }
    }

    fn stop(&mut self) {
        self.is_yielding = true;
        self.ladder.stop(&mut self.child);
    }

    fn may_go_on(&self) -> bool {
        let wanted = !self.is_yielding && !self.is_revoked && !*self.shutdown.borrow();
        wanted && self.heard.is_clean() && self.past.runs() < self.heard.context.config.runs_per_child.get()
    }

    async fn keep(self) -> Over {
        match self.heard.end(self.uploads, Exit::Code(EXIT_DONE), false, self.revoked, self.shutdown).await {
            End::Revoked => Over::End(End::Revoked),
            end @ End::Settle { .. } => Over::Kept(end, Spare::new(self.child, self.past)),
        }
    }

    async fn gone(mut self, exit: Exit) -> Over {
        if self.is_revoked {
            tracing::debug!(?exit, "a revoked child is gone");
            return Over::End(End::Revoked);
        }
        if !self.is_yielding
            && !self.past.is_fresh()
            && let Some(why) = self.heard.broke(exit)
        {
            self.heard.note(format!("{why}; the child had other runs before: this one begins again in a new child"));
            return Over::Afresh;
        }
        let Self { heard, uploads, is_yielding, revoked, shutdown, .. } = self;
        Over::End(heard.end(uploads, exit, is_yielding, revoked, shutdown).await)
    }
}
