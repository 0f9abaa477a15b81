//! The irreducible loss: what each law says with its interval, what the best runs reached, and where the truth is.

use super::{Figure, Scene, TOP, WIDTH, bounds};
use crate::plot::{Axis, Paint, Plot, Rect, Shape, Tip, label_room, text_width};

struct Row {
    name: String,
    value: f64,
    interval: Option<[f64; 2]>,
    paint: Paint,
    shape: Shape,
}

/// Between a mark or bar and its number.
const GAP: f64 = 11.0;
/// Height of a row.
const ROW: f64 = 34.0;

pub(super) fn draw(scene: &Scene<'_>) -> Option<Figure> {
    let rows = rows(scene)?;
    let (left, count) = (label_room(rows.iter().map(|row| row.name.as_str())), rows.len() as f64);
    let (low, high) = extent(scene, &rows);
    let axis = Axis::linear(low, high, scene.lab.unit_name()).padded(0.05, 0.06);
    let frame = Rect { x: left, y: TOP, width: WIDTH - left - 30.0, height: ROW * count };
    let mut plot = Plot::new("floor", frame, axis, Axis::linear(0.0, count, "").silent());
    if let Some(truth) = scene.truth {
        plot.line(&[(truth, 0.0), (truth, count)], Paint::Truth, 2.0, "", None);
        plot.text((truth, count), (0.0, -10.0), "middle", &format!("true entropy {truth:.3}"), Paint::Truth);
    }
    for (at, row) in rows.iter().rev().enumerate() {
        draw_row(&mut plot, row, at as f64 + 0.5, scene.truth);
    }
    let question = "What floor does the law see, and where is the truth?";
    Some(Figure::new("floor", question, answer(scene), frame.height, plot.finish()))
}

/// One row a law with a floor, one an arm with its best run.
fn rows(scene: &Scene<'_>) -> Option<Vec<Row>> {
    let fit = scene.lab.fit.as_ref()?;
    let mut rows = Vec::new();
    for law in &fit.laws {
        let Some(value) = law.parameters.get("E") else { continue };
        let chosen = fit.chosen.as_deref() == Some(law.name.as_str());
        let doubt = if law.identified { "" } else { ", not identified" };
        rows.push(Row {
            name: format!("E, {} law{}{doubt}", law.name, if chosen { " (chosen)" } else { "" }),
            value: *value,
            interval: law.intervals.get("E"),
            paint: if chosen { Paint::Ink } else { Paint::Muted },
            shape: if law.identified { Shape::Circle } else { Shape::Ring },
        });
    }
    if rows.is_empty() {
        return None;
    }
    for arm in &scene.lab.arms {
        let index = scene.lab.arm_index(arm);
        if let Some((_, loss)) = scene.lab.best(|run| run.arm == *arm) {
            let (name, shape) = (format!("best {arm} run"), Shape::of(index));
            rows.push(Row { name, value: loss, interval: None, paint: Paint::Arm(index), shape });
        }
    }
    Some(rows)
}

/// Intervals may run to zero; the axis shows no more of them than keeps the rest readable.
fn extent(scene: &Scene<'_>, rows: &[Row]) -> (f64, f64) {
    let (low, high) = bounds(rows.iter().map(|row| row.value).chain(scene.truth));
    let wide = bounds(rows.iter().filter_map(|row| row.interval).flatten());
    let room = (high - low).max(0.05 * high);
    (wide.0.min(low).max(low - 0.6 * room), wide.1.max(high).min(high + 0.4 * room))
}

fn draw_row(plot: &mut Plot, row: &Row, y: f64, truth: Option<f64>) {
    let (edge, end) = (plot.x_axis().low(), plot.x_axis().high());
    plot.text((edge, y), (-10.0, 4.5), "end", &row.name, row.paint);
    let mut text = format!("{}\n{:.4}", row.name, row.value);
    if let Some([low, high]) = row.interval {
        plot.link((low.max(edge), y), (high.min(end), y), row.paint, 3.0, None);
        text.push_str(&format!(" [{low:.4}, {high:.4}]"));
    }
    plot.mark(row.value, y, row.shape, row.paint, 5.5, &Tip { text, ..Tip::default() });
    let beside = row.interval.map_or(row.value, |[_, high]| high.min(end));
    let tight = plot.x_axis().at(beside) > 0.9;
    let word = format!("{:.3}", row.value);
    if tight {
        plot.text((beside, y), (-2.0, -9.0), "end", &word, row.paint);
        return;
    }
    // A number that the line of the truth would cross stands behind that line.
    let (start, width) = (plot.px(beside) + GAP, text_width(&word, 13.0));
    let crossed = truth.map(|truth| plot.px(truth)).filter(|px| (start - 4.0..start + width + 4.0).contains(px));
    let shift = crossed.map_or(GAP, |px| px + 7.0 - plot.px(beside));
    plot.text((beside, y), (shift, 4.5), "start", &word, row.paint);
}

fn answer(scene: &Scene<'_>) -> String {
    let Some((floor, interval)) = scene.floor() else {
        return "The chosen law has no floor.".to_owned();
    };
    let unit = scene.lab.unit_name();
    let range = interval.map(|[low, high]| format!(" [{low:.3}, {high:.3}]")).unwrap_or_default();
    let doubt = if scene.identified { "" } else { ", which the runs do not identify" };
    let seen = format!("The law extrapolates to an irreducible loss of {floor:.3}{range} {unit}{doubt}.");
    let Some(truth) = scene.truth else {
        return format!("{seen} The true entropy of this text is unknown.");
    };
    let inside = interval.is_some_and(|[low, high]| (low..=high).contains(&truth));
    let side = if inside { "inside" } else { "outside" };
    let off = truth - floor;
    format!("{seen} The true entropy of the scored bytes is {truth:.3}: {off:+.3} from it, {side} the interval.")
}
