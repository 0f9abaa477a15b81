//! What can break.

/// One disaster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL.
    KillCoordinator,
    KillWorker,
    KillChild,
    /// SIGSTOP for longer than a lease at times, then SIGCONT.
    StopCoordinator,
    StopWorker,
    /// SIGTERM and a new start.
    RestartCoordinator,
    RestartWorker,
    /// A worker's cable is pulled, at times for longer than a lease.
    Cut,
    FillCoordinator,
    FillWorker,
}

pub(crate) const FAULTS: [Fault; 10] = [
    Fault::KillCoordinator,
    Fault::KillWorker,
    Fault::KillChild,
    Fault::StopCoordinator,
    Fault::StopWorker,
    Fault::RestartCoordinator,
    Fault::RestartWorker,
    Fault::Cut,
    Fault::FillCoordinator,
    Fault::FillWorker,
];

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillCoordinator => "coordinator killed",
            Self::KillWorker => "worker killed",
            Self::KillChild => "training run killed",
            Self::StopCoordinator => "coordinator stopped",
            Self::StopWorker => "worker stopped",
            Self::RestartCoordinator => "coordinator restarted",
            Self::RestartWorker => "worker restarted",
            Self::Cut => "cable pulled",
            Self::FillCoordinator => "coordinator's disk full",
            Self::FillWorker => "worker's disk full",
        }
    }
}
