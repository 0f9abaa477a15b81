//! A trained model for other programs: safetensors, with its configuration and tokenizer beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use isoloss_sweep::{Model, Run, RunId};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::engine::{NORM_EPSILON, ROPE_THETA};
use crate::layout::Layout;

/// An export that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("cannot write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot write safetensors: {0}")]
    Format(#[from] safetensors::SafeTensorError),
}

/// `config.json`: all that a reader of the weights must know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub schema_version: u32,
    /// Weights that multiply activations are `[in, out]`: `y = x W`.
    pub weight_order: String,
    pub norm_epsilon: f64,
    pub rope_theta: f64,
    /// Which elements of a head RoPE turns together.
    pub rope_pairs: String,
    pub model: Model,
    pub run_id: RunId,
    pub run: Run,
    pub step: u64,
}

/// Writes `model.safetensors`, `config.json` and, if one is given, `tokenizer.json` into `dir`.
pub fn safetensors(checkpoint: &Path, tokenizer: Option<&Path>, dir: &Path) -> Result<Config, ExportError> {
    let Checkpoint { run, state, .. } = Checkpoint::read(checkpoint)?;
    let layout = Layout::of(&run.model);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ExportError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(io(dir))?;
    let bytes: Vec<u8> = state.params.iter().flat_map(|value| value.to_le_bytes()).collect();
    let bias: Vec<u8> = state.router_bias.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut tensors = Vec::new();
    for view in layout.views() {
        let range = view.offset * 4..(view.offset + view.len) * 4;
        tensors.push((view.name.clone(), TensorView::new(Dtype::F32, view.shape.clone(), &bytes[range])?));
    }
    if let (Some(experts), false) = (&run.model.experts, bias.is_empty()) {
        let shape = vec![run.model.layers as usize, experts.count as usize];
        tensors.push(("router_bias".to_owned(), TensorView::new(Dtype::F32, shape, &bias)?));
    }
    safetensors::serialize_to_file(tensors, None, &dir.join("model.safetensors"))?;
    let config = Config {
        schema_version: 1,
        weight_order: "in, out".to_owned(),
        norm_epsilon: NORM_EPSILON,
        rope_theta: ROPE_THETA,
        rope_pairs: "i, i + head_width / 2".to_owned(),
        model: run.model.clone(),
        run_id: run.id(),
        run,
        step: state.step,
    };
    let json = serde_json::to_vec_pretty(&config).expect("a configuration is plain data with string keys");
    let path = dir.join("config.json");
    fs::write(&path, json).map_err(io(&path))?;
    if let Some(tokenizer) = tokenizer {
        fs::copy(tokenizer, dir.join("tokenizer.json")).map_err(io(tokenizer))?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use isoloss_sweep::Digest;
    use safetensors::SafeTensors;

    use super::*;
    use crate::engine::Engine;
    use crate::reference::Reference;
    use crate::{fixture, initial_state};

    #[test]
    fn another_program_reads_the_same_model() {
        let dir = tempfile::tempdir().unwrap();
        let run = fixture::moe(Digest::of(b"corpus"));
        let mut state = initial_state(&run.model, 5);
        state.router_bias[2] = 0.75;
        let checkpoint = Checkpoint {
            run: run.clone(),
            trunk: false,
            state: state.clone(),
            ledger: crate::ledger::Ledger::default(),
        };
        let written = checkpoint.write(dir.path(), &[]).unwrap();
        let tokenizer = dir.path().join("some.json");
        fs::write(&tokenizer, "{}").unwrap();
        let out = dir.path().join("model");
        let config = safetensors(&written.path, Some(&tokenizer), &out).unwrap();
        let read: Config = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!((&read, read.run_id), (&config, run.id()));
        assert_eq!(fs::read(out.join("tokenizer.json")).unwrap(), b"{}");

        let bytes = fs::read(out.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let values = |name: &str| -> Vec<f32> {
            let words = tensors.tensor(name).unwrap().data().chunks_exact(4);
            words.map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
        };
        let layout = Layout::of(&read.model);
        let mut rebuilt = crate::engine::State::zeros(&read.model);
        for view in layout.views() {
            assert_eq!(tensors.tensor(&view.name).unwrap().shape(), view.shape);
            rebuilt.params[view.range()].copy_from_slice(&values(&view.name));
        }
        rebuilt.router_bias = values("router_bias");
        assert_eq!(tensors.len(), layout.views().len() + 1);
        let logits = |state| {
            let mut engine = Reference::new(&run.model);
            engine.restore(state).unwrap();
            engine.logits(&[1, 2, 3, 4, 5]).unwrap()
        };
        assert_eq!(logits(rebuilt), logits(state));
    }

    /// The Python that has torch, if there is one: `ISOLOSS_PYTHON`, or plain `python3`.
    fn torch() -> Option<String> {
        let python = std::env::var("ISOLOSS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let found = std::process::Command::new(&python).args(["-c", "import torch"]).output();
        found.is_ok_and(|output| output.status.success()).then_some(python)
    }

    #[test]
    fn pytorch_finds_the_same_logits() {
        let Some(python) = torch() else {
            println!("skipped: no Python with torch (ISOLOSS_PYTHON names one)");
            return;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/load_model.py");
        let dense = fixture::run(Digest::of(b"corpus"));
        let mut tied = dense.clone();
        tied.model.tied = true;
        for run in [dense, tied, fixture::moe(Digest::of(b"corpus"))] {
            let dir = tempfile::tempdir().unwrap();
            let mut state = initial_state(&run.model, 5);
            state.params.iter_mut().for_each(|weight| *weight *= 3.0);
            if let Some(bias) = state.router_bias.first_mut() {
                *bias = 0.5;
            }
            let ledger = crate::ledger::Ledger::default();
            let checkpoint = Checkpoint { run: run.clone(), trunk: false, state: state.clone(), ledger };
            let written = checkpoint.write(dir.path(), &[]).unwrap();
            let out = dir.path().join("model");
            safetensors(&written.path, None, &out).unwrap();
            let tokens: Vec<u32> = (0..run.model.context).map(|i| (i * i * 7 + 3) % run.model.vocab).collect();
            let arguments = tokens.iter().map(u32::to_string);
            let output = std::process::Command::new(&python).arg(&script).arg(&out).args(arguments).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let theirs: Vec<f32> = serde_json::from_slice(&output.stdout).unwrap();
            let mut engine = Reference::new(&run.model);
            engine.restore(state).unwrap();
            let ours = engine.logits(&tokens).unwrap();
            assert_eq!(theirs.len(), ours.len());
            let most = theirs.iter().zip(&ours).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(most < 1e-4, "logits differ by {most}");
        }
    }
}
