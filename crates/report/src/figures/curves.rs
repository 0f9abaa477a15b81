//! Training curves of every run, diverged ones too.

use isoloss_fit::LossUnit;
use isoloss_sweep::outcome::CurvePoint;

use super::slice::{Held, cut, share};
use super::{Figure, bounds, frame};
use crate::lab::{Lab, LabRun};
use crate::plot::{Axis, Paint, Plot, Shape, Tip, label_room};

pub(super) fn draw(lab: &Lab) -> Option<Figure> {
    let runs: Vec<&LabRun> = lab.runs.iter().filter(|run| points(lab, run).len() > 1).collect();
    if runs.is_empty() {
        return None;
    }
    let all: Vec<(f64, f64)> = runs.iter().flat_map(|run| points(lab, run)).collect();
    let (first, last) = bounds(all.iter().map(|point| point.0));
    let (low, high) = bounds(all.iter().map(|point| point.1).chain(lab.truth()));
    let x = Axis::log(first, last, "training tokens").counts().padded(0.02, 0.04);
    // A diverged run must not squeeze the others flat.
    let y = Axis::log(low, high.min(low * 8.0), lab.unit_name()).padded(0.05, 0.03);
    let sizes = cut(&runs, Held::Params);
    let words: Vec<String> = sizes.iter().map(|slice| Held::Params.word(slice.value)).collect();
    let room = label_room(words.iter().map(String::as_str).chain(["true 0.000"]));
    let mut plot = Plot::new("curves", frame(room), x, y);
    let tint = |run: &LabRun| Paint::Ramp(share(run.size(), sizes.iter().map(|slice| slice.value)));
    for run in &runs {
        draw_run(lab, &mut plot, run, tint(run));
    }
    for (slice, word) in sizes.iter().zip(&words) {
        let ends = slice.members.iter().filter_map(|at| points(lab, runs[*at]).last().copied());
        if let Some((_, loss)) = ends.max_by(|a, b| a.0.total_cmp(&b.0)) {
            plot.end_label(loss, word, tint(runs[slice.members[0]]), None);
        }
    }
    if let Some(truth) = lab.truth() {
        plot.level(truth, Paint::Truth, "");
        plot.end_label(truth, &format!("true {truth:.3}"), Paint::Truth, None);
    }
    Some(Figure::new("curves", "How did training go?", answer(lab), frame(0.0).height, plot.finish()))
}

/// A solid line for the first arm, dashed for the others, and a mark at its end.
fn draw_run(lab: &Lab, plot: &mut Plot, run: &LabRun, paint: Paint) {
    let line = points(lab, run);
    let index = lab.arm_index(&run.arm);
    plot.line(&line, paint, 1.4, if index == 0 { "" } else { "5 3" }, Some(&run.arm));
    let Some((tokens, loss)) = line.last() else { return };
    let ended = run.loss(lab.unit).map_or_else(|| run.state.clone(), |loss| format!("{loss:.4} {}", lab.unit_name()));
    let (id, size) = (run.run_id.short(), run.params().active_non_embedding);
    let text = format!("{} {id}\n{ended}\n{} tokens, {size} params", run.arm, run.tokens());
    let tip = Tip { run: Some(id), arm: Some(run.arm.clone()), text };
    plot.mark(*tokens, *loss, Shape::of(index), paint, 3.6, &tip);
}

fn points(lab: &Lab, run: &LabRun) -> Vec<(f64, f64)> {
    let loss = |point: &CurvePoint| match lab.unit {
        LossUnit::BitsPerByte => point.bits_per_byte,
        LossUnit::NatsPerToken => point.loss_nats,
    };
    let all = run.curve().iter().map(|point| (point.tokens.as_f64(), loss(point)));
    all.filter(|(tokens, loss)| *tokens > 0.0 && *loss > 0.0 && loss.is_finite()).collect()
}

fn answer(lab: &Lab) -> String {
    let count = |state: &str| lab.runs.iter().filter(|run| run.state == state).count();
    let mut text = format!(
        "Validation loss during training, on fewer bytes than the final score: {} runs finished",
        count("finished")
    );
    for word in ["diverged", "failed"] {
        let number = count(word);
        if number > 0 {
            text.push_str(&format!(", {number} {word}"));
        }
    }
    text.push_str(if lab.arms.len() > 1 { "; dashed are the arms after the first." } else { "." });
    text
}
