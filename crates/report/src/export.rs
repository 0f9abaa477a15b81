//! Runs as tables for other programs: CSV with one row a run, JSON lines with one object a run. A missing value is
//! empty or absent, never zero.

use isoloss_fit::trade::{KindRecord, PlaceRecord, TradeRecord};
use isoloss_fit::{FitRecord, LawRecord};
use isoloss_sweep::HyperParameter;
use isoloss_sweep::outcome::GpuUse;
use serde::Serialize;

use crate::lab::{Lab, LabRun};

/// One run, flat, by the names that every other output uses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub run_id: String,
    pub arm: String,
    /// Runs of one trunk share a part of their training.
    pub trunk_id: Option<String>,
    pub state: String,
    pub attempts: Option<u64>,
    pub params_total: u64,
    pub params_non_embedding: u64,
    pub params_active: u64,
    pub params_active_non_embedding: u64,
    pub layers: u32,
    pub width: u32,
    pub context: u32,
    pub experts: Option<u32>,
    pub top_k: Option<u32>,
    pub tokens: u64,
    pub tokens_unique: Option<u64>,
    pub flops: f64,
    pub flops_6nd: f64,
    pub flops_spent: Option<f64>,
    pub batch: u32,
    pub steps: u64,
    pub learning_rate: f64,
    pub weight_decay: f64,
    /// Share of the steps in which the rate rises.
    pub warmup: f64,
    pub seed: u64,
    pub loss_nats: Option<f64>,
    pub bits_per_byte: Option<f64>,
    pub true_bits_per_byte: Option<f64>,
    pub fitted_loss: Option<f64>,
    pub load_max_ratio: Option<f64>,
    pub seconds: Option<f64>,
    pub tokens_per_second: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    pub gpu_memory_bytes: Option<u64>,
    /// GPU time, of which runs that share a GPU have a part each.
    pub gpu_seconds: Option<f64>,
    pub engine: String,
    /// Number format of the matrix products.
    pub precision: String,
    pub device: Option<String>,
    /// As the driver calls it, where that is known, with its UUID.
    pub gpu: Option<String>,
    /// Whether it went through NVIDIA's MPS.
    pub mps: Option<bool>,
    pub reason: Option<String>,
}

impl Row {
    pub fn of(lab: &Lab, run: &LabRun) -> Self {
        let (finished, score) = (run.finished(), run.score());
        let (model, train) = (&run.run.model, &run.run.train);
        // What an outcome counted is what its fit saw.
        let params = finished.map_or_else(|| run.params(), |finished| finished.params);
        let tokens = finished.map_or_else(|| run.tokens(), |finished| finished.tokens);
        let law = lab.law().filter(|_| lab.fitted(&run.arm));
        Self {
            run_id: run.run_id.to_string(),
            arm: run.arm.clone(),
            trunk_id: run.run.trunk_id().map(|trunk| trunk.to_string()),
            state: run.state.clone(),
            attempts: run.attempts,
            params_total: params.total.get(),
            params_non_embedding: params.non_embedding.get(),
            params_active: params.active.get(),
            params_active_non_embedding: params.active_non_embedding.get(),
            layers: model.layers,
            width: model.width,
            context: model.context,
            experts: model.experts.as_ref().map(|e| e.count),
            top_k: model.experts.as_ref().map(|e| e.top_k),
            tokens: tokens.get(),
            tokens_unique: finished.map(|f| f.tokens_unique.get()),
            flops: finished.map_or_else(|| run.flops(), |finished| finished.flops).get(),
            flops_6nd: model.flops_6nd(tokens).get(),
            flops_spent: finished.map(|f| f.flops_spent.get()),
            batch: train.batch,
            steps: train.steps,
            learning_rate: train.learning_rate,
            weight_decay: train.weight_decay,
            warmup: HyperParameter::Warmup.of(train),
            seed: train.seed,
            loss_nats: score.map(|s| s.loss_nats),
            bits_per_byte: score.map(|s| s.bits_per_byte),
            true_bits_per_byte: score.and_then(|s| s.true_bits_per_byte),
            fitted_loss: law.map(|law| law.loss(run.size(), run.tokens().as_f64())),
            load_max_ratio: finished.and_then(|f| f.routing.as_ref()).map(|r| r.load_max_ratio),
            seconds: finished.map(|f| f.cost.seconds),
            tokens_per_second: finished.map(|f| f.cost.tokens_per_second),
            peak_memory_bytes: finished.map(|f| f.cost.peak_memory_bytes),
            gpu_memory_bytes: finished.and_then(|f| f.cost.gpu_memory_bytes),
            gpu_seconds: run.gpu().and_then(|gpu| gpu.seconds),
            engine: run.run.numerics.engine.name().to_owned(),
            precision: run.run.numerics.precision.name().to_owned(),
            device: finished.map(|f| f.provenance.device.clone()),
            gpu: run.gpu().map(GpuUse::card),
            mps: run.gpu().map(|gpu| gpu.mps),
            reason: run.reason().map(str::to_owned),
        }
    }
}

fn rows(lab: &Lab) -> impl Iterator<Item = Row> + '_ {
    lab.runs.iter().map(|run| Row::of(lab, run))
}

/// One row a run under a header, in the order of the plan. `isoloss fit --csv` reads it back.
pub fn runs_csv(lab: &Lab) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows(lab) {
        writer.serialize(row).expect("a flat row of numbers and texts is CSV, and memory does not refuse a write");
    }
    let bytes = writer.into_inner().expect("memory does not refuse a flush");
    String::from_utf8(bytes).expect("the rows are UTF-8")
}

