//! The command line as people type it. It does nothing; `lib.rs` sends each command to its module.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use isoloss_train::bench::Meeting;

mod daemons;
mod fit;

pub(crate) use daemons::{Kept, MpsUse, RoleName, ServeArgs, StoreCommand, TokenCommand, WorkerArgs};
pub(crate) use fit::{Aim, Choosing, FitArgs, NextArgs};

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
        /// Where checkpoints also go, for workers elsewhere to start from: a folder, file:///folder or s3://bucket/prefix, as
        /// for `isoloss worker`
        #[arg(long, value_name = "URL")]
        artifacts: Option<String>,
        /// Whether runs that share a GPU go through NVIDIA's Multi-Process Service, as for `isoloss worker`
        #[arg(long, value_enum, default_value_t = MpsUse::Auto)]
        mps: MpsUse,
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
        /// Whether runs that share a GPU are timed through NVIDIA's Multi-Process Service, as for `isoloss up`
        #[arg(long, value_enum, default_value_t = MpsUse::Auto)]
        mps: MpsUse,
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
    /// Show the workers: what each does, and what keeps runs from it
    Workers,
    /// Give a worker no more runs; those that it makes go on. It stays so until `undrain`, also over restarts
    Drain { worker: String },
    /// Let a drained worker have runs again
    Undrain { worker: String },
    /// Give a run that has no result another try, or all failed runs of a sweep
    Retry {
        /// A run; with --failed, a sweep
        target: String,
        /// All failed runs of the sweep
        #[arg(long)]
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
    /// Hold the cuda engine on this machine's first GPU that can be used to the CPU engine
    GpuCheck(GpuCheckArgs),
    /// Make, list and revoke access tokens of the coordinator on this data directory
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check, back up, restore, compact or salvage what a coordinator has recorded in the data directory
    Store {
        #[command(subcommand)]
        action: StoreCommand,
    },
    /// Open every GPU that this process sees and print them
    #[command(hide = true)]
    GpuOpen,
    /// Time runs as orders on stdin say (what `plan` and `up` start to measure a GPU)
    #[command(hide = true)]
    Trial,
    /// Survey one corpus, told on stdin (what a coordinator starts)
    #[command(hide = true)]
    Survey,
    #[command(hide = true)]
    Guard {
        /// The command is a service of the worker's, not a trainer
        #[arg(long)]
        service: bool,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    Csv,
    Jsonl,
    Safetensors,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// 0.2M, 1M, 5M, 20M or moe-1M, with --engine cuda also 10M, 50M, 160M, 350M or moe-50M; repeatable [default: all]
    #[arg(long)]
    pub shape: Vec<String>,
    /// One or more, joined by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32")]
    pub precision: Vec<BenchPrecision>,
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// cuda takes the first GPU that can be used, the best of a few batches, and counts shares of a large bf16 product's rate
    #[arg(long, value_enum, default_value_t = BenchEngine::Cpu)]
    pub engine: BenchEngine,
    /// Models of the shape that train side by side in one process; their speeds are added up
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    pub together: u16,
    /// Sequences of a step [default: those of the shape; with --engine cuda the best of a few]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), value_name = "SEQUENCES")]
    pub batch: Option<u16>,
    /// Measures while so many processes do, this one counted, which all name the same empty folder; needs --batch
    #[arg(long, value_name = "N:FOLDER", requires = "batch", value_parser = meeting)]
    pub meet: Option<Meeting>,
    /// Seconds to measure each shape
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
}

#[derive(Debug, Args)]
pub(crate) struct GpuCheckArgs {
    /// Keep checks in this file and leave out those that it has already
    #[arg(long, value_name = "FILE")]
    pub keep: Option<PathBuf>,
    /// Make again what failed before
    #[arg(long, requires = "keep")]
    pub retry: bool,
    /// Begin no check after so many seconds
    #[arg(long)]
    pub seconds: Option<u64>,
}

/// `4:folder`.
fn meeting(text: &str) -> Result<Meeting, String> {
    let parsed = text.split_once(':').and_then(|(count, folder)| Some((count.parse().ok()?, folder)));
    match parsed.filter(|(count, folder)| *count > 0 && std::path::Path::new(folder).is_dir()) {
        Some((processes, folder)) => Ok(Meeting { processes, folder: folder.into() }),
        None => Err("expected a number of processes and an empty folder that is there, such as 4:meeting".to_owned()),
    }
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
    Cuda,
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
