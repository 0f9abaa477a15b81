//! The command line as people type it. It does nothing; `lib.rs` sends each command to its module.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use isoloss_fit::Holdout;
use isoloss_sweep::HyperParameter;

/// A scaling-law laboratory: one TOML file in, a fitted law out.
#[derive(Debug, Parser)]
#[command(name = "isoloss", version, about, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub place: Place,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the coordinator is and where data lie.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Address of the coordinator [default: http://127.0.0.1:8470]
    #[arg(long = "server", global = true, env = "ISOLOSS_SERVER", value_name = "URL")]
    pub asked: Option<String>,
    /// File with the access token [default: the one in the data directory]
    #[arg(long, global = true, env = "ISOLOSS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) by which a coordinator with TLS is believed [default: those of the system]
    #[arg(long, global = true, env = "ISOLOSS_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Where journal, corpora, checkpoints and reports live [default: the user's data directory]
    #[arg(long, global = true, env = "ISOLOSS_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What to log to stderr: error, warn, info, debug, or a filter such as isoloss_coordinator=debug
    #[arg(long, global = true, env = "ISOLOSS_LOG", default_value = "warn", value_name = "FILTER")]
    pub log: String,
    /// How data is written to stdout
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Same as --output json
    #[arg(long, global = true)]
    pub json: bool,
}

impl Place {
    /// The address that was named, or the usual one on this machine.
    pub(crate) fn server(&self) -> &str {
        self.asked.as_deref().unwrap_or("http://127.0.0.1:8470")
    }

    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Csv,
}

