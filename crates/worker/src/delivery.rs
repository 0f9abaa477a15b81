//! Sending endings until they are answered. It does not decide what happened: the outbox holds that.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use isoloss_wire::api::{Code, Lease, Settle};
use isoloss_wire::{Client, ClientError};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::outbox::Outbox;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// An attempt shorter than this is `brief`: a worker that dies in the moment before its ending is on the disk loses less
/// work than that.
pub(crate) const BRIEF_ATTEMPT: Duration = Duration::from_secs(1);
/// The moment: an answer takes a round trip and an fsync of the coordinator.
const BRIEF: Duration = Duration::from_millis(100);
/// When the worker ends, an answer is waited for this long; the next life of the worker sends again.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What became of an ending.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// The coordinator has it.
    pub(crate) recorded: bool,
    /// The slot's next work, and when it was asked for.
    pub(crate) next: Option<(Box<Lease>, Instant)>,
}

/// Sends `settle` until the coordinator has answered or the worker has ended. It goes to the disk in the meantime; that of
/// an attempt which is `brief` only when there is no answer for a moment.
pub(crate) async fn deliver(
    client: &Client,
    outbox: &Outbox,
    settle: Settle,
    brief: bool,
    mut shutdown: watch::Receiver<bool>,
) -> Delivered {
    let settle = Arc::new(settle);
    let store = || {
        let (outbox, settle) = (outbox.clone(), settle.clone());
        tokio::task::spawn_blocking(move || outbox.put(&settle))
    };
    let mut storing = (!brief).then(store);
    let no_answer = Instant::now() + BRIEF;
    let ended = async {
        // A closed channel means the same: nobody is left to say when.
        let _ = shutdown.wait_for(|ended| *ended).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    let mut ended = pin!(ended);
    let mut sending = pin!(send(client, &settle));
    let answer = loop {
        tokio::select! {
            answer = &mut sending => break Some(answer),
            () = tokio::time::sleep_until(no_answer), if storing.is_none() => storing = Some(store()),
            () = &mut ended => break None,
        }
    };
    let (file, delivered) = match answer {
        Some((file, delivered)) => (file, delivered),
        None => (File::Keep, Delivered::default()),
    };
    if file != File::Remove && storing.is_none() {
        storing = Some(store());
    }
    if let Some(storing) = storing {
        let stored = storing.await.unwrap_or_else(|broke| Err(std::io::Error::other(broke)));
        settled(outbox, &settle, file, stored);
    }
    delivered
}

/// What is to become of the file of an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    Remove,
    SetAside,
    Keep,
}

fn settled(outbox: &Outbox, settle: &Settle, file: File, stored: std::io::Result<()>) {
    let run = settle.run_id.short();
    if let Err(error) = stored {
        // A full disk: the ending was sent all the same, it only would not have survived this worker.
        tracing::error!(run, %error, "cannot write the ending to disk");
    }
    let filed = match file {
        File::Remove => outbox.remove(settle),
        File::SetAside => outbox.set_aside(settle),
        File::Keep => {
            tracing::warn!(
                run,
                "the ending of an attempt is unsent; the next life of this worker sends what its outbox holds"
            );
            Ok(())
        }
    };
    if let Err(error) = filed {
        // The file is sent again by the next life of the worker, which changes nothing.
        tracing::error!(run, %error, "cannot clear the outbox");
    }
}

async fn send(client: &Client, settle: &Settle) -> (File, Delivered) {
    let mut pause = FIRST_PAUSE;
    loop {
        let asked = Instant::now();
        let refused = Delivered::default();
        return match client.settle(settle).await {
            Ok(settled) => {
                let next = settled.lease.map(|lease| (lease, asked));
                (File::Remove, Delivered { recorded: true, next })
            }
            Err(error) if again(&error) => {
                tracing::debug!(run = %settle.run_id.short(), %error, "will send the ending again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            Err(error) if matches!(error.code(), Some(Code::StaleToken | Code::NotFound)) => {
                tracing::info!(run = %settle.run_id.short(), attempt = settle.attempt, %error, "result not wanted");
                (File::Remove, refused)
            }
            Err(error) => {
                tracing::error!(run = %settle.run_id.short(), %error, "result refused, kept in refused/");
                (File::SetAside, refused)
            }
        };
    }
}

/// Whether the same words may be taken later.
fn again(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Unready { .. }
        | ClientError::Address { .. }
        | ClientError::Certificates { .. }
        | ClientError::Garbled { .. } => true,
        ClientError::NotFound(_) => false,
        ClientError::Refused(problem) => {
            matches!(
                problem.code,
                Code::Busy
                    | Code::TooMany
                    | Code::Internal
                    | Code::Timeout
                    | Code::UnknownWorker
                    | Code::Unauthorized
                    | Code::Forbidden
            )
        }
    }
}