/// One JSON object a line and run; what is missing is absent.
pub fn runs_jsonl(lab: &Lab) -> String {
    let line = |row: Row| {
        let mut value = serde_json::to_value(row).expect("a flat row of numbers and texts is JSON");
        if let Some(object) = value.as_object_mut() {
            object.retain(|_, field| !field.is_null());
        }
        format!("{value}\n")
    };
    rows(lab).map(line).collect()
}

/// One number of a fit, flat. Params and tokens are those of the point that it holds for.
#[derive(Debug, Serialize)]
struct Quantity<'a> {
    law: &'a str,
    chosen: bool,
    identified: bool,
    quantity: &'a str,
    params: Option<f64>,
    tokens: Option<f64>,
    flops: Option<f64>,
    value: f64,
    low: Option<f64>,
    high: Option<f64>,
    level: f64,
}

/// The numbers of a fit, one a row: parameters of every law, then what the chosen law predicts and allocates.
pub fn law_csv(fit: &FitRecord) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in quantities(fit) {
        writer.serialize(row).expect("a flat row of numbers and texts is CSV, and memory does not refuse a write");
    }
    let bytes = writer.into_inner().expect("memory does not refuse a flush");
    String::from_utf8(bytes).expect("the rows are UTF-8")
}

fn quantities(fit: &FitRecord) -> Vec<Quantity<'_>> {
    let mut rows = Vec::new();
    for law in &fit.laws {
        let chosen = fit.chosen.as_deref() == Some(law.name.as_str());
        for (quantity, value) in crate::table::ordered(law) {
            rows.push(bare(law, chosen, quantity, value, law.intervals.get(quantity)));
        }
    }
    let Some(law) = fit.chosen_law() else {
        return rows;
    };
    for at in &fit.predictions {
        let row = bare(law, true, "loss", at.loss, Some(at.interval));
        rows.push(Quantity { params: Some(at.at.params), tokens: Some(at.at.tokens), ..row });
    }
    if let Some(at) = &fit.allocation {
        let identified = law.identified && at.identified;
        for (quantity, value, interval) in [
            ("optimal_params", at.params, Some(at.params_interval)),
            ("optimal_tokens", at.tokens, None),
            ("optimal_tokens_per_param", at.tokens_per_param, Some(at.tokens_per_param_interval)),
        ] {
            rows.push(Quantity { flops: Some(at.flops), identified, ..bare(law, true, quantity, value, interval) });
        }
        let used = at.served.iter().flat_map(|served| [("used_params", served.params), ("used_tokens", served.tokens)]);
        for (quantity, value) in used {
            rows.push(Quantity { flops: Some(at.flops), identified, ..bare(law, true, quantity, value, None) });
        }
    }
    if let Some(trade) = &fit.trade {
        rows.extend(kinds(law, trade));
    }
    rows
}

/// What the budget makes of every kind of model seen, and of the best one.
fn kinds<'a>(law: &'a LawRecord, trade: &TradeRecord) -> Vec<Quantity<'a>> {
    let row = |quantity, place: &PlaceRecord, value, interval| Quantity {
        flops: Some(trade.flops),
        params: Some(place.params_active),
        tokens: Some(place.tokens),
        identified: trade.identified,
        ..bare(law, true, quantity, value, interval)
    };
    let answers = [
        (trade.free(), "optimal_kind", "optimal_params_total"),
        (trade.answer().filter(|_| trade.bounds()), "bounded_kind", "bounded_params_total"),
    ];
    let best = answers.into_iter().filter_map(|(answer, kind, total)| Some((answer?, kind, total)));
    let best = best.flat_map(|((one, place), kind, total)| {
        [row(kind, place, one.value, None), row(total, place, place.params_total, None)]
    });
    let each = |kind: &KindRecord| {
        let loss = |name, place: &PlaceRecord| row(name, place, place.loss, Some(place.loss_interval));
        let alone = kind.alone.as_ref().map(|place| loss("kind_loss", place));
        alone.into_iter().chain(kind.bounded.as_ref().map(|place| loss("kind_loss_bounded", place))).collect::<Vec<_>>()
    };
    best.chain(trade.kinds.iter().flat_map(each)).collect()
}

fn bare<'a>(
    law: &'a LawRecord,
    chosen: bool,
    quantity: &'a str,
    value: f64,
    interval: Option<[f64; 2]>,
) -> Quantity<'a> {
    Quantity {
        law: &law.name,
        chosen,
        identified: law.identified,
        quantity,
        params: None,
        tokens: None,
        flops: None,
        value,
        low: interval.map(|[low, _]| low),
        high: interval.map(|[_, high]| high),
        level: law.intervals.level,
    }
}

/// The fit as `fit --json` prints it, or why there is none.
pub fn fit_json(lab: &Lab) -> String {
    let text = match &lab.fit {
        Some(fit) => serde_json::to_string_pretty(fit),
        None => serde_json::to_string_pretty(&serde_json::json!({
            "schema_version": isoloss_fit::record::SCHEMA_VERSION,
            "chosen": null,
            "reasons": lab.fit_refusal.iter().collect::<Vec<_>>(),
        })),
    };
    text.expect("a record of numbers and texts is JSON") + "\n"
}
