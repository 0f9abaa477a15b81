//! A sized point becomes a [`Run`]: recipe, schedule, steps, engine. Every number is final here.

use std::collections::BTreeMap;

use crate::count::{Tokens, four_digits};
use crate::digest::Digest;
use crate::hyper::HyperParameter::{self, LearningRate, WeightDecay};
use crate::plan::draft::Draft;
use crate::plan::recipe::{self, Recipe};
use crate::plan::{Capabilities, Capability, PlanError, Refusal};
use crate::run::{Data, EngineKind, IDENTITY_VERSION, Numerics, Precision, Run, Schedule, Train};
use crate::spec::{ScheduleSpec, SweepSpec, Value};
use crate::trainer::Trainer;

/// Validation bytes of the final score and of a curve's point (ARCHITECTURE.md, section Counting).
const SCORED_BYTES: u64 = 256 << 10;
const CURVE_BYTES: u64 = 32 << 10;
/// The largest share of the budget that may be warmup, as the key has it.
const WARMUP_SHARE_MAX: f64 = 0.9;

/// The reference budget of each size: the geometric mean of the budgets that the sweep gives it, arms included.
#[derive(Debug)]
pub(crate) struct References(BTreeMap<Digest, Tokens>);

impl References {
    pub(crate) fn of(drafts: &[Draft<'_>]) -> Self {
        let mut budgets: BTreeMap<Digest, Vec<Tokens>> = BTreeMap::new();
        for draft in drafts {
            let budgets = budgets.entry(Digest::of_json(&draft.twin)).or_default();
            if !budgets.contains(&draft.tokens) {
                budgets.push(draft.tokens);
            }
        }
        let mean = |budgets: Vec<Tokens>| {
            let logarithms: f64 = budgets.iter().map(|tokens| tokens.as_f64().ln()).sum();
            // Three digits: a mean of logarithms must not carry platform bits into a run's id.
            let mean = (logarithms / budgets.len() as f64).exp();
            Tokens(four_digits(mean).max(1.0) as u64)
        };
        Self(budgets.into_iter().map(|(size, budgets)| (size, mean(budgets))).collect())
    }

    fn get(&self, draft: &Draft<'_>) -> Tokens {
        self.0.get(&Digest::of_json(&draft.twin)).copied().unwrap_or(draft.tokens)
    }
}

/// The run of a draft.
pub(crate) fn run(
    spec: &SweepSpec,
    draft: &Draft<'_>,
    references: &References,
    capabilities: &Capabilities,
    trainer: Option<&Trainer>,
) -> Result<Run, PlanError> {
    Ok(Run {
        identity_version: IDENTITY_VERSION,
        model: draft.model.clone(),
        data: data(spec, draft)?,
        train: train(spec, draft, references)?,
        numerics: match trainer {
            None => numerics(spec, draft, capabilities)?,
            Some(_) => foreign_numerics(spec, draft)?,
        },
        trainer: trainer.cloned(),
    })
}

fn data(spec: &SweepSpec, draft: &Draft<'_>) -> Result<Data, PlanError> {
    let (point, manifest) = (&draft.point, draft.manifest);
    let offered = manifest.train.tokens;
    let unique = point.count("tokens_unique");
    if let Some(unique) = unique.filter(|unique| *unique > offered.get()) {
        let message = format!("{unique} distinct tokens are more than the corpus has");
        let place = point.place_of("tokens_unique");
        return Err(spec.refuse(Refusal::Corpus, place, message).label(format!("expected at most {offered:?}")));
    }
    let bytes = |name: &str, usual: u64| point.count(name).unwrap_or(usual).min(manifest.validation.bytes);
    Ok(Data {
        corpus: manifest.digest,
        tokens_unique: unique.filter(|unique| *unique < offered.get()).map(Tokens),
        scored_bytes: bytes("scored_bytes", SCORED_BYTES),
        curve_bytes: bytes("curve_bytes", CURVE_BYTES),
    })
}

fn train(spec: &SweepSpec, draft: &Draft<'_>, references: &References) -> Result<Train, PlanError> {
    let point = &draft.point;
    let schedule = match point.get("schedule") {
        Some(Value::Schedule(schedule)) => *schedule,
        _ => ScheduleSpec::COSINE,
    };
    let reference = match (schedule, point.count("reference_tokens")) {
        (ScheduleSpec::Cosine { .. }, _) => draft.tokens,
        (ScheduleSpec::Wsd { .. }, Some(tokens)) => Tokens(tokens),
        (ScheduleSpec::Wsd { .. }, None) => references.get(draft),
    };
    // The twin's size, so that arms differ in nothing else.
    let recipe = Recipe::named(point.text("recipe"));
    let factor = |parameter| draft.factors.of(parameter);
    let batch = f64::from(point.small(spec, "batch")?.unwrap_or_else(|| recipe.batch(&draft.twin, reference)))
        * factor(HyperParameter::Batch);
    let batch = batch.round().clamp(1.0, f64::from(u32::MAX)) as u32;
    let step_tokens = u64::from(batch) * u64::from(draft.model.context);
    let learning_rate = point.number("learning_rate");
    let learning_rate = learning_rate.unwrap_or_else(|| recipe.learning_rate(&draft.twin, reference, batch));
    let steps = draft.tokens.get().div_ceil(step_tokens);
    let warmup = point.number("warmup").unwrap_or(recipe::WARMUP) * factor(HyperParameter::Warmup);
    let warmup = warmup.min(WARMUP_SHARE_MAX) * reference.as_f64() / step_tokens as f64;
    let warmup_steps = (warmup.round() as u64).min(recipe::WARMUP_STEPS_MAX);
    let schedule = match schedule {
        ScheduleSpec::Cosine { final_ratio } => Schedule::Cosine { final_ratio },
        ScheduleSpec::Wsd { decay } => Schedule::Wsd { decay_steps: ((steps as f64 * decay).round() as u64).max(1) },
    };
    if let Schedule::Wsd { decay_steps } = schedule
        && warmup_steps + decay_steps > steps
    {
        let message = format!("{steps} steps are too few for {warmup_steps} of warmup and {decay_steps} of decay");
        let place = point.place_of(point.budget_key(spec)?);
        let expected = "expected a larger budget, a smaller `reference_tokens`, or less `warmup`";
        return Err(spec.refuse(Refusal::Training, place, message).label(expected));
    }
    Ok(Train {
        batch,
        steps,
        learning_rate: tuned(learning_rate, factor(LearningRate)),
        warmup_steps,
        schedule,
        weight_decay: tuned(point.number("weight_decay").unwrap_or(recipe::WEIGHT_DECAY), factor(WeightDecay)),
        beta1: point.number("beta1").unwrap_or(recipe::BETA1),
        beta2: point.number("beta2").unwrap_or_else(|| Recipe::beta2(&draft.model, batch)),
        epsilon: point.number("epsilon").unwrap_or(recipe::EPSILON),
        clip: point.number("clip").unwrap_or(recipe::CLIP),
        seed: point.count("seed").unwrap_or(1),
    })
}

/// Rounded like the recipe's own numbers; what is not tuned stays as it was written.
fn tuned(value: f64, factor: f64) -> f64 {
    if factor == 1.0 { value } else { four_digits(value * factor) }
}

fn numerics(spec: &SweepSpec, draft: &Draft<'_>, capabilities: &Capabilities) -> Result<Numerics, PlanError> {
    let point = &draft.point;
    let precision = precision(draft);
    let wanted = match point.text("engine") {
        Some("cpu") => Some(EngineKind::Cpu),
        Some("cuda") => Some(EngineKind::Cuda),
        Some("reference") => Some(EngineKind::Reference),
        _ => None,
    };
    let moe = draft.model.experts.is_some();
    let able = |capability: &&Capability| {
        wanted.is_none_or(|engine| engine == capability.engine)
            && capability.precisions.contains(&precision)
            && (capability.moe || !moe)
    };
    let Some(capability) = capabilities.engines.iter().find(able) else {
        let name = point.text("engine").unwrap_or("auto");
        let family = if moe { "moe" } else { "dense" };
        let word = point.text("precision").unwrap_or("f32");
        let message = format!("no worker trains {family} models with engine \"{name}\" in {word}");
        let offered: Vec<&str> = capabilities.engines.iter().map(|capability| capability.engine.name()).collect();
        let key = if wanted.is_some() { "engine" } else { "precision" };
        let refused = spec.refuse(Refusal::Capability, point.place_of(key), message);
        return Err(refused.label(format!("engines here: {}", offered.join(", "))));
    };
    Ok(Numerics { engine: capability.engine, precision, version: capability.engine.numerics_version() })
}

fn precision(draft: &Draft<'_>) -> Precision {
    match draft.point.text("precision") {
        Some("bf16") => Precision::Bf16,
        _ => Precision::F32,
    }
}

/// For a foreign trainer the engine says only which kind of slot it gets.
fn foreign_numerics(spec: &SweepSpec, draft: &Draft<'_>) -> Result<Numerics, PlanError> {
    let engine = match draft.point.text("engine") {
        Some("cuda") => EngineKind::Cuda,
        Some("reference") => {
            let message = "a trainer of one's own does not use the engine \"reference\"";
            let refused = spec.refuse(Refusal::Capability, draft.point.place_of("engine"), message);
            return Err(refused.label("expected \"cuda\" for a GPU, \"cpu\" or nothing for cores"));
        }
        _ => EngineKind::Cpu,
    };
    Ok(Numerics { engine, precision: precision(draft), version: 0 })
}