/// A sweep file and changes to it.
#[derive(Debug, Clone, Args)]
pub(crate) struct SweepFile {
    /// The sweep's TOML file
    #[arg(value_name = "SWEEP.toml")]
    pub file: PathBuf,
    /// Set a key of the sweep, for example --set corpus.paths='["a.txt"]'
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Do it all on this machine: coordinator, workers, web page; with a sweep: run it, print the law, write the report
    Up {
        /// The sweep's TOML file [default: the built-in quickstart]
        #[arg(value_name = "SWEEP.toml")]
        file: Option<PathBuf>,
        /// Set a key of the sweep, for example --set corpus.paths='["a.txt"]'
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Port of the web page and API on 127.0.0.1; 0 picks a free one
        #[arg(long, default_value_t = 8470)]
        port: u16,
        /// Processor cores to use [default: all]
        #[arg(long)]
        cores: Option<usize>,
        /// Where the report goes [default: reports/<sweep> in the data directory]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Keep serving the web page after the sweep has ended
        #[arg(long)]
        keep: bool,
        /// Do not measure this machine's speed first; a time budget is then not checked
        #[arg(long)]
        no_probe: bool,
        /// Leave to run the command that the sweep names under [trainer], as this user
        #[arg(long)]
        allow_commands: bool,
        #[command(flatten)]
        choosing: Choosing,
    },
    /// Show the exact runs of a sweep with params, tokens, FLOPs, memory, time on this machine and why; trains nothing
    Plan {
        #[command(flatten)]
        sweep: SweepFile,
        /// Do not measure this machine's speed; there is then no ETA and a time budget is not checked
        #[arg(long)]
        no_probe: bool,
    },
    /// Hand a sweep to the coordinator; the same file again changes nothing
    Submit {
        #[command(flatten)]
        sweep: SweepFile,
        /// Wait until the sweep has ended
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        choosing: Choosing,
    },
    /// Show sweeps, or the runs of one
    Status { sweep: Option<String> },
    /// Follow a sweep until it ends
    Watch { sweep: Option<String> },
    /// Show what a run said
    Logs {
        run: String,
        /// Keep following
        #[arg(short, long)]
        follow: bool,
    },
    /// Say why a run is where it is
    Explain { run: String },
    /// End a sweep or a run; results stay
    Cancel { target: String },
    /// Grant no more runs of a sweep, or hold one run back
    Pause { target: String },
    /// Go on with a paused sweep or run
    Resume { target: String },
    /// Give failed runs another try
    Retry {
        sweep: String,
        /// All failed runs of the sweep
        #[arg(long, required = true)]
        failed: bool,
    },
    /// Fit scaling laws to a sweep or to a table of runs
    Fit(FitArgs),
    /// Say which runs to make next: those that leave least doubt about the loss of larger ones, for the compute that is left. The
    /// pool are a sweep's runs without a result, or a table's rows with an empty loss
    Next(NextArgs),
    /// Write the report of a sweep: HTML, Markdown, SVG figures, law.tex, checklist.md, fit.json, runs.csv
    Report {
        sweep: String,
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Export results of a sweep, or a trained model
    Export {
        sweep: Option<String>,
        #[arg(long, value_enum)]
        format: ExportFormat,
        /// The run whose model is exported (safetensors)
        #[arg(long)]
        run: Option<String>,
        /// File or folder to write [default: stdout for csv and jsonl]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Look at a corpus, or draw text from the synthetic language
    #[command(subcommand)]
    Corpus(CorpusCommand),
    /// Run the coordinator daemon
    Serve(ServeArgs),
    /// Run a worker daemon
    Worker(WorkerArgs),
    /// Train one run in this process, JSON lines out (what a worker starts, which feeds it on stdin)
    Train {
        /// Read the assignment from this file instead of stdin
        #[arg(long, value_name = "RUN.json")]
        run: Option<PathBuf>,
    },
    /// Measure training speed for named shapes
    Bench(BenchArgs),
    /// Say what this machine offers and what is missing, with its fix
    Doctor,
    /// Make, list and revoke access tokens of the coordinator on this data directory
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check, back up, restore or compact what a coordinator has recorded in the data directory
    Store {
        #[command(subcommand)]
        action: StoreCommand,
    },
    #[command(hide = true)]
    Guard {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

/// Where runs come from. For `next`, runs without a result, or rows with an empty loss, are the pool.
#[derive(Debug, Clone, Args)]
pub(crate) struct Origin {
    /// A sweep of the coordinator
    #[arg(required_unless_present = "csv", conflicts_with = "csv")]
    pub sweep: Option<String>,
    /// A table of runs instead
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Columns of the table, for example params=N,tokens=D,loss=loss_c4; a number holds for all rows, as in tokens=130B;
    /// label=COLUMN, tokenizer=COLUMN, cooled=COLUMN name groups that may not belong in one fit, which is checked
    #[arg(long, requires = "csv", conflicts_with = "sweep", value_name = "NAME=COLUMN,...")]
    pub map: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct FitArgs {
    #[command(flatten)]
    pub from: Origin,
    /// A law's name, or auto
    #[arg(long, default_value = "auto")]
    pub law: String,
    /// Predict the loss there, for example params=1e9,tokens=20e9 or with experts=8,top_k=2; repeatable
    #[arg(long, value_name = "params=..,tokens=..")]
    pub predict: Vec<String>,
    /// FLOPs to allocate optimally, for example 1e20
    #[arg(long, value_name = "FLOPS", allow_hyphen_values = true)]
    pub budget: Option<String>,
    /// Tokens that the model will read or write in use, paid from the same budget, for example 1T
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true)]
    pub serve_tokens: Option<String>,
    /// Largest params that memory allows, all experts counted, for example 7B
    #[arg(long, value_name = "PARAMS", allow_hyphen_values = true)]
    pub params_max: Option<String>,
    /// The same as an amount of memory for weights, for example 80GiB; activations and caches are not counted
    #[arg(long, value_name = "BYTES", conflicts_with = "params_max")]
    pub memory: Option<String>,
    /// Bytes of memory for each param: 2 to serve in 16 bits, 1 in 8 bits, 16 to train with Adam in mixed precision
    #[arg(long, requires = "memory", default_value_t = 2.0, value_name = "BYTES")]
    pub bytes_per_param: f64,
    /// Entropy of the text in the unit of the losses, for laws that need it; a sweep on synthetic text knows its own
    #[arg(long, requires = "csv", conflicts_with = "sweep", value_parser = entropy, allow_hyphen_values = true)]
    pub entropy: Option<f64>,
    /// Hyper-parameters of which only the best value of each size and budget is fitted, for example learning_rate,batch
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub best_of: Vec<HyperParameter>,
    /// Runs of the table that are kept from the fit to test it [default: largest 20% by flops]
    #[arg(long, requires = "csv", conflicts_with = "sweep", value_name = "RULE")]
    pub holdout: Option<Holdout>,
    /// Bootstrap resamples, 40 to 100000
    #[arg(long, default_value_t = 1000)]
    pub resamples: usize,
    /// Seed of the resamples of a table; a sweep's fit always has the same one [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Folder to write the fit of a table to as a report: page, figures, law.tex, checklist, fit.json
    #[arg(long, requires = "csv", value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct NextArgs {
    #[command(flatten)]
    pub from: Origin,
    #[command(flatten)]
    pub aim: Aim,
    /// What may be spent from now on, in the unit of the table's cost column (else FLOPs), or as a share of what all runs cost, for example 30%
    #[arg(long, default_value = "100%", value_name = "COST")]
    pub budget: String,
}

/// Train a part of a sweep's runs only.
#[derive(Debug, Clone, Args)]
pub(crate) struct Choosing {
    /// Make only the dense runs that tell most, for at most so many FLOPs or such a share of the sweep's, for example 30%;
    /// what is left is cancelled
    #[arg(long, value_name = "FLOPS|SHARE")]
    pub choose: Option<String>,
    #[command(flatten)]
    pub aim: Aim,
}

/// What runs are chosen for.
#[derive(Debug, Clone, Args)]
pub(crate) struct Aim {
    /// Where the loss is wanted, for example params=1e9,tokens=20e9; repeatable [default: the dearest fifth of all runs, which
    /// is then not made]
    #[arg(long, value_name = "params=..,tokens=..")]
    pub target: Vec<String>,
    /// Stop when the loss there is known to this, for example 1%
    #[arg(long, value_name = "PERCENT")]
    pub until: Option<String>,
    /// Laws that may hold, joined by commas [default: the most general that read what varies among the runs]
    #[arg(long = "laws", value_name = "LAW,...", value_delimiter = ',')]
    pub laws: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    Csv,
    Jsonl,
    Safetensors,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// 0.2M, 1M, 5M, 20M or moe-1M; repeatable [default: all]
    #[arg(long)]
    pub shape: Vec<String>,
    /// One or more, joined by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32")]
    pub precision: Vec<BenchPrecision>,
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    #[arg(long, value_enum, default_value_t = BenchEngine::Cpu)]
    pub engine: BenchEngine,
    /// Seconds to measure each shape
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchPrecision {
    F32,
    Bf16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchEngine {
    Cpu,
    Reference,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CorpusCommand {
    /// Size, entropy, codecs, Zipf exponent and duplicates of text files, or the parts of a sweep's corpus
    Stats {
        /// Text files or globs; or one sweep file, SWEEP.toml
        #[arg(required = true)]
        paths: Vec<String>,
        /// A line that ends a document inside a file
        #[arg(long)]
        separator: Option<String>,
    },
    /// Draw text from the synthetic language
    Sample {
        #[arg(long, value_enum, default_value_t = PresetName::Tiny)]
        preset: PresetName,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// At least this many bytes, 1 to 1 GiB; documents are written whole
        #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
        bytes: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PresetName {
    Tiny,
    Small,
    Large,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it: it cannot be seen again. A running coordinator takes it at once
    Create {
        /// viewer reads; submitter also plans, submits and orders; worker only takes and reports runs; admin does all
        #[arg(long, value_enum)]
        role: RoleName,
        /// Who or what it is for
        #[arg(long, default_value = "unnamed")]
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
    /// A GPU to offer, as UUID=MEMORY such as GPU-1234=80GiB; repeatable
    #[arg(long, value_name = "UUID=MEMORY")]
    pub gpu: Vec<String>,
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
    /// End a command of a sweep that says nothing for this long [default: 1h]
    #[arg(long, value_name = "DURATION")]
    pub silence: Option<String>,
}

fn entropy(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
    number.ok_or_else(|| "expected a positive number such as 1.33".to_owned())
}
