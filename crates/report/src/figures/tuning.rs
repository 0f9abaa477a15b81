//! What a tuned hyper-parameter costs where it is wrong: loss over the best of each size and budget.

use std::collections::BTreeMap;

use isoloss_fit::tuning::{CellRecord, TuningRecord};
use isoloss_sweep::HyperParameter;

use super::slice::share;
use super::{Figure, Scene, bounds, frame};
use crate::lab::LabRun;
use crate::plot::{Axis, Paint, Plot, Shape, label_room, short_si};
use crate::table::digits;

/// Losses further above the best than this are not drawn: they would press the valleys flat.
const SHOWN: f64 = 0.15;
/// Budgets of one cell differ by less, as in the fit.
const SAME_BUDGET: f64 = 1.05;

pub(super) fn draw(scene: &Scene<'_>) -> Option<Figure> {
    let tuning = scene.lab.fit.as_ref()?.tuning.as_ref()?;
    let parameter = *tuning.over.first()?;
    let curves: Vec<(&CellRecord, Vec<Point<'_>>)> = tuning
        .cells
        .iter()
        .map(|cell| (cell, curve(scene, cell, parameter)))
        .filter(|(_, curve)| curve.len() > 1)
        .collect();
    let shown = || curves.iter().flat_map(|(_, curve)| curve).filter(|point| point.over <= SHOWN);
    let (low, high) = bounds(shown().map(|point| point.value));
    let worst = shown().map(|point| point.over).fold(0.02, f64::max);
    if curves.is_empty() || low.is_nan() || low <= 0.0 || high <= low {
        return None;
    }
    let x = Axis::log(low, high, words(parameter)).padded(0.06, 0.06);
    let y = Axis::linear(0.0, worst, "loss over the best of its size and budget").percents().padded(0.05, 0.08);
    let mut plot = Plot::new("tuning", frame(label_room(["\u{25cf} 999k params"].into_iter())), x, y);
    let tint = |cell: &CellRecord| Paint::Ramp(share(cell.params, curves.iter().map(|(cell, _)| cell.params)));
    for (cell, curve) in &curves {
        let line: Vec<(f64, f64)> = curve.iter().map(|point| (point.value, point.over)).collect();
        let seen: Vec<(f64, f64)> = line.into_iter().filter(|(_, over)| *over <= SHOWN).collect();
        plot.line(&seen, tint(cell), 1.6, "", Some(&cell.arm));
    }
    for (cell, curve) in &curves {
        for point in curve.iter().filter(|point| point.over <= SHOWN) {
            let best = point.over == 0.0;
            let (shape, size) = if best { (scene.shape(point.run), 4.8) } else { (Shape::Ring, 2.6) };
            plot.mark(point.value, point.over, shape, tint(cell), size, &scene.tip(point.run, point.loss));
        }
    }
    let right = plot.x_axis().high();
    let (small, large) = bounds(curves.iter().map(|(cell, _)| cell.params));
    if large > small {
        for (level, value, share) in [(0.9, large, 1.0), (0.8, small, 0.0)] {
            let word = format!("\u{25cf} {} params", short_si(value));
            plot.text((right, level * worst), (14.0, 4.0), "start", &word, Paint::Ramp(share));
        }
    }
    let height = frame(0.0).height;
    Some(Figure::new("tuning", question(parameter), answer(tuning, parameter), height, plot.finish()))
}

/// One value of the hyper-parameter in one cell, with the best of the other tuned ones.
struct Point<'a> {
    value: f64,
    over: f64,
    loss: f64,
    run: &'a LabRun,
}

fn curve<'a>(scene: &Scene<'a>, cell: &CellRecord, parameter: HyperParameter) -> Vec<Point<'a>> {
    let same = |run: &LabRun| {
        let budget = run.tokens().as_f64() / cell.tokens;
        // The recipe moves the rate with the batch: rates are compared at the best batch.
        let batch = cell.best.get(&HyperParameter::Batch).filter(|_| parameter == HyperParameter::LearningRate);
        let batch = batch.is_none_or(|batch| HyperParameter::Batch.of(&run.run.train) == *batch);
        batch && run.arm == cell.arm && run.size() == cell.params && (1.0 / SAME_BUDGET..SAME_BUDGET).contains(&budget)
    };
    let mut best: BTreeMap<u64, (&LabRun, f64)> = BTreeMap::new();
    for (run, loss) in scene.tried.iter().copied().filter(|(run, _)| same(run)) {
        let held = best.entry(parameter.of(&run.run.train).to_bits()).or_insert((run, loss));
        if loss < held.1 {
            *held = (run, loss);
        }
    }
    let least = best.values().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min);
    let point = |(bits, (run, loss))| Point { value: f64::from_bits(bits), over: loss / least - 1.0, loss, run };
    best.into_iter().map(point).collect()
}

fn words(parameter: HyperParameter) -> &'static str {
    match parameter {
        HyperParameter::LearningRate => "peak learning rate",
        HyperParameter::Batch => "sequences per step",
        HyperParameter::WeightDecay => "weight decay",
        HyperParameter::Warmup => "warmup, share of the steps",
    }
}

fn question(parameter: HyperParameter) -> &'static str {
    match parameter {
        HyperParameter::LearningRate => "Which learning rate is best?",
        HyperParameter::Batch => "Which batch is best?",
        HyperParameter::WeightDecay => "Which weight decay is best?",
        HyperParameter::Warmup => "Which warmup is best?",
    }
}

fn answer(tuning: &TuningRecord, parameter: HyperParameter) -> String {
    let mut sentences: Vec<String> = Vec::new();
    for response in tuning.responses.iter().filter(|response| response.parameter == parameter) {
        let arm = &response.arm;
        sentences.push(match &response.refused {
            Some(reason) => format!("{arm}: no rule is drawn from these runs: {reason}."),
            None => format!(
                "{arm}: the best is {parameter} = {}, its coefficient between {} and {}; twice or half that costs {:.2} %.",
                response.expression,
                digits(response.value_interval[0]),
                digits(response.value_interval[1]),
                100.0 * response.cost_of_two
            ),
        });
    }
    let edges = tuning.cells.iter().filter(|cell| cell.edges.contains(&parameter)).count();
    if edges > 0 {
        let cells = tuning.cells.len();
        sentences.push(format!("In {edges} of {cells} cells the best value is the last that was tried."));
    }
    let percent = 100.0 * SHOWN;
    sentences.push(format!(
        "Filled marks are the runs that the law is fitted to; losses over {percent:.0} % above are left out."
    ));
    sentences.join(" ")
}
