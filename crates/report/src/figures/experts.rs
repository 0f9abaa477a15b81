//! Dense against mixture of experts at equal active params: the same compute for a token, more weights to hold it.

use super::slice::{Held, NEAR, Slice, cut, fewest};
use super::{Figure, Scene, frame};
use crate::lab::LabRun;
use crate::plot::{Axis, Paint, Plot, Shape, label_room};

fn sparse(run: &LabRun) -> bool {
    run.run.model.experts.is_some()
}

fn total(run: &LabRun) -> f64 {
    run.params().non_embedding.as_f64()
}

pub(super) fn draw(scene: &Scene<'_>) -> Option<Figure> {
    if !scene.runs.iter().any(|(run, _)| sparse(run)) || scene.runs.iter().all(|(run, _)| sparse(run)) {
        return None;
    }
    let groups = groups(scene);
    let reach = scene.runs.iter().map(|(run, _)| total(run)).fold(0.0, f64::max);
    let low = scene.runs.iter().map(|(run, _)| run.size()).fold(f64::INFINITY, f64::min);
    let axis = Axis::log(low, reach, "active non-embedding params, thin line to total").counts().padded(0.05, 0.05);
    let mut plot = Plot::new("experts", frame(label_room(["true 0.000"].into_iter())), axis, scene.loss_axis());
    scene.draw_floor(&mut plot);
    for group in &groups {
        draw_group(scene, &mut plot, group);
    }
    for (run, loss) in groups.iter().flatten() {
        let paint = Paint::Arm(scene.lab.arm_index(&run.arm));
        if sparse(run) {
            plot.link((run.size(), *loss), (total(run), *loss), paint, 1.0, Some(&run.arm));
            plot.mark(total(run), *loss, Shape::Ring, paint, 2.6, &scene.tip(run, *loss));
        }
        plot.mark(run.size(), *loss, scene.shape(run), paint, 4.8, &scene.tip(run, *loss));
    }
    scene.draw_legend(&mut plot, Paint::Arm);
    Some(Figure::new("experts", "What do experts buy?", answer(scene), frame(0.0).height, plot.finish()))
}

/// Runs to be compared: expert runs of equal tokens (or tokens per parameter) and the dense runs that share them.
fn groups<'a>(scene: &Scene<'a>) -> Vec<Vec<(&'a LabRun, f64)>> {
    let experts: Vec<&LabRun> = scene.runs.iter().map(|(run, _)| *run).filter(|run| sparse(run)).collect();
    let (held, slices) = fewest(&experts, &[Held::Tokens, Held::TokensPerParam]);
    let near = |a: f64, b: f64| (a / b).ln().abs() < NEAR;
    let group = |slice: &Slice| scene.runs.iter().copied().filter(|(run, _)| near(held.of(run), slice.value)).collect();
    slices.iter().map(group).collect()
}

/// The best runs of each size, joined arm by arm.
fn draw_group(scene: &Scene<'_>, plot: &mut Plot, group: &[(&LabRun, f64)]) {
    for arm in &scene.lab.arms {
        let own: Vec<(&LabRun, f64)> = group.iter().copied().filter(|(run, _)| run.arm == *arm).collect();
        let runs: Vec<&LabRun> = own.iter().map(|(run, _)| *run).collect();
        let best = |slice: &Slice| slice.members.iter().map(|at| own[*at].1).fold(f64::INFINITY, f64::min);
        let line: Vec<(f64, f64)> = cut(&runs, Held::Params).iter().map(|slice| (slice.value, best(slice))).collect();
        plot.line(&line, Paint::Arm(scene.lab.arm_index(arm)), 1.8, "", Some(arm));
    }
}

/// Each expert run with the loss of the dense run of the same active params and tokens, where there is one.
fn pairs<'a>(scene: &Scene<'a>) -> Vec<(&'a LabRun, f64, f64)> {
    let dense: Vec<_> = scene.runs.iter().filter(|(run, _)| !sparse(run)).collect();
    let distance = |a: &LabRun, b: &LabRun| {
        let params = (a.size() / b.size()).ln().abs();
        params.max((a.tokens().as_f64() / b.tokens().as_f64()).ln().abs())
    };
    let twin = |run: &LabRun| {
        let near = dense.iter().map(|(twin, loss)| (distance(run, twin), *loss));
        near.min_by(|a, b| a.0.total_cmp(&b.0)).filter(|(gap, _)| *gap < 0.1).map(|(_, loss)| loss)
    };
    let experts = scene.runs.iter().filter(|(run, _)| sparse(run));
    experts.filter_map(|(run, loss)| Some((*run, *loss, twin(run)?))).collect()
}

fn answer(scene: &Scene<'_>) -> String {
    let drawn = "Lines join runs of equal tokens; rings mark total params.";
    let pairs = pairs(scene);
    if pairs.is_empty() {
        return format!("{drawn} No dense run has the same active params and tokens, so none is compared one to one.");
    }
    let count = pairs.len() as f64;
    let mean = pairs.iter().map(|(_, loss, dense)| dense - loss).sum::<f64>() / count;
    let weights = pairs.iter().map(|(run, ..)| total(run) / run.size()).sum::<f64>() / count;
    let direction = if mean >= 0.0 { "lower" } else { "higher" };
    format!(
        "At equal active params and tokens the mixtures' loss is {:.3} {} {direction} than their dense twins' (mean of \
         {count} pairs), for {weights:.1} times the weights. {drawn}",
        mean.abs(),
        scene.lab.unit_name()
    )
}
