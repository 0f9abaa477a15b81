//! What the two daemons are told, and who looks after their store and tokens.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it: it cannot be seen again. A running coordinator takes it at once
    Create {
        /// viewer reads; submitter also plans, submits and orders; worker only takes and reports runs; admin does all
        #[arg(long, value_enum)]
        role: RoleName,
        /// Who or what it is for
        #[arg(long, default_value = isoloss_coordinator::tokens::UNNAMED)]
        name: String,
    },
    /// Show all tokens but the owner's, without their secrets
    List,
    /// End a token; a running coordinator refuses it from then on
    Revoke {
        /// Its id or its name
        token: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    Viewer,
    Submitter,
    Worker,
    Admin,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Read every record and check digests and order, while no coordinator runs; with a file, those of a backup
    Verify {
        /// A backup instead of the data directory's store
        #[arg(value_name = "BACKUP")]
        backup: Option<PathBuf>,
    },
    /// Copy the store to a new file, checked as it is read and as it lies there; the coordinator may go on meanwhile. All that
    /// was acknowledged before is in it: sweeps, runs, attempts, outcomes. Corpora, checkpoints, logs and the token are not
    Backup {
        /// The file to make; never overwritten
        file: PathBuf,
    },
    /// Make the store of a data directory that has none from a backup. Workers that went on after the backup was made must be
    /// stopped before the coordinator is started: attempts that they were given since are unknown to it
    Restore {
        /// A file that `store backup` made
        file: PathBuf,
    },
    /// Write the journal anew without records that have no say any more (old grants and lapses, orders taken back), while no
    /// coordinator runs. Every outcome stays; the new journal must give the same state before it takes the old one's place
    Compact {
        /// Do not keep the journal from before as journal.old
        #[arg(long)]
        discard_old: bool,
    },
    /// Write what is sound of a damaged store, which no coordinator starts on, as a store of another data directory, and say
    /// what is lost. Nothing is changed here. Attempt numbers of open runs jump, so that none is given out twice; runs whose
    /// outcomes are lost are trained again
    Salvage {
        /// Data directory to make the store in
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file; flags win over it
    #[arg(long, value_name = "coordinator.toml")]
    pub config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:8470]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Certificate chain (PEM); with it the coordinator speaks TLS only
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Allow an address that is not loopback, without TLS
    #[arg(long)]
    pub insecure_listen: bool,
    /// A folder below which corpora of submissions may lie; repeatable. Needed for all but submissions from this machine
    /// with the token of the data directory, which may name any file
    #[arg(long, value_name = "DIR")]
    pub corpus_root: Vec<PathBuf>,
    /// Memory that reading the corpus of a submission may take, in a process of its own; what needs more is refused [default:
    /// half of what is free at the start]
    #[arg(long, value_name = "SIZE")]
    pub survey_memory: Option<String>,
    /// Room to keep free on the disk of the data directory: with less no run is granted until there is more; those that run go
    /// on [default: 256MiB, of small disks 5 %]
    #[arg(long, value_name = "SIZE")]
    pub disk_floor: Option<String>,
    /// For tests: die at a named point, such as settle-recorded:3
    #[arg(long, hide = true)]
    pub crash_at: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kept {
    None,
    Last,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MpsUse {
    Auto,
    Off,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerArgs {
    /// Name of this worker [default: host name]
    #[arg(long)]
    pub name: Option<String>,
    /// Cores to offer [default: all]
    #[arg(long)]
    pub cores: Option<usize>,
    /// Threads of one run
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// auto offers every GPU here with its free memory; or one, as UUID=MEMORY such as GPU-1234=80GiB, repeatable
    #[arg(long, value_name = "auto|UUID=MEMORY")]
    pub gpu: Vec<String>,
    /// Runs side by side on each GPU at most, as many as its memory holds
    #[arg(long, default_value_t = 1, requires = "gpu", value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    pub gpu_runs: u32,
    /// GPUs that train each run together, by NCCL; every one holds the whole model and takes a part of the batch
    #[arg(long, default_value_t = 1, requires = "gpu", value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    pub gpus_per_run: u32,
    /// Whether runs that share a GPU go through NVIDIA's Multi-Process Service. auto uses the daemon that runs here or is named by
    /// CUDA_MPS_PIPE_DIRECTORY, else starts one for itself where nvidia-cuda-mps-control is found; off keeps runs out of any
    #[arg(long, value_enum, default_value_t = MpsUse::Auto)]
    pub mps: MpsUse,
    /// Leave to run commands that sweeps name under [trainer], as this user
    #[arg(long)]
    pub allow_commands: bool,
    /// Checkpoints that stay when their run has ended; points where WSD runs branch off always stay
    #[arg(long, value_enum, default_value_t = Kept::Last)]
    pub keep_checkpoints: Kept,
    /// Where checkpoints also go, for other workers to start from: a folder they share, file:///folder or s3://bucket/prefix
    /// with the AWS_* variables (AWS_ENDPOINT_URL for another server); all workers name the same
    #[arg(long, value_name = "URL")]
    pub artifacts: Option<String>,
    /// End a sweep's command, or a run on a GPU, that says nothing for this long [default: 1h]
    #[arg(long, value_name = "DURATION")]
    pub silence: Option<String>,
    /// Runs that one process may take one after another, where its trainer allows that; with 1 each has its own [default: 100]
    #[arg(long, value_name = "N")]
    pub runs_per_child: Option<NonZeroU32>,
}
