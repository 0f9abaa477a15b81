//! Observations from a CSV file: which column is what, said or guessed. It does not open files.

use std::collections::BTreeMap;
use std::io::Read;
use std::str::FromStr;

use isoloss_sweep::HyperParameter;
use isoloss_sweep::spec::parse_number;

use crate::design::Candidate;
use crate::law::Laws;
use crate::needs::Needs;
use crate::observation::{Exclusion, Observation, Observations};

/// The quantities a column can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Id,
    Arm,
    State,
    Cluster,
    Params,
    ParamsActive,
    ParamsTotal,
    Tokens,
    Flops,
    Loss,
    LossSe,
    Experts,
    TopK,
    Granularity,
    TokensUnique,
    Cost,
    Trunk,
    Tokenizer,
    Cooled,
    Label,
    Hyper(HyperParameter),
}

/// Labels, of which a table may have several; a column is one only when it is said to be.
const LABELS: [Quantity; 3] = [Quantity::Tokenizer, Quantity::Cooled, Quantity::Label];

/// Names of a quantity: its own, used in `--map`, then the headers guessed for it, in order of preference.
const NAMES: &[(Quantity, &[&str])] = &[
    (Quantity::Id, &["id", "run_id", "run", "name", "run_name"]),
    (Quantity::Arm, &["arm", "family"]),
    (Quantity::State, &["state"]),
    (Quantity::Cluster, &["cluster", "trunk", "trunk_id"]),
    (
        Quantity::Params,
        &[
            "params",
            "params_non_embedding",
            "n",
            "n_params",
            "num_params",
            "parameters",
            "model_size",
            "dense_parameter_count",
        ],
    ),
    (Quantity::ParamsActive, &["params_active", "params_active_non_embedding", "n_active", "active_params"]),
    (Quantity::ParamsTotal, &["params_total", "n_total", "total_params", "total_parameter_count"]),
    (Quantity::Tokens, &["tokens", "d", "n_tokens", "num_tokens", "training_tokens", "train_tokens", "data"]),
    (Quantity::Flops, &["flops", "c", "compute", "training_flops", "total_flops"]),
    (
        Quantity::Loss,
        &[
            "loss",
            "loss_nats",
            "bits_per_byte",
            "bpb",
            "val_loss",
            "validation_loss",
            "loss_validation",
            "eval_loss",
            "final_loss",
            "l",
        ],
    ),
    (Quantity::LossSe, &["loss_se", "se", "loss_std_err"]),
    (Quantity::Experts, &["experts", "num_experts", "n_experts"]),
    (Quantity::TopK, &["top_k", "k", "topk"]),
    (Quantity::Granularity, &["granularity"]),
    (Quantity::TokensUnique, &["tokens_unique", "unique_tokens", "d_unique"]),
    (Quantity::Cost, &["cost"]),
    (Quantity::Trunk, &["trunk_cost"]),
    (Quantity::Tokenizer, &["tokenizer"]),
    (Quantity::Cooled, &["cooled"]),
    (Quantity::Label, &["label"]),
    (
        Quantity::Hyper(HyperParameter::LearningRate),
        &["learning_rate", "lr", "peak_lr", "max_lr", "peak_learning_rate", "max_learning_rate"],
    ),
    (Quantity::Hyper(HyperParameter::Batch), &["batch", "batch_size", "bs", "global_batch_size"]),
    (Quantity::Hyper(HyperParameter::WeightDecay), &["weight_decay", "wd"]),
    (Quantity::Hyper(HyperParameter::Warmup), &["warmup"]),
];

/// Columns of exported sweeps whose name is the convention that a sweep's fit counts params by.
const CONVENTIONS: [&str; 1] = ["params_active_non_embedding"];
/// In the state column: a run that ended nowhere, whose loss is infinite. Tuning has tried its setting.
const DIVERGED: &str = "diverged";

/// Which header holds which quantity; what is not said is guessed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    said: Vec<(Quantity, String)>,
    needs: Needs,
}

impl Columns {
    /// For a law: what it does not read need not be in the table.
    #[must_use]
    pub fn for_law(self, laws: Laws) -> Self {
        Self { needs: Needs::of(laws), ..self }
    }
}

