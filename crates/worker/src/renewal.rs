//! Signs of life, on the worker's own clock. A coordinator that cannot be reached is not a reason to stop anything.

use std::sync::Arc;
use std::time::Duration;

use isoloss_wire::api::{Renew, Verdict};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::daemon::{Context, is_forgotten};

/// Renews all attempts until the worker has ended.
pub(crate) async fn renew_all(context: Arc<Context>, mut ended: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(context.renew_every()) => {}
            _ = ended.wait_for(|ended| *ended) => return,
        }
        renew_once(&context).await;
    }
}

async fn renew_once(context: &Context) {
    let sent = Instant::now();
    let (worker, instance) = (context.config.name.clone(), Some(context.instance.id.clone()));
    let (leases, resting) = (context.held.renewals(), context.room.shortage());
    let renew = Renew { worker, instance, leases, resting, gpus_resting: context.gpus.resting() };
    match context.client.renew(&renew).await {
        Ok(renewed) => {
            for row in renewed.leases {
                let key = (row.run_id, row.attempt);
                match row.verdict {
                    Verdict::Keep { seconds } => context.held.keep(key, sent, seconds),
                    Verdict::Stop { reason } => context.held.revoke(key, &reason),
                }
            }
        }
        Err(error) => {
            context.held.put_back(renew.leases);
            context.held.revoke_orphaned();
            tracing::debug!(%error, "not renewed");
            if is_forgotten(&error) {
                context.register_again().await;
            }
        }
    }
}

/// Bounds what the coordinator may ask for.
pub(crate) fn sane_interval(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds)
        .unwrap_or(Duration::from_secs(1))
        .clamp(Duration::from_millis(20), Duration::from_secs(60))
}
