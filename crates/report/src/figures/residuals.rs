//! How far each run lies from the law: the first place where a wrong law or an undertuned run shows.

use isoloss_fit::LawRecord;

use super::slice::{Held, share};
use super::{Figure, Scene, bounds, frame};
use crate::lab::LabRun;
use crate::plot::{Axis, Paint, Plot, label_room, short_si};

pub(super) fn draw(scene: &Scene<'_>) -> Option<Figure> {
    let law = scene.lab.fit.as_ref()?.chosen_law()?;
    let point = |id: &str, ratio: f64| scene.run(id).map(|(run, loss)| (run, loss, ratio));
    let points: Vec<(&LabRun, f64, f64)> =
        law.residuals.iter().filter_map(|residual| point(&residual.id, residual.ln_ratio.exp_m1())).collect();
    if points.len() < 2 {
        return None;
    }
    let rms = law.rms_relative_error;
    let worst = points.iter().map(|point| point.2.abs()).fold(rms, f64::max).max(1e-6);
    let (low, high) = bounds(points.iter().map(|(run, ..)| run.size()));
    let x = Axis::log(low, high, "non-embedding params, active").counts().padded(0.06, 0.06);
    let y = Axis::linear(-worst, worst, "observed over fitted loss").percents().padded(0.12, 0.12);
    let room = label_room(["\u{b1} rms 0.00 %", "9.99M tokens"].into_iter());
    let mut plot = Plot::new("residuals", frame(room), x, y);
    let (left, right) = (plot.x_axis().low(), plot.x_axis().high());
    plot.band(&[(left, -rms, rms), (right, -rms, rms)], Paint::Law, 0.10);
    plot.level(0.0, Paint::Law, "");
    plot.end_label(rms, &format!("\u{b1} rms {:.2} %", 100.0 * rms), Paint::Law, None);
    let tokens = |run: &LabRun| Held::Tokens.of(run);
    for (run, loss, ratio) in &points {
        let tint = Paint::Ramp(share(tokens(run), points.iter().map(|(run, ..)| tokens(run))));
        plot.mark(run.size(), *ratio, scene.shape(run), tint, 4.8, &scene.tip(run, *loss));
    }
    let (few, many) = bounds(points.iter().map(|(run, ..)| tokens(run)));
    if many > few {
        for (level, value, share) in [(-0.6, many, 1.0), (-0.8, few, 0.0)] {
            let word = format!("\u{25cf} {} tokens", short_si(value));
            plot.text((right, level * worst), (14.0, 4.0), "start", &word, Paint::Ramp(share));
        }
    }
    let height = frame(0.0).height;
    Some(Figure::new("residuals", "Where does the law miss?", answer(law, &points), height, plot.finish()))
}

fn answer(law: &LawRecord, points: &[(&LabRun, f64, f64)]) -> String {
    let rms = 100.0 * law.rms_relative_error;
    let first = format!("The {} law misses its {} runs by {rms:.2} % (rms).", law.name, points.len());
    let worst = points.iter().max_by(|a, b| a.2.abs().total_cmp(&b.2.abs()));
    let second = worst.map(|(run, _, ratio)| {
        let (size, tokens) = (short_si(run.size()), short_si(run.tokens().as_f64()));
        format!(" The worst is {:+.2} %, at {size} params and {tokens} tokens.", 100.0 * ratio)
    });
    let third = law.holdout.as_ref().map(|holdout| {
        format!(
            " Fitted without the {} ({} runs), it predicts them within {:.2} % on average.",
            holdout.rule,
            holdout.runs,
            100.0 * holdout.mean_relative_error
        )
    });
    [Some(first), second, third].into_iter().flatten().collect()
}
