//! A point with its shape and token budget: all that the recipe needs to know. It decides no hyper-parameter.

use crate::corpus::Manifest;
use crate::count::Tokens;
use crate::model::{Experts, Model};
use crate::plan::experts::{self, Match};
use crate::plan::ladder::Wanted;
use crate::plan::point::{Point, Stage};
use crate::plan::tune::Factors;
use crate::plan::{PlanError, Refusal, recipe};
use crate::spec::SweepSpec;

/// A sized point.
#[derive(Debug, Clone)]
pub(crate) struct Draft<'m> {
    pub(crate) point: Point,
    pub(crate) manifest: &'m Manifest,
    /// The dense model of the same size; the model itself where that is dense.
    pub(crate) twin: Model,
    pub(crate) model: Model,
    pub(crate) tokens: Tokens,
    /// What tuning multiplies the recipe's numbers by.
    pub(crate) factors: Factors,
}

/// Largest number of experts: above it routing statistics and kernels make no sense.
const EXPERTS_MAX: u32 = 4_096;

impl<'m> Draft<'m> {
    /// Sizes `point`; `None` when an exclude that speaks of counts takes it out.
    pub(crate) fn of(spec: &SweepSpec, mut point: Point, manifests: &'m [Manifest]) -> Result<Option<Self>, PlanError> {
        let corpus = point.corpus(spec)?;
        let manifest = manifests.iter().find(|manifest| manifest.spec == corpus).ok_or_else(|| {
            let place = point.place_of("source");
            spec.refuse(Refusal::Corpus, place, "this corpus was not surveyed")
        })?;
        let context = point.context(spec)?;
        if context > manifest.context {
            let message = format!("the corpus was surveyed for contexts up to {}", manifest.context);
            let refused = spec.refuse(Refusal::Corpus, point.place_of("context"), message);
            return Err(refused.label("its split has too narrow gaps for this one"));
        }
        let twin = twin(spec, &point, manifest.vocab)?;
        point.derive(spec, Stage::Twin, &|word| count_word(&twin, word))?;
        let model = if is_moe(&point) { mixture(spec, &point, &twin)? } else { twin.clone() };
        let tokens = budget(spec, &point, &twin, &model)?;
        let words = |model: &Model, word: &str| match word {
            "tokens" => Some(tokens.as_f64()),
            "flops" => Some(model.training_flops(tokens).get()),
            _ => count_word(model, word),
        };
        point.derive(spec, Stage::Budget, &|word| words(&twin, word))?;
        point.check_derived(spec)?;
        if point.excluded(spec, &|word| words(&model, word))? {
            return Ok(None);
        }
        Ok(Some(Self { point, manifest, twin, model, tokens, factors: Factors::default() }))
    }
}

fn count_word(model: &Model, word: &str) -> Option<f64> {
    let counts = model.param_counts();
    match word {
        "params_total" => Some(counts.total.as_f64()),
        "params_non_embedding" => Some(counts.non_embedding.as_f64()),
        "params_active" => Some(counts.active.as_f64()),
        "params_active_non_embedding" => Some(counts.active_non_embedding.as_f64()),
        "width" => Some(f64::from(model.width)),
        "layers" => Some(f64::from(model.layers)),
        "heads" => Some(f64::from(model.heads)),
        "flops_per_token" => Some(model.flop_terms().training()),
        _ => None,
    }
}

fn is_moe(point: &Point) -> bool {
    match point.text("family") {
        Some(family) => family == "moe",
        None => point.get("experts").is_some(),
    }
}

