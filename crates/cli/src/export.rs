//! `export`: results of a sweep as CSV or JSON lines, or a trained model.

use std::fs;
use std::path::{Path, PathBuf};

use isoloss_wire::api::RunRow;

use crate::args::{ExportFormat, Place};
use crate::exit::{Code, Done, Exit};
use crate::place::DataDir;
use crate::print;
use crate::remote::{block_on, connect};

/// Writes rows of `sweep` to `out` or stdout.
pub(crate) fn rows(place: &Place, sweep: &str, format: ExportFormat, out: Option<&Path>) -> Done {
    let client = connect(place)?;
    let rows = block_on(async { Ok(client.runs(sweep).await?) })?;
    let text = match format {
        ExportFormat::Csv => csv(&rows)?,
        ExportFormat::Jsonl => jsonl(&rows)?,
        ExportFormat::Safetensors => return Err(Exit::usage("a model is exported with --run RUN, not from a sweep")),
    };
    match out {
        Some(path) => {
            Ok(fs::write(path, text).map_err(|e| Exit::failure(format!("cannot write {}: {e}", path.display())))?)
        }
        None => {
            print::data(&text);
            Ok(())
        }
    }
}

fn jsonl(rows: &[RunRow]) -> Result<String, Exit> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row).map_err(Exit::failure)?);
        text.push('\n');
    }
    Ok(text)
}

const COLUMNS: &[&str] = &[
    "run_id",
    "arm",
    "state",
    "attempts",
    "params_total",
    "params_non_embedding",
    "params_active",
    "params_active_non_embedding",
    "layers",
    "width",
    "experts",
    "top_k",
    "tokens",
    "flops",
    "seed",
    "loss_nats",
    "bits_per_byte",
    "seconds",
    "device",
    "gpu",
    "mps",
    "gpu_seconds",
];

/// Rows as CSV; a missing value is an empty cell.
pub(crate) fn csv(rows: &[RunRow]) -> Result<String, Exit> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS).map_err(Exit::failure)?;
    for row in rows {
        let mut value = serde_json::to_value(row).map_err(Exit::failure)?;
        if let Some(gpu) = &row.gpu {
            value["gpu"] = gpu.card().into();
            value["mps"] = gpu.mps.into();
            value["gpu_seconds"] = gpu.seconds.into();
        }
        let cell = |column: &&str| match value.get(*column) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        writer.write_record(COLUMNS.iter().map(cell)).map_err(Exit::failure)?;
    }
    let bytes = writer.into_inner().map_err(Exit::failure)?;
    String::from_utf8(bytes).map_err(Exit::failure)
}

/// Writes a trained model of this machine's worker as safetensors with its configuration.
pub(crate) fn model(place: &Place, run: &str, out: Option<&Path>) -> Done {
    let data = DataDir::of(place)?;
    let checkpoints = data.root().join("worker").join("checkpoints");
    let folder = one_of(&checkpoints, run)?;
    let attempts = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let newest = attempts.filter_map(|dir| isoloss_train::checkpoint::list(&dir).ok()?.pop()).max();
    let (_, checkpoint) =
        newest.ok_or_else(|| Exit::new(Code::NotFound, format!("run {run} has no checkpoint here")))?;
    let kept = isoloss_train::checkpoint::Checkpoint::read(&checkpoint).map_err(Exit::failure)?;
    let corpus = data.corpora().join(kept.run.data.corpus.to_string());
    let tokenizer = corpus.join("tokenizer.json");
    let out = out.map_or_else(|| PathBuf::from(format!("model-{}", kept.run.id().short())), PathBuf::from);
    let tokenizer = tokenizer.exists().then_some(tokenizer.as_path());
    let config = isoloss_train::export::safetensors(&checkpoint, tokenizer, &out).map_err(Exit::failure)?;
    print::note(&format!("run {} at step {}: {}", config.run_id.short(), config.step, out.display()));
    Ok(())
}

/// The one folder whose name begins with `run`.
fn one_of(folder: &Path, run: &str) -> Result<PathBuf, Exit> {
    let entries = fs::read_dir(folder).map_err(|_| Exit::new(Code::NotFound, "no run was trained on this machine"))?;
    let names = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(run));
    match names.map(|entry| entry.path()).collect::<Vec<_>>().as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Exit::new(Code::NotFound, format!("no checkpoint of a run that begins with {run:?}"))),
        _ => Err(Exit::usage(format!("more than one run begins with {run:?}"))),
    }
}
