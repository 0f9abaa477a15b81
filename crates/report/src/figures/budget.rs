//! Loss against training FLOPs, and the frontier: the least loss the law allows for each budget.

use isoloss_fit::record::AllocationRecord;

use super::slice::{Held, cut, share};
use super::{Figure, Scene, bounds, frame};
use crate::lab::LabRun;
use crate::plot::{Axis, Paint, Place, Plot, Shape, Tip, label_room, power, short_si};

/// The axis follows the target budget at most this far beyond the dearest run.
const REACH: f64 = 100.0;

pub(super) fn draw(scene: &Scene<'_>) -> Option<Figure> {
    let (low, high) = bounds(scene.runs.iter().map(|(run, _)| run.flops().get()));
    if scene.runs.len() < 2 || high < low * 1.05 {
        return None;
    }
    let fitted = scene.fitted();
    let runs: Vec<&LabRun> = fitted.iter().map(|(run, _)| *run).collect();
    let slices = cut(&runs, Held::Params);
    let sizes: Vec<f64> = slices.iter().map(|slice| slice.value).collect();
    let words: Vec<String> = sizes.iter().map(|size| Held::Params.word(*size)).collect();
    let room = label_room(words.iter().map(String::as_str).chain(["true 0.000"]));
    let goal = scene.allocation();
    let far = goal.map_or(high, |goal| goal.flops.clamp(high, high * REACH));
    let axis = Axis::log(low, far, "training FLOPs").powers().padded(0.05, 0.08);
    let mut plot = Plot::new("loss-flops", frame(room), axis, scene.loss_axis());
    scene.draw_floor(&mut plot);
    let tint = |value: f64| Paint::Ramp(share(value, sizes.iter().copied()));
    for (slice, word) in slices.iter().zip(&words) {
        // The runs' own cost, so that the curve passes where they stand.
        let own = runs[slice.members[0]];
        let cost = own.flops().get() / own.tokens().as_f64();
        draw_size(scene, &mut plot, (slice.value, cost), word, tint(slice.value));
    }
    if goal.is_some() {
        draw_frontier(scene, &mut plot);
    }
    for (run, loss) in &scene.runs {
        plot.mark(run.flops().get(), *loss, scene.shape(run), tint(run.size()), 4.8, &scene.tip(run, *loss));
    }
    if let Some(goal) = goal.filter(|goal| goal.flops > high * 1.05 && goal.flops <= far) {
        draw_goal(&mut plot, goal);
    }
    scene.draw_legend(&mut plot, |_| Paint::Muted);
    let height = frame(0.0).height;
    Some(Figure::new("loss-flops", "What does a training budget buy?", answer(scene), height, plot.finish()))
}

/// One curve a size: training it longer moves right along it.
fn draw_size(scene: &Scene<'_>, plot: &mut Plot, (size, cost): (f64, f64), word: &str, paint: Paint) {
    let Some(law) = &scene.law else { return };
    let curve: Vec<(f64, f64)> =
        plot.x_axis().samples(160).map(|flops| (flops, law.loss(size, flops / cost))).collect();
    plot.line(&curve, paint, 1.2, "", None);
    if let Some((_, loss)) = curve.last() {
        plot.end_label(*loss, word, paint, None);
    }
}

fn draw_frontier(scene: &Scene<'_>, plot: &mut Plot) {
    let (Some(law), Some(ledger)) = (&scene.law, &scene.ledger) else {
        return;
    };
    let best = plot.x_axis().samples(60).filter_map(|flops| ledger.optimum(law, flops));
    let line: Vec<(f64, f64)> = best.map(|best| (best.flops, best.loss)).collect();
    plot.line(&line, Paint::Ink, 2.6, "", None);
    // Under the line there is nothing but mixtures of experts; the label stands where none of them does.
    let start = line.len() / 8;
    let places: Vec<Place> = line
        .iter()
        .skip(start)
        .take(line.len() / 2)
        .flat_map(|at| [(-8.0, 18.0), (-12.0, 30.0)].map(|shift| Place { at: *at, shift, before: true }))
        .collect();
    let marks: Vec<(f64, f64)> = scene.runs.iter().map(|(run, loss)| (run.flops().get(), *loss)).collect();
    plot.patch_text(&places, "frontier", Paint::Ink, &marks);
}

/// What the law promises at the target budget.
fn draw_goal(plot: &mut Plot, best: &AllocationRecord) {
    let flops = best.flops;
    let text = format!(
        "{} FLOPs\n{:.3} predicted\n{} params, {} tokens",
        power(flops),
        best.loss,
        short_si(best.params),
        short_si(best.tokens)
    );
    plot.mark(flops, best.loss, Shape::Ring, Paint::Ink, 5.5, &Tip { text, ..Tip::default() });
    plot.text((flops, best.loss), (0.0, 22.0), "middle", &format!("target {:.3}", best.loss), Paint::Ink);
}

fn answer(scene: &Scene<'_>) -> String {
    let Some(at) = scene.allocation() else {
        return "Each point is a run at its counted training FLOPs. The runs do not identify the best split of a budget \
                between size and data."
            .to_owned();
    };
    format!(
        "The thick line is the least loss the law allows for each budget. Along it params grow as C^{:.2} and tokens as \
         C^{:.2}: at {} FLOPs about {} params and {} tokens, {:.1} tokens per param (by {:.2} N D; the line counts each \
         size's own FLOPs).",
        at.a,
        at.b,
        power(at.flops),
        short_si(at.params),
        short_si(at.tokens),
        at.tokens_per_param,
        at.flops_per_param_token
    )
}