fn twin(spec: &SweepSpec, point: &Point, vocab: u32) -> Result<Model, PlanError> {
    let wanted = Wanted {
        params: point.count("params"),
        width: point.small(spec, "width")?,
        layers: point.small(spec, "layers")?,
        heads: point.small(spec, "heads")?,
        ff: point.small(spec, "ff")?,
        context: point.context(spec)?,
        vocab,
        tied: matches!(point.get("tied"), Some(crate::spec::Value::Flag(true))),
    };
    wanted.dense().map_err(|reason| {
        let blamed = ["params", "width", "layers", "heads"].into_iter().find(|name| point.get(name).is_some());
        let place = blamed.map_or(point.place, |name| point.place_of(name));
        spec.refuse(Refusal::Shape, place, format!("no model for arm `{}`", point.arm)).label(reason)
    })
}

fn mixture(spec: &SweepSpec, point: &Point, twin: &Model) -> Result<Model, PlanError> {
    let Some(count) = point.small(spec, "experts")? else {
        let message = format!("arm `{}` is a mixture without experts", point.arm);
        return Err(spec.refuse(Refusal::Experts, point.place_of("family"), message).label("expected `experts = 8`"));
    };
    let top_k = point.small(spec, "top_k")?.unwrap_or(2);
    if top_k > count {
        let message = format!("top_k = {top_k} is over experts = {count} in arm `{}`", point.arm);
        return Err(spec
            .refuse(Refusal::Experts, point.place_of("top_k"), message)
            .label(format!("expected at most {count}")));
    }
    let granularity = point.small(spec, "granularity")?.unwrap_or(1);
    let too_many = || {
        let message = format!("more than {EXPERTS_MAX} experts a layer");
        spec.refuse(Refusal::Experts, point.place_of("experts"), message).label("expected fewer, granularity counted")
    };
    let count = count.checked_mul(granularity).filter(|count| *count <= EXPERTS_MAX).ok_or_else(too_many)?;
    let experts = Experts {
        count,
        top_k: top_k * granularity,
        ff: point.small(spec, "expert_ff")?.unwrap_or(0),
        shared_ff: point.small(spec, "shared_ff")?.unwrap_or(0),
        aux_loss_coef: point.number("aux_loss_coef").unwrap_or(recipe::AUX_LOSS_COEF),
        router_z_loss_coef: point.number("router_z_loss_coef").unwrap_or(recipe::ROUTER_Z_LOSS_COEF),
        bias_update: point.number("bias_update").unwrap_or(0.0),
        capacity_factor: point.number("capacity_factor"),
    };
    if experts.ff > 0 {
        return Ok(Model { ff: 0, experts: Some(experts), ..twin.clone() });
    }
    let free_width = point.get("width").is_none() && point.get("heads").is_none();
    let by = Match::named(point.text("match").unwrap_or("active"));
    experts::matched(twin, &experts, by, free_width).map_err(|reason| {
        let message = format!("no experts match the dense twin in arm `{}`", point.arm);
        spec.refuse(Refusal::Experts, point.place_of("experts"), message).label(reason)
    })
}

/// Tokens asked for, before they become whole steps. A mixture takes its twin's, unless its experts' width is set by
/// hand: then it has no twin in cost.
fn budget(spec: &SweepSpec, point: &Point, twin: &Model, model: &Model) -> Result<Tokens, PlanError> {
    let key = point.budget_key(spec)?;
    let tokens = match key {
        "tokens" => point.count(key).unwrap_or(0) as f64,
        "tokens_per_param" => point.number(key).unwrap_or(0.0) * twin.param_counts().non_embedding.as_f64(),
        _ => {
            let priced = if point.get("expert_ff").is_some() { model } else { twin };
            point.number(key).unwrap_or(0.0) / priced.flop_terms().training()
        }
    };
    // 2^53: beyond it tokens are no longer exact, and no machine trains them.
    if (1.0..9e15).contains(&tokens.round()) {
        return Ok(Tokens(tokens.round() as u64));
    }
    let message = format!("`{key}` gives {tokens:.3} tokens in arm `{}`", point.arm);
    Err(spec
        .refuse(Refusal::Training, point.place_of(key), message)
        .label("expected at least one token, and under 9e15"))
}