/// The table cannot be read as observations.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("expected quantity=column, got {0:?}")]
    Mapping(String),
    #[error("expected a quantity among {known}, got {got:?}")]
    Quantity { got: String, known: String },
    #[error("column {column:?} is not in the header: {header}")]
    NoColumn { column: String, header: String },
    #[error("no column for {missing}{by}; say which with {missing}=COLUMN; the header is {header}")]
    Missing { missing: &'static str, by: String, header: String },
    #[error("table is not valid CSV")]
    Csv(#[from] csv::Error),
}

impl FromStr for Columns {
    type Err = TableError;

    /// `params=N,tokens=D,loss=loss_c4`; a number instead of a column holds for all rows, as in `tokens=130B`.
    fn from_str(text: &str) -> Result<Self, TableError> {
        let pair = |part: &str| -> Result<_, TableError> {
            let (quantity, column) = part.split_once('=').ok_or_else(|| TableError::Mapping(part.to_owned()))?;
            let found = NAMES.iter().find(|(_, names)| names[0] == quantity.trim());
            let known = || NAMES.iter().map(|(_, names)| names[0]).collect::<Vec<_>>().join(", ");
            let (quantity, _) =
                found.ok_or_else(|| TableError::Quantity { got: quantity.to_owned(), known: known() })?;
            Ok((*quantity, column.trim().to_owned()))
        };
        let parts = text.split(',').filter(|part| !part.trim().is_empty());
        Ok(Self { said: parts.map(pair).collect::<Result<_, _>>()?, needs: Needs::default() })
    }
}

/// Where a quantity comes from: a column, or one number for all rows.
#[derive(Debug, Clone, Copy)]
enum Source {
    Column(usize),
    Constant(f64),
}

/// Sources by quantity, and the columns of labels by their names.
struct Layout {
    sources: Vec<(Quantity, Source)>,
    labels: Vec<(String, usize)>,
}

impl Layout {
    fn find(columns: &Columns, header: &csv::StringRecord) -> Result<Self, TableError> {
        let shown = || header.iter().collect::<Vec<_>>().join(", ");
        let mut layout = Vec::new();
        for (quantity, column) in &columns.said {
            let at = header.iter().position(|name| name.trim() == column).map(Source::Column);
            let source = at.or_else(|| parse_number(column).map(Source::Constant));
            let source = source.ok_or_else(|| TableError::NoColumn { column: column.clone(), header: shown() })?;
            layout.push((*quantity, source));
        }
        for (quantity, names) in NAMES {
            if LABELS.contains(quantity) || layout.iter().any(|(known, _)| known == quantity) {
                continue;
            }
            let is = |name: &str| header.iter().position(|head| head.trim().eq_ignore_ascii_case(name));
            if let Some(at) = names.iter().find_map(|name| is(name)) {
                layout.push((*quantity, Source::Column(at)));
            }
        }
        let label = |(quantity, source): &(Quantity, Source)| match (quantity, source) {
            (Quantity::Tokenizer, Source::Column(at)) => Some(("tokenizer".to_owned(), *at)),
            (Quantity::Cooled, Source::Column(at)) => Some(("cooled".to_owned(), *at)),
            (Quantity::Label, Source::Column(at)) => Some((header.get(*at)?.trim().to_owned(), *at)),
            _ => None,
        };
        let labels = layout.iter().filter_map(label).collect();
        let layout = Self { sources: layout, labels };
        let has = |quantity| layout.at(quantity).is_some();
        let sizes = [Quantity::Params, Quantity::ParamsTotal, Quantity::Tokens, Quantity::Flops];
        let [params, params_total, tokens, flops] = sizes.map(has);
        let (missing, by) = match has(Quantity::Loss) {
            false => (Some("loss"), String::new()),
            true => (columns.needs.lacks(params, params_total, tokens, flops), columns.needs.by()),
        };
        match missing {
            Some(missing) => Err(TableError::Missing { missing, by, header: shown() }),
            None => Ok(layout),
        }
    }

    fn at(&self, quantity: Quantity) -> Option<Source> {
        self.sources.iter().find(|(known, _)| *known == quantity).map(|(_, source)| *source)
    }

    /// What the size axis counts, in words.
    fn convention(&self, header: &csv::StringRecord) -> String {
        let (flops, tokens) = (self.at(Quantity::Flops), self.at(Quantity::Tokens));
        match self.at(Quantity::Params).or_else(|| self.at(Quantity::ParamsTotal)) {
            None if flops.and(tokens).is_none() => "nothing, the table says no size".to_owned(),
            None => "params = C / (6 D)".to_owned(),
            Some(Source::Column(at)) => match header.get(at).unwrap_or_default() {
                // These names say what they count, wherever they stand: a sweep's own table gives its digest again.
                name if CONVENTIONS.contains(&name) => name.to_owned(),
                name => format!("column {name}"),
            },
            Some(Source::Constant(value)) => format!("{value} for all"),
        }
    }

    fn text<'r>(&self, record: &'r csv::StringRecord, quantity: Quantity) -> Option<&'r str> {
        let Source::Column(at) = self.at(quantity)? else { return None };
        record.get(at).map(str::trim).filter(|text| !text.is_empty())
    }

    /// A number, `None` where the cell is absent or empty; a reason where it is not a number.
    fn number(&self, record: &csv::StringRecord, quantity: Quantity) -> Result<Option<f64>, String> {
        if let Some(Source::Constant(value)) = self.at(quantity) {
            return Ok(Some(value));
        }
        let parse = |text: &str| text.parse::<f64>().map_err(|_| format!("expected a number, got {text:?}"));
        self.text(record, quantity).map(parse).transpose()
    }

    fn candidate(&self, id: String, record: &csv::StringRecord) -> Result<Candidate, String> {
        let row = self.observation(id, record)?;
        let cost = self.number(record, Quantity::Cost)?.unwrap_or(row.flops);
        Ok(Candidate { cost, trunk: self.number(record, Quantity::Trunk)?.unwrap_or(0.0), row })
    }

    /// A row; its loss is not a number where the cell is empty, infinite where the run diverged.
    fn observation(&self, id: String, record: &csv::StringRecord) -> Result<Observation, String> {
        let number = |quantity| self.number(record, quantity);
        let (params, tokens, flops) = (number(Quantity::Params)?, number(Quantity::Tokens)?, number(Quantity::Flops)?);
        let total = number(Quantity::ParamsTotal)?;
        // What the table has no column for no law that was asked for reads; an empty cell is a hole.
        let unsaid = |quantity, other| {
            let derived = self.at(Quantity::Flops).and(self.at(other)).is_some();
            (self.at(quantity).is_none() && !derived).then_some(Observation::UNSAID)
        };
        let size =
            params.or_else(|| Some(flops? / (6.0 * tokens?))).or(total.filter(|_| self.at(Quantity::Params).is_none()));
        let params = size.or_else(|| unsaid(Quantity::Params, Quantity::Tokens)).ok_or("params are missing")?;
        let data = tokens.or_else(|| Some(flops? / (6.0 * size?)));
        let tokens = data.or_else(|| unsaid(Quantity::Tokens, Quantity::Params)).ok_or("tokens are missing")?;
        // What no row says is open; a diverged run has ended.
        let diverged = self.text(record, Quantity::State) == Some(DIVERGED);
        let lost = if diverged { f64::INFINITY } else { f64::NAN };
        let count = |value: Option<f64>| value.map(|value| value.round() as u32);
        let mut row = Observation::dense(id, params, tokens, number(Quantity::Loss)?.unwrap_or(lost));
        row.flops = flops.unwrap_or(row.flops);
        row.params_active = number(Quantity::ParamsActive)?.unwrap_or(params);
        row.params_total = total.unwrap_or(params);
        row.loss_se = number(Quantity::LossSe)?;
        row.experts = count(number(Quantity::Experts)?);
        row.granularity = number(Quantity::Granularity)?;
        row.tokens_unique = number(Quantity::TokensUnique)?.filter(|unique| *unique < tokens);
        row.top_k = count(number(Quantity::TopK)?);
        // A cell that is no number matters only to a fit that tunes, which then says that nothing is known.
        let hyper = |p: HyperParameter| Some((p, number(Quantity::Hyper(p)).ok()??)).filter(|(_, v)| v.is_finite());
        row.hyper = HyperParameter::ALL.into_iter().filter_map(hyper).collect();
        let label = |(name, at): &(String, usize)| Some((name.clone(), record.get(*at)?.trim().to_owned()));
        row.labels = self.labels.iter().filter_map(label).collect();
        if let Some(cluster) = self.text(record, Quantity::Cluster) {
            row.cluster = cluster.to_owned();
        }
        row.arm = match self.text(record, Quantity::Arm) {
            Some(arm) => arm.to_owned(),
            None if row.is_dense() => row.arm,
            // Each routing is an arm of its own: one effective size for several would mean nothing.
            None => {
                let top_k = row.top_k.map(|top_k| format!("-top{top_k}")).unwrap_or_default();
                format!("moe-{}{top_k}", row.experts.unwrap_or(1))
            }
        };
        Ok(row)
    }
}

