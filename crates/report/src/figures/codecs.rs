//! Bits per byte as a code length: models beside order-0, gzip and xz on the same validation text, and the true entropy.

use isoloss_fit::LossUnit;

use super::{Figure, Scene, TOP, WIDTH};
use crate::lab::LabRun;
use crate::plot::{Axis, Paint, Plot, Rect, Shape, Tip, label_room, short_si};

/// Height of a row.
const ROW: f64 = 32.0;

pub(super) fn draw(scene: &Scene<'_>) -> Option<Figure> {
    let baselines = scene.lab.manifests.first()?.baselines;
    let mut rows = vec![
        ("order-0 entropy".to_owned(), baselines.order0, Paint::Muted),
        ("gzip -9".to_owned(), baselines.gzip, Paint::Muted),
        ("xz -9e".to_owned(), baselines.xz, Paint::Muted),
    ];
    rows.retain(|row| row.1.is_finite() && row.1 > 0.0);
    for arm in &scene.lab.arms {
        let Some((run, bits)) = best(scene, arm) else { continue };
        let name = format!("{arm}, {} active params", short_si(run.size()));
        rows.push((name, bits, Paint::Arm(scene.lab.arm_index(arm))));
    }
    let (most, count) = (rows.iter().map(|row| row.1).fold(0.0, f64::max), rows.len() as f64);
    let left = label_room(rows.iter().map(|row| row.0.as_str()));
    let frame = Rect { x: left, y: TOP, width: WIDTH - left - 60.0, height: ROW * count };
    let (x, y) = (Axis::linear(0.0, most, "bits per byte of unseen text"), Axis::linear(0.0, count, "").silent());
    let mut plot = Plot::new("codecs", frame, x, y);
    let truth = scene.lab.runs.iter().find_map(|run| run.score()?.true_bits_per_byte);
    for (at, (name, bits, paint)) in rows.iter().rev().enumerate() {
        draw_row(&mut plot, name, *bits, *paint, at as f64 + 0.5);
    }
    if let Some(truth) = truth {
        plot.link((truth, 0.0), (truth, count), Paint::Truth, 2.0, None);
        plot.text((truth, count), (0.0, -10.0), "middle", &format!("true entropy {truth:.3}"), Paint::Truth);
    }
    let best = scene.runs.iter().filter_map(|(run, _)| run.loss(LossUnit::BitsPerByte)).fold(f64::INFINITY, f64::min);
    let answer = answer(best, baselines.gzip, baselines.xz, truth);
    Some(Figure::new("codecs", "How well do the models compress?", answer, frame.height, plot.finish()))
}

fn best<'a>(scene: &Scene<'a>, arm: &str) -> Option<(&'a LabRun, f64)> {
    let runs = scene.runs.iter().filter(|(run, _)| run.arm == arm);
    let scored = runs.filter_map(|(run, _)| Some((*run, run.loss(LossUnit::BitsPerByte)?)));
    scored.min_by(|a, b| a.1.total_cmp(&b.1))
}

fn draw_row(plot: &mut Plot, name: &str, bits: f64, paint: Paint, y: f64) {
    plot.band(&[(0.0, y - 0.32, y + 0.32), (bits, y - 0.32, y + 0.32)], paint, 0.9);
    plot.text((0.0, y), (-10.0, 4.5), "end", name, Paint::Ink);
    let tip = Tip { text: format!("{name}\n{bits:.4} bits per byte"), ..Tip::default() };
    plot.mark(bits, y, Shape::Circle, paint, 2.0, &tip);
    plot.text((bits, y), (9.0, 4.5), "start", &format!("{bits:.3}"), Paint::Ink);
}

fn answer(best: f64, gzip: f64, xz: f64, truth: Option<f64>) -> String {
    let against = |codec: f64, name: &str| {
        let saved = 100.0 * (1.0 - best / codec);
        if saved >= 0.0 {
            format!("{saved:.0} % fewer than {name}")
        } else {
            format!("{:.0} % more than {name}", -saved)
        }
    };
    let first = format!(
        "Cross-entropy is a code length: the best model needs {best:.3} bits for each byte it has not seen, {} and {}.",
        against(gzip, "gzip"),
        against(xz, "xz")
    );
    match truth {
        Some(truth) => {
            let left = best - truth;
            format!("{first} No code goes below the true entropy, {truth:.3} on average; {left:.3} is left to learn.")
        }
        None => first,
    }
}
