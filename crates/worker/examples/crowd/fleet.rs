//! Workers that make the real worker's calls and train nothing: register, acquire, settle, and renew all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use isoloss_sweep::outcome::{Cost, CurvePoint, Finished, Provenance, Score};
use isoloss_sweep::{Outcome, Run};
use isoloss_wire::Client;
use isoloss_wire::api::{Acquire, Code, Ending, Lease, Register, Renew, Renewal, Settle, Slot, WORKER_VERSION};
use isoloss_wire::child::CHILD_PROTOCOL;
use tokio::sync::{Mutex, Notify, watch};

const SLOT: &str = "cpu:0";

pub(crate) struct Fleet {
    settled: Arc<Count>,
}

struct Count {
    done: AtomicUsize,
    goal: usize,
    all: Notify,
}

impl Fleet {
    pub(crate) fn start(
        client: &Client,
        workers: usize,
        runs: usize,
        rate: Option<f64>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let settled = Arc::new(Count { done: AtomicUsize::new(0), goal: runs, all: Notify::new() });
        for number in 0..workers {
            let worker = Arc::new(Worker {
                client: client.clone(),
                name: format!("w{number:04}"),
                held: Mutex::new(None),
                settled: settled.clone(),
                length: rate.map(|rate| Duration::from_secs_f64(workers as f64 / rate)),
            });
            let mut stopped = stopped.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = worker.live() => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        }
        Self { settled }
    }

    /// Until the last outcome is durable.
    pub(crate) async fn done(&self) {
        while self.settled.done.load(Ordering::SeqCst) < self.settled.goal {
            // A notice between the look and the wait is caught by the next look.
            let _ = tokio::time::timeout(Duration::from_millis(20), self.settled.all.notified()).await;
        }
    }
}

struct Worker {
    client: Client,
    name: String,
    held: Mutex<Option<Renewal>>,
    settled: Arc<Count>,
    /// Of every run, so that the fleet as a whole keeps to a rate.
    length: Option<Duration>,
}

impl Worker {
    async fn live(self: Arc<Self>) {
        let mut renew_every = self.register().await;
        let renewing = self.clone();
        let renew = async move {
            loop {
                tokio::time::sleep(renew_every).await;
                let leases = renewing.held.lock().await.clone().into_iter().collect();
                let renew = Renew {
                    worker: renewing.name.clone(),
                    instance: None,
                    leases,
                    resting: None,
                    gpus_resting: Vec::new(),
                };
                if renewing.client.renew(&renew).await.is_err_and(|e| e.code() == Some(Code::UnknownWorker)) {
                    renew_every = renewing.register().await;
                }
            }
        };
        tokio::join!(self.work(), renew);
    }

    async fn register(&self) -> Duration {
        let slot = Slot { name: SLOT.to_owned(), gpu: None, threads: 1, memory_bytes: 8 << 30 };
        let register = Register {
            schema_version: WORKER_VERSION,
            protocol: CHILD_PROTOCOL,
            code_version: "scale".to_owned(),
            worker: self.name.clone(),
            instance: None,
            slots: vec![slot],
            gpu_names: std::collections::BTreeMap::new(),
            storage: self.name.clone(),
            allow_commands: false,
            holding: self.held.lock().await.clone().into_iter().collect(),
        };
        loop {
            match self.client.register(&register).await {
                Ok(registered) => return Duration::from_secs_f64(registered.renew_seconds),
                // A coordinator of another version: nothing would ever be measured.
                Err(error) if error.code() == Some(Code::Version) => {
                    eprintln!("{error}; build `isoloss` and this example together");
                    std::process::exit(1);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn work(&self) {
        let acquire = Acquire { worker: self.name.clone(), instance: None, slot: SLOT.to_owned(), wait_seconds: 20.0 };
        loop {
            let lease = match self.client.acquire(&acquire).await {
                Ok(acquired) => acquired.lease,
                Err(_) => {
                    self.register().await;
                    continue;
                }
            };
            let mut next = lease;
            while let Some(lease) = next {
                next = self.finish(&lease).await;
            }
        }
    }

    /// The answer to an ending brings the slot's next work.
    async fn finish(&self, lease: &Lease) -> Option<Box<Lease>> {
        let (run_id, attempt) = (lease.run_id, lease.attempt);
        let renewal = Renewal {
            run_id,
            attempt,
            key: lease.key.clone(),
            slot: SLOT.to_owned(),
            live: None,
            points: Vec::new(),
            checkpoints: Vec::new(),
            log: Vec::new(),
        };
        *self.held.lock().await = Some(renewal);
        if let Some(length) = self.length {
            // Not all at once, or they would stay in step for ever.
            let share = f64::from(run_id.0.as_bytes()[0]) / 128.0;
            tokio::time::sleep(length.mul_f64(share)).await;
        }
        let settle = Settle {
            worker: self.name.clone(),
            instance: None,
            run_id,
            attempt,
            key: lease.key.clone(),
            device: SLOT.to_owned(),
            ending: Ending::Outcome(Box::new(outcome(&lease.run))),
            checkpoints: Vec::new(),
            log: Vec::new(),
            next: true,
        };
        let next = loop {
            match self.client.settle(&settle).await {
                Ok(settled) => break settled.lease,
                Err(error) if error.problem().is_none() => {}
                Err(error) => panic!("an ending was refused: {error}"),
            }
        };
        *self.held.lock().await = None;
        if self.settled.done.fetch_add(1, Ordering::SeqCst) + 1 == self.settled.goal {
            self.settled.all.notify_waiters();
        }
        next
    }
}

/// An outcome of the size of a real one: a curve of eight points.
fn outcome(run: &Run) -> Outcome {
    let loss = 1.0 + 1.0 / (run.train.seed as f64 + 1.0);
    let score =
        Score { loss_nats: loss, bits_per_byte: loss / 0.7, tokens: 65_536, bytes: 65_536, true_bits_per_byte: None };
    let point = |at: u64| CurvePoint {
        step: at * run.train.steps / 8,
        tokens: run.tokens(),
        loss_nats: loss + 1.0 / at as f64,
        bits_per_byte: loss / 0.7 + 1.0 / at as f64,
        train_loss_nats: loss + 0.9 / at as f64,
    };
    Outcome::Finished(Box::new(Finished {
        params: run.model.param_counts(),
        steps: run.train.steps,
        tokens: run.tokens(),
        tokens_unique: run.tokens(),
        bytes: run.tokens().get(),
        flops: run.flops(),
        flops_6nd: run.flops(),
        flops_spent: run.flops(),
        flops_evaluation: run.flops(),
        score,
        train_loss_nats: loss,
        curve: (1..=8).map(point).collect(),
        routing: None,
        cost: Cost { seconds: 0.001, tokens_per_second: 1e6, peak_memory_bytes: 1 << 20, gpu_memory_bytes: None },
        provenance: Provenance {
            device: "none".to_owned(),
            instruction_set: "none".to_owned(),
            threads: 1,
            code_version: "scale".to_owned(),
        },
        gpu: None,
    }))
}
