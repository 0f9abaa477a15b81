//! Where the router of the best expert run sends tokens: one row a layer, one cell an expert.

use super::{Figure, Scene, TOP, WIDTH};
use crate::plot::{Axis, Paint, Plot, Rect};

/// Height of a row, and of all of them at most.
const ROW: f64 = 28.0;
const HEIGHT_MAX: f64 = 560.0;
/// Cells of more experts than this are too narrow for a number.
const NUMBERED: usize = 16;

pub(super) fn draw(scene: &Scene<'_>) -> Option<Figure> {
    let routed = scene.runs.iter().filter_map(|(run, loss)| Some((*run, *loss, run.finished()?.routing.as_ref()?)));
    let (run, loss, routing) = routed.min_by(|a, b| a.1.total_cmp(&b.1))?;
    let layers = routing.load.len() as f64;
    let experts = routing.load.iter().map(Vec::len).max().filter(|count| *count > 1)?;
    let frame = Rect { x: 80.0, y: TOP, width: WIDTH - 110.0, height: (ROW * layers).min(HEIGHT_MAX) };
    let x = Axis::linear(0.0, experts as f64, "experts, each layer's busiest first").silent();
    let mut plot = Plot::new("routing", frame, x, Axis::linear(0.0, layers, "").silent());
    let paint = Paint::Arm(scene.lab.arm_index(&run.arm));
    for (at, load) in routing.load.iter().enumerate() {
        let y = layers - at as f64 - 0.5;
        plot.text((0.0, y), (-10.0, 4.5), "end", &format!("layer {}", at + 1), Paint::Muted);
        draw_layer(&mut plot, load, y, paint);
    }
    let answer = format!(
        "Load over the even share, in the best run of {} ({loss:.3} {}): the busiest expert takes {:.2} times its share; \
         {:.0} % of experts take less than a tenth of theirs.",
        run.arm,
        scene.lab.unit_name(),
        routing.load_max_ratio,
        100.0 * routing.dead_fraction
    );
    Some(Figure::new("routing", "Does the router use its experts?", answer, frame.height, plot.finish()))
}

fn draw_layer(plot: &mut Plot, load: &[f64], y: f64, paint: Paint) {
    let mut sorted: Vec<f64> = load.iter().map(|share| share * load.len() as f64).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    for (expert, ratio) in sorted.iter().enumerate() {
        let x = expert as f64;
        // The even share is half dark.
        let opacity = (ratio / 2.0).clamp(0.04, 1.0);
        plot.band(&[(x + 0.03, y - 0.44, y + 0.44), (x + 0.97, y - 0.44, y + 0.44)], paint, opacity);
        if load.len() <= NUMBERED {
            plot.inner_text((x + 0.5, y), &format!("{ratio:.2}"), Paint::Ink);
        }
    }
}
