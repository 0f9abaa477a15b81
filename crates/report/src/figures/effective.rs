//! The effective dense size of each expert run: between what it computes with and what it holds.

use isoloss_fit::record::EffectiveSize;

use super::{Figure, Scene, TOP, WIDTH, bounds};
use crate::plot::{Axis, Paint, Plot, Rect, Shape, Tip, label_room, short_si};

/// Height of a row.
const ROW: f64 = 36.0;

struct Row<'a> {
    name: String,
    arm: usize,
    size: &'a EffectiveSize,
}

pub(super) fn draw(scene: &Scene<'_>) -> Option<Figure> {
    let fit = scene.lab.fit.as_ref()?;
    let row = |arm: &str, size| Row { name: name(scene, arm, size), arm: scene.lab.arm_index(arm), size };
    let rows: Vec<Row<'_>> =
        fit.experts.iter().flat_map(|experts| experts.effective.iter().map(|size| row(&experts.arm, size))).collect();
    if rows.is_empty() {
        return None;
    }
    let ends = |s: &EffectiveSize| [s.params_active, s.params_total, s.params_effective.unwrap_or(s.params_active)];
    let (low, high) = bounds(rows.iter().flat_map(|row| ends(row.size)));
    let (left, count) = (label_room(rows.iter().map(|row| row.name.as_str())), rows.len() as f64);
    let frame = Rect { x: left, y: TOP, width: WIDTH - left - 40.0, height: ROW * count };
    let axis = Axis::log(low, high, "non-embedding params").counts().padded(0.08, 0.10);
    let mut plot = Plot::new("effective", frame, axis, Axis::linear(0.0, count, "").silent());
    for (at, row) in rows.iter().rev().enumerate() {
        draw_row(&mut plot, row, at as f64 + 0.5);
    }
    plot.legend(&[
        (Shape::Circle, Paint::Muted, "active"),
        (Shape::Diamond, Paint::Arm(rows[0].arm), "acts like dense"),
        (Shape::Ring, Paint::Muted, "total"),
    ]);
    let question = "How large a dense model does each mixture equal?";
    Some(Figure::new("effective", question, answer(scene), frame.height, plot.finish()))
}

fn name(scene: &Scene<'_>, arm: &str, size: &EffectiveSize) -> String {
    let experts = scene.run(&size.id).and_then(|(run, _)| run.experts()).unwrap_or_else(|| arm.to_owned());
    format!("{experts}, {} tokens", short_si(size.tokens))
}

fn draw_row(plot: &mut Plot, row: &Row<'_>, y: f64) {
    let (size, paint) = (row.size, Paint::Arm(row.arm));
    let (edge, end) = (plot.x_axis().low(), plot.x_axis().high());
    plot.text((edge, y), (-10.0, 4.5), "end", &row.name, Paint::Ink);
    plot.link((size.params_active, y), (size.params_total, y), Paint::Grid, 2.0, None);
    if let Some([low, high]) = size.interval {
        let inside = |value: Option<f64>, open: f64| value.unwrap_or(open).clamp(edge, end);
        plot.link((inside(low, edge), y), (inside(high, end), y), paint, 4.0, None);
    }
    let tip =
        |what: &str, value: f64| Tip { text: format!("{}\n{what} {}", row.name, short_si(value)), ..Tip::default() };
    plot.mark(size.params_active, y, Shape::Circle, Paint::Muted, 4.6, &tip("active params", size.params_active));
    plot.mark(size.params_total, y, Shape::Ring, Paint::Muted, 4.6, &tip("total params", size.params_total));
    if let Some(effective) = size.params_effective {
        plot.mark(effective, y, Shape::Diamond, paint, 5.4, &tip("acts like a dense model of", effective));
        plot.text((effective, y), (0.0, -10.0), "middle", &short_si(effective), paint);
    }
}

fn answer(scene: &Scene<'_>) -> String {
    let arms = scene.lab.fit.iter().flat_map(|fit| &fit.experts);
    let said = arms.map(|experts| {
        let Some(gain) = experts.effective_over_active else {
            return format!("No dense size of the law reaches the losses of {}. ", experts.arm);
        };
        let range = experts.effective_over_active_interval;
        let range = range.map(|[low, high]| format!(" [{low:.2}, {high:.2}]")).unwrap_or_default();
        format!(
            "{} acts like a dense model of {gain:.2}{range} times its active params, at equal tokens. ",
            experts.arm
        )
    });
    let text: String = said.collect();
    let doubt = if scene.identified { "" } else { "The runs do not identify the dense law, so the sizes are rough. " };
    text + doubt + "Circles are the params used for a token, rings all that are stored, bars the intervals."
}
