//! What fits and choices of runs are told.

use std::path::PathBuf;

use clap::Args;
use isoloss_fit::Holdout;
use isoloss_sweep::HyperParameter;

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

fn entropy(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
    number.ok_or_else(|| "expected a positive number such as 1.33".to_owned())
}