/// Reads a CSV table with a header. Rows that cannot be used are kept out with a reason, by their id or line.
pub fn read_csv(input: impl Read, columns: &Columns) -> Result<Observations, TableError> {
    let (lines, excluded, convention) = lines(input, columns)?;
    let (mut rows, mut excluded) = (Vec::new(), excluded);
    for Line { place, candidate: Candidate { row, .. } } in lines {
        let missing = row.loss.is_nan().then(|| "loss is missing".to_owned());
        match missing.or_else(|| flaw(&row)) {
            Some(reason) => excluded.push(Exclusion { id: row.id, reason: format!("{place}{reason}") }),
            None => {
                excluded.extend(diverged(&row, &place));
                rows.push(row);
            }
        }
    }
    Ok(Observations::new(rows, excluded, convention))
}

/// Runs with a loss and runs to choose from.
#[derive(Debug, Clone)]
pub struct Pool {
    pub known: Observations,
    pub open: Vec<Candidate>,
    /// What the known runs cost, those that diverged included.
    pub spent: f64,
    /// Trunks of known runs, by cluster, as far as they are there.
    pub trunks: BTreeMap<String, f64>,
}

/// The runs of a table, and those that have no loss yet: rows whose loss is empty. A run's cost is its column's, or its FLOPs.
pub fn read_pool(input: impl Read, columns: &Columns) -> Result<Pool, TableError> {
    let (lines, excluded, convention) = lines(input, columns)?;
    let (mut rows, mut open, mut excluded) = (Vec::new(), Vec::new(), excluded);
    let (mut spent, mut trunks) = (0.0, BTreeMap::new());
    for Line { place, candidate } in lines {
        let costs = candidate.cost.is_finite() && candidate.cost > 0.0 && candidate.trunk >= 0.0;
        let dear = || (!costs).then(|| format!("expected a positive finite cost, got {}", candidate.cost));
        match flaw(&candidate.row).or_else(dear) {
            Some(reason) => excluded.push(Exclusion { id: candidate.row.id, reason: format!("{place}{reason}") }),
            None if candidate.row.loss.is_nan() => open.push(candidate),
            None => {
                let there: &mut f64 = trunks.entry(candidate.row.cluster.clone()).or_default();
                spent += candidate.cost + (candidate.trunk - *there).max(0.0);
                *there = there.max(candidate.trunk);
                excluded.extend(diverged(&candidate.row, &place));
                rows.push(candidate.row);
            }
        }
    }
    Ok(Pool { known: Observations::new(rows, excluded, convention), open, spent, trunks })
}

