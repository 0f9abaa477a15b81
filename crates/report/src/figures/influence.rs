//! How far the optimal split rests on single runs and on the cheapest ones.

use isoloss_fit::influence::{InfluenceRecord, LeftOut};
use isoloss_fit::record::AllocationRecord;
use isoloss_sweep::count::si;

use super::{Figure, Scene, TOP, WIDTH, bounds, frame};
use crate::plot::{Axis, Paint, Plot, Rect, Shape, Tip, label_room, power, short_si};

/// Height of a row.
const ROW: f64 = 30.0;
/// A run that moves the split by less than this is not worth a sentence.
const MOVED: f64 = 1.05;

/// Tokens per param without each of the runs that move it most.
pub(super) fn by_run(scene: &Scene<'_>) -> Option<Figure> {
    let (influence, at) = parts(scene)?;
    let all = influence.all.tokens_per_param?;
    let mut rows: Vec<(&LeftOut, f64)> =
        influence.worst.iter().filter_map(|run| Some((run, all * run.tokens_per_param_ratio?))).collect();
    if rows.len() < 2 {
        return None;
    }
    // The record's order weighs E too, which this figure does not show.
    rows.sort_by(|a, b| (b.1 / all).ln().abs().total_cmp(&(a.1 / all).ln().abs()));
    let [low, high] = at.tokens_per_param_interval;
    let (least, most) = bounds(rows.iter().map(|(_, ratio)| *ratio).chain([low, high, all]));
    let names: Vec<String> = rows
        .iter()
        .map(|(run, _)| format!("{} params, {} tokens", short_si(run.params), short_si(run.tokens)))
        .collect();
    let (left, count) = (label_room(names.iter().map(String::as_str)), rows.len() as f64);
    let frame = Rect { x: left, y: TOP, width: WIDTH - left - 60.0, height: ROW * count };
    let label = format!("optimal tokens per param at {} FLOPs, without this run", power(at.flops));
    let (x, y) = (Axis::log(least, most, &label).padded(0.12, 0.12), Axis::linear(0.0, count, "").silent());
    let mut plot = Plot::new("left-out", frame, x, y);
    plot.band(&[(low, 0.0, count), (high, 0.0, count)], Paint::Law, 0.10);
    plot.line(&[(all, 0.0), (all, count)], Paint::Law, 1.6, "", None);
    plot.text((all, count), (0.0, -10.0), "middle", &format!("all runs {}", si(all)), Paint::Law);
    for (place, ((run, ratio), name)) in rows.iter().zip(&names).rev().enumerate() {
        draw_row(scene, &mut plot, run, (all, *ratio), name, place as f64 + 0.5);
    }
    let answer = answer(influence, at, rows[0]);
    Some(Figure::new("left-out", "Which runs carry the law?", answer, frame.height, plot.finish()))
}

fn parts<'a>(scene: &Scene<'a>) -> Option<(&'a InfluenceRecord, &'a AllocationRecord)> {
    let influence = scene.lab.fit.as_ref()?.diagnosis.as_ref()?.influence.as_ref()?;
    Some((influence, scene.allocation()?))
}

fn draw_row(scene: &Scene<'_>, plot: &mut Plot, run: &LeftOut, (all, ratio): (f64, f64), name: &str, y: f64) {
    let known = scene.run(&run.id);
    let arm = known.map_or(0, |(run, _)| scene.lab.arm_index(&run.arm));
    let tip = known.map_or_else(|| Tip { text: run.name(), ..Tip::default() }, |(run, loss)| scene.tip(run, loss));
    let left = plot.x_axis().low();
    plot.text((left, y), (-10.0, 4.5), "end", name, Paint::Ink);
    plot.line(&[(all, y), (ratio, y)], Paint::Arm(arm), 2.6, "", None);
    plot.mark(ratio, y, Shape::of(arm), Paint::Arm(arm), 4.8, &tip);
    let (shift, anchor) = if ratio < all { (-9.0, "end") } else { (9.0, "start") };
    plot.text((ratio, y), (shift, 4.5), anchor, &si(ratio), Paint::Ink);
}

fn answer(influence: &InfluenceRecord, at: &AllocationRecord, (worst, ratio): (&LeftOut, f64)) -> String {
    let [low, high] = at.tokens_per_param_interval;
    let factor = ratio.max(at.tokens_per_param) / ratio.min(at.tokens_per_param);
    let first = if factor < MOVED {
        format!("No single run moves the best split by {:.0} %.", 100.0 * (MOVED - 1.0))
    } else {
        format!(
            "Without the run of {} params and {} tokens alone the best split moves from {} to {} tokens per param.",
            short_si(worst.params),
            short_si(worst.tokens),
            si(at.tokens_per_param),
            si(ratio)
        )
    };
    let second = match influence.heavy {
        0 => String::new(),
        1 => " It moves the split by more than half: see whether it went right.".to_owned(),
        more => format!(" {more} runs move it by more than half: see whether they went right."),
    };
    let percent = 100.0 * at.level;
    format!("{first}{second} The shade is the {percent:.0} % interval, {} to {}.", si(low), si(high))
}

/// Tokens per param as the cheapest runs are left out.
pub(super) fn by_drop(scene: &Scene<'_>) -> Option<Figure> {
    let (influence, at) = parts(scene)?;
    let all = influence.all.tokens_per_param?;
    let dropped = influence.dropped.iter().filter_map(|d| Some((d.runs as f64, d.law.tokens_per_param?)));
    let curve: Vec<(f64, f64)> = std::iter::once((0.0, all)).chain(dropped).collect();
    let (runs, end) = *curve.last()?;
    if curve.len() < 3 {
        return None;
    }
    let [low, high] = at.tokens_per_param_interval;
    let (least, most) = bounds(curve.iter().map(|(_, ratio)| *ratio).chain([low, high]));
    let label = format!("optimal tokens per param at {} FLOPs", power(at.flops));
    let (x, y) = (Axis::linear(0.0, runs, "cheapest runs left out"), Axis::log(least, most, &label));
    let (x, y) = (x.padded(0.04, 0.04), y.padded(0.08, 0.08));
    let word = format!("all runs {}", si(all));
    let mut plot = Plot::new("dropped", frame(label_room([word.as_str()].into_iter())), x, y);
    let (left, right) = (plot.x_axis().low(), plot.x_axis().high());
    plot.band(&[(left, low, high), (right, low, high)], Paint::Law, 0.10);
    plot.level(all, Paint::Law, "7 4");
    plot.end_label(all, &word, Paint::Law, None);
    plot.line(&curve, Paint::Arm(0), 2.2, "", None);
    for (runs, ratio) in &curve {
        let text = format!("without the {runs:.0} cheapest runs\n{} tokens per param", si(*ratio));
        plot.mark(*runs, *ratio, Shape::Circle, Paint::Arm(0), 4.2, &Tip { text, ..Tip::default() });
    }
    let place = if (low..=high).contains(&end) { "inside" } else { "outside" };
    let answer = format!(
        "Without the {runs:.0} cheapest runs the best split is {} tokens per param instead of {}, {place} the interval of all \
         runs (shade). A curve that goes one way says that small runs follow another law than large ones.",
        si(end),
        si(all)
    );
    let question = "Do the small runs pull the law?";
    Some(Figure::new("dropped", question, answer, frame(0.0).height, plot.finish()))
}
