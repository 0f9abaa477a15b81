//! Sending endings until they are answered. It does not decide what happened: the outbox holds that.

use std::time::Duration;

use isoloss_wire::api::{Code, Settle};
use isoloss_wire::{Client, ClientError};
use tokio::sync::watch;

use crate::outbox::Outbox;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// When the worker ends, an answer is waited for this long; the next life of the worker sends again.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Sends `settle` until the coordinator has answered or the worker has ended.
pub(crate) async fn deliver(client: &Client, outbox: &Outbox, settle: &Settle, mut shutdown: watch::Receiver<bool>) {
    let ended = async {
        // A closed channel means the same: nobody is left to say when.
        let _ = shutdown.wait_for(|ended| *ended).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        () = send(client, outbox, settle) => {}
        () = ended => tracing::warn!(
            run = %settle.run_id.short(),
            "the ending of an attempt is unsent; the next life of this worker sends what its outbox holds"
        ),
    }
}

async fn send(client: &Client, outbox: &Outbox, settle: &Settle) {
    let mut pause = FIRST_PAUSE;
    loop {
        let filed = match client.settle(settle).await {
            Ok(_) => outbox.remove(settle),
            Err(error) if again(&error) => {
                tracing::debug!(run = %settle.run_id.short(), %error, "will send the ending again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            Err(error) if matches!(error.code(), Some(Code::StaleToken | Code::NotFound)) => {
                tracing::info!(run = %settle.run_id.short(), attempt = settle.attempt, %error, "result not wanted");
                outbox.remove(settle)
            }
            Err(error) => {
                tracing::error!(run = %settle.run_id.short(), %error, "result refused, kept in refused/");
                outbox.set_aside(settle)
            }
        };
        if let Err(error) = filed {
            // The file is sent again by the next life of the worker, which changes nothing.
            tracing::error!(run = %settle.run_id.short(), %error, "cannot clear the outbox");
        }
        return;
    }
}

/// Whether the same words may be taken later.
fn again(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Certificates { .. } | ClientError::Garbled { .. } => true,
        ClientError::NotFound(_) => false,
        ClientError::Refused(problem) => {
            matches!(
                problem.code,
                Code::Busy
                    | Code::Internal
                    | Code::Timeout
                    | Code::UnknownWorker
                    | Code::Unauthorized
                    | Code::Forbidden
            )
        }
    }
}