/// What is wrong with a row, but that it has no loss: open runs have none yet, diverged ones an infinite one.
fn flaw(row: &Observation) -> Option<String> {
    let without = row.loss.is_nan() || row.loss == f64::INFINITY;
    if without { Observation { loss: 1.0, ..row.clone() }.flaw() } else { row.flaw() }
}

/// A diverged run is named among those that the laws do not see.
fn diverged(row: &Observation, place: &str) -> Option<Exclusion> {
    (row.loss == f64::INFINITY).then(|| Exclusion { id: row.id.clone(), reason: format!("{place}{DIVERGED}") })
}

/// A readable row, and where it stands in words.
struct Line {
    place: String,
    candidate: Candidate,
}

fn lines(input: impl Read, columns: &Columns) -> Result<(Vec<Line>, Vec<Exclusion>, String), TableError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(input);
    let header = reader.headers()?.clone();
    let layout = Layout::find(columns, &header)?;
    let (mut rows, mut excluded) = (Vec::new(), Vec::new());
    let mut ids = std::collections::HashSet::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let named = layout.text(&record, Quantity::Id).filter(|id| ids.insert((*id).to_owned()));
        // People look a row up by its line, also where it has a name of its own.
        let (id, place) = match named {
            Some(id) => (id.to_owned(), format!("line {line}: ")),
            None => (format!("line {line}"), String::new()),
        };
        match even(&record, header.len()).and_then(|()| layout.candidate(id.clone(), &record)) {
            Ok(candidate) => rows.push(Line { place, candidate }),
            Err(reason) => excluded.push(Exclusion { id, reason: format!("{place}{reason}") }),
        }
    }
    Ok((rows, excluded, layout.convention(&header)))
}

/// A row with a cell too few or too many has its values under the wrong names.
fn even(record: &csv::StringRecord, columns: usize) -> Result<(), String> {
    let extra = record.iter().skip(columns).any(|cell| !cell.is_empty());
    if record.len() < columns || extra {
        return Err(format!("expected {columns} cells as in the header, got {}", record.len()));
    }
    Ok(())
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
