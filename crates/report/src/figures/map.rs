//! The iso-loss map: contours of equal loss over size and data, the runs on them and the compute-optimal path.

use isoloss_fit::ScalingLaw;
use isoloss_fit::record::AllocationRecord;

use super::{Figure, Scene, bounds, frame};
use crate::plot::{Axis, Paint, Place, Plot, Shape, Tip, label_room, power, short_si};

/// The map follows the target at most this far beyond the runs.
const REACH: f64 = 30.0;

pub(super) fn draw(scene: &Scene<'_>) -> Option<Figure> {
    let law = scene.law.as_ref()?;
    law.exponents()?;
    // A law that the runs do not pin down would draw contours all the same.
    let goal = Some(scene.allocation()?);
    let mut n = bounds(scene.runs.iter().map(|(run, _)| run.size()));
    let mut d = bounds(scene.runs.iter().map(|(run, _)| run.tokens().as_f64()));
    let goal = goal.filter(|goal| goal.params < n.1 * REACH && goal.tokens < d.1 * REACH);
    if let Some(goal) = goal {
        n = (n.0.min(goal.params), n.1.max(goal.params));
        d = (d.0.min(goal.tokens), d.1.max(goal.tokens));
    }
    let x = Axis::log(n.0, n.1, "non-embedding params, active").counts().padded(0.1, 0.1);
    let y = Axis::log(d.0, d.1, "training tokens").counts().padded(0.1, 0.1);
    let range = (law.loss(x.high(), y.high()), law.loss(x.low(), y.low()));
    let mut plot = Plot::new("isoloss", frame(label_room(["compute-optimal"].into_iter())), x, y);
    draw_contours(&mut plot, law, range);
    draw_path(scene, &mut plot, law);
    for (run, loss) in &scene.runs {
        let paint = tint(*loss, range);
        plot.mark(run.size(), run.tokens().as_f64(), scene.shape(run), paint, 4.8, &scene.tip(run, *loss));
    }
    if let Some(goal) = goal {
        draw_goal(&mut plot, goal);
    }
    scene.draw_legend(&mut plot, |_| Paint::Muted);
    let answer = format!(
        "Along a contour more data stands in for more size. The thick line is the best split of each budget; marks are \
         runs, coloured like the contours by their loss in {}.",
        scene.lab.unit_name()
    );
    let question = "Which sizes and budgets reach the same loss?";
    Some(Figure::new("isoloss", question, answer, frame(0.0).height, plot.finish()))
}

fn tint(loss: f64, (best, worst): (f64, f64)) -> Paint {
    Paint::Ramp(((worst - loss) / (worst - best)).clamp(0.0, 1.0))
}

/// About eight round levels, closer together where the loss changes little.
fn levels((best, worst): (f64, f64)) -> Vec<f64> {
    let digits = 10_f64.powf(((worst - best) / 40.0).log10().floor());
    let raw = (1..=8).map(|i| best + (worst - best) * (f64::from(i) / 9.0).powf(1.6));
    let mut levels: Vec<f64> = raw.map(|level| (level / digits).round() * digits).collect();
    levels.dedup();
    levels
}

/// The loss falls in tokens, so that each size has at most one budget for a level: bisection in ln tokens.
fn tokens_for(law: &ScalingLaw, params: f64, loss: f64, axis: &Axis) -> Option<f64> {
    let (mut low, mut high) = (axis.low().ln() - 0.05, axis.high().ln() + 0.05);
    if law.loss(params, low.exp()) < loss || law.loss(params, high.exp()) > loss {
        return None;
    }
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if law.loss(params, middle.exp()) > loss {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some((0.5 * (low + high)).exp())
}

fn draw_contours(plot: &mut Plot, law: &ScalingLaw, range: (f64, f64)) {
    for level in levels(range) {
        let sizes: Vec<f64> = plot.x_axis().samples(240).collect();
        let at = |n: f64| tokens_for(law, n, level, plot.y_axis()).map(|d| (n, d));
        let line: Vec<(f64, f64)> = sizes.into_iter().filter_map(at).collect();
        let Some(end) = line.last().copied() else { continue };
        let paint = tint(level, range);
        plot.line(&line, paint, 1.8, "", None);
        let word = format!("{level:.3}").trim_end_matches('0').trim_end_matches('.').to_owned();
        if plot.x_axis().at(end.0) > 0.99 {
            plot.end_label(end.1, &word, paint, None);
        } else {
            plot.text((end.0, plot.y_axis().low()), (4.0, -6.0), "start", &word, paint);
        }
    }
}

fn draw_path(scene: &Scene<'_>, plot: &mut Plot, law: &ScalingLaw) {
    // By the factor of the stored allocation, so that the target lies on the path.
    let Some(at) = scene.allocation() else { return };
    let factor = at.flops_per_param_token;
    let (x, y) = (plot.x_axis(), plot.y_axis());
    let budgets = Axis::log(factor * x.low() * y.low(), factor * x.high() * y.high(), "");
    let inside = |n: f64, d: f64| (0.0..=1.0).contains(&x.at(n)) && (0.0..=1.0).contains(&y.at(d));
    let best = budgets.samples(160).filter_map(|flops| law.allocate(flops, factor));
    let path: Vec<(f64, f64)> = best.filter(|(n, d)| inside(*n, *d)).collect();
    let Some(end) = path.last().copied() else { return };
    plot.line(&path, Paint::Ink, 2.6, "", None);
    if plot.x_axis().at(end.0) > 0.95 {
        plot.end_label(end.1, "compute-optimal", Paint::Ink, None);
        return;
    }
    let sides = [((-12.0, -2.0), true), ((12.0, 12.0), false)];
    let beside = |at: &(f64, f64)| sides.map(|(shift, before)| Place { at: *at, shift, before });
    let places: Vec<Place> = path.iter().rev().skip(2).flat_map(beside).collect();
    let mut marks: Vec<(f64, f64)> = scene.runs.iter().map(|(run, _)| (run.size(), run.tokens().as_f64())).collect();
    // The target's bar is avoided at its ends and between them.
    let [low, high] = at.params_interval;
    marks.extend((0..=8).map(|i| (low * (high / low).powf(f64::from(i) / 8.0), at.tokens)));
    plot.patch_text(&places, "compute-optimal", Paint::Ink, &marks);
}

/// The target of the sweep, with the interval of its size.
fn draw_goal(plot: &mut Plot, goal: &AllocationRecord) {
    let [low, high] = goal.params_interval.map(|end| end.clamp(plot.x_axis().low(), plot.x_axis().high()));
    let (flops, params, tokens) = (power(goal.flops), short_si(goal.params), short_si(goal.tokens));
    let text = format!("{flops} FLOPs\n{params} params, {tokens} tokens\nloss {:.3}", goal.loss);
    plot.link((low, goal.tokens), (high, goal.tokens), Paint::Ink, 1.4, None);
    plot.mark(goal.params, goal.tokens, Shape::Ring, Paint::Ink, 5.5, &Tip { text, ..Tip::default() });
}
