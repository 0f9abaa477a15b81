//! What the runs leave open: the law fitted to resamples of them, one parameter against another.

use isoloss_fit::LawRecord;
use isoloss_fit::draws::DrawsRecord;

use super::{Figure, LEFT, TOP, WIDTH};
use crate::lab::Lab;
use crate::plot::{Axis, Paint, Plot, Rect, Shape, Tip};
use crate::table::digits;

/// What is drawn against what, side by side.
const PANELS: [(&str, &str); 3] = [("alpha", "beta"), ("alpha", "E"), ("alpha", "A")];
const PANEL: f64 = 146.0;
const HEIGHT: f64 = 200.0;
/// Fewer draws than this show no shape.
const DRAWS_MIN: usize = 40;
/// Share of the draws that the region holds.
const INSIDE: f64 = 0.9;
/// Share of the draws that each axis shows: a few go far.
const SHOWN: f64 = 0.98;
const CORNERS: usize = 90;
const TICKS: usize = 4;
/// Parameters that move together as much as this are not known one by one.
const TOGETHER: f64 = 0.9;

pub(super) fn draw(lab: &Lab) -> Option<Figure> {
    let fit = lab.fit.as_ref()?;
    let (law, draws) = (fit.chosen_law()?, fit.draws.as_ref()?);
    let pairs: Vec<Pair> = PANELS.iter().filter_map(|names| Pair::of(law, draws, *names)).collect();
    let step = (WIDTH - LEFT - 10.0 - PANEL) / (PANELS.len() - 1) as f64;
    let panel = |(at, pair): (usize, &Pair)| pair.draw(at, LEFT + step * at as f64);
    let plots: String = pairs.iter().enumerate().map(panel).collect();
    let answer = answer(law, draws, &pairs)?;
    Some(Figure::new("cloud", "What do the runs leave open, and what moves together?", answer, HEIGHT, plots))
}

/// One parameter against another, each on its scale: A is drawn by its logarithm, as it is fitted.
struct Pair {
    names: [&'static str; 2],
    fitted: [f64; 2],
    /// In plain units.
    points: Vec<[f64; 2]>,
    region: Region,
}

fn inner(name: &str, value: f64) -> f64 {
    if name == "A" { value.ln() } else { value }
}

fn outer(name: &str, value: f64) -> f64 {
    if name == "A" { value.exp() } else { value }
}

impl Pair {
    /// `None` where the law lacks one, or the draws are few or all alike.
    fn of(law: &LawRecord, draws: &DrawsRecord, (x, y): (&'static str, &'static str)) -> Option<Self> {
        let names = [x, y];
        let fitted = [*law.parameters.get(x)?, *law.parameters.get(y)?];
        let points = draws.parameter(x)?.into_iter().zip(draws.parameter(y)?).map(|(x, y)| [x, y]);
        let seen = |point: &[f64; 2]| names.iter().zip(point).all(|(name, value)| inner(name, *value).is_finite());
        let points: Vec<[f64; 2]> = points.filter(seen).collect();
        if points.len() < DRAWS_MIN || !seen(&fitted) {
            return None;
        }
        let region = Region::of(points.iter().map(|point| [inner(x, point[0]), inner(y, point[1])]).collect())?;
        Some(Self { names, fitted, points, region })
    }

    fn axis(&self, at: usize) -> Axis {
        let mut values: Vec<f64> = self.points.iter().map(|point| point[at]).collect();
        values.sort_by(f64::total_cmp);
        let cut = ((1.0 - SHOWN) / 2.0 * values.len() as f64) as usize;
        let rim = self.region.rim().into_iter().map(|corner| outer(self.names[at], corner[at]));
        let far = [values[cut], values[values.len() - 1 - cut], self.fitted[at]];
        let (low, high) = super::bounds(rim.chain(far));
        let axis = match self.names[at] {
            "A" => Axis::log(low, high, "A"),
            name => Axis::linear(low, high, name),
        };
        let axis = axis.padded(0.05, 0.05);
        // As many ticks as have room for their words below the frame.
        let few = (2..=TICKS).rev().map(|wanted| axis.clone().ticked(wanted)).find(|axis| axis.ticks(0).len() <= TICKS);
        few.unwrap_or(axis)
    }

    fn draw(&self, at: usize, left: f64) -> String {
        let frame = Rect { x: left, y: TOP, width: PANEL, height: HEIGHT };
        let mut plot = Plot::new(&format!("cloud{at}"), frame, self.axis(0), self.axis(1));
        let plain = |[x, y]: [f64; 2]| (outer(self.names[0], x), outer(self.names[1], y));
        let points: Vec<(f64, f64)> = self.points.iter().map(|[x, y]| (*x, *y)).collect();
        plot.dots(&points, Paint::Arm(0), 3.2, 0.35);
        let rim: Vec<(f64, f64)> = self.region.rim().into_iter().map(plain).collect();
        plot.line(&rim, Paint::Law, 1.8, "", None);
        let [x, y] = self.fitted;
        let word = |at: usize| format!("{} = {}", self.names[at], digits(self.fitted[at]));
        let text = format!("fit of all runs\n{}, {}", word(0), word(1));
        plot.mark(x, y, Shape::Diamond, Paint::Ink, 5.0, &Tip { text, ..Tip::default() });
        plot.finish()
    }
}

/// The ellipse of the draws' covariance, of the size that holds so many of them.
struct Region {
    middle: [f64; 2],
    /// Standard deviations, and the correlation.
    spread: [f64; 2],
    correlation: f64,
    radius: f64,
}

impl Region {
    /// `None` where a parameter does not move.
    fn of(points: Vec<[f64; 2]>) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |of: &dyn Fn(&[f64; 2]) -> f64| points.iter().map(of).sum::<f64>() / count;
        let middle = [mean(&|p| p[0]), mean(&|p| p[1])];
        let square = |i: usize, j: usize| mean(&|p| (p[i] - middle[i]) * (p[j] - middle[j]));
        let spread = [square(0, 0).sqrt(), square(1, 1).sqrt()];
        let moves = |at: usize| spread[at] > 1e-9 * middle[at].abs().max(1e-9);
        if !moves(0) || !moves(1) {
            return None;
        }
        let correlation = (square(0, 1) / (spread[0] * spread[1])).clamp(-0.999_999, 0.999_999);
        let mut region = Self { middle, spread, correlation, radius: 1.0 };
        let mut far: Vec<f64> = points.iter().map(|point| region.distance(point)).collect();
        far.sort_by(f64::total_cmp);
        region.radius = far[((INSIDE * count).ceil() as usize).clamp(1, far.len()) - 1];
        Some(region)
    }

    /// Mahalanobis distance from the middle.
    fn distance(&self, point: &[f64; 2]) -> f64 {
        let [u, v] = [0, 1].map(|at| (point[at] - self.middle[at]) / self.spread[at]);
        let rho = self.correlation;
        ((u * u - 2.0 * rho * u * v + v * v) / (1.0 - rho * rho)).sqrt()
    }

    /// Corners of the ellipse, closed.
    fn rim(&self) -> Vec<[f64; 2]> {
        let corner = |at: usize| {
            let (sin, cos) = (std::f64::consts::TAU * at as f64 / CORNERS as f64).sin_cos();
            let (radius, rho) = (self.radius, self.correlation);
            let [u, v] = [radius * cos, radius * (rho * cos + (1.0 - rho * rho).sqrt() * sin)];
            [self.middle[0] + self.spread[0] * u, self.middle[1] + self.spread[1] * v]
        };
        (0..=CORNERS).map(corner).collect()
    }
}

/// `None` where nothing can be drawn.
fn answer(law: &LawRecord, draws: &DrawsRecord, pairs: &[Pair]) -> Option<String> {
    let first = pairs.first()?;
    let mut text = format!(
        "Each dot is the {} law fitted to one resample of the runs ({} of {} drawn), the line holds {:.0} % of them, the \
         diamond is the fit to all runs.",
        law.name,
        first.points.len(),
        draws.resamples,
        100.0 * INSIDE
    );
    let strongest = pairs.iter().max_by(|a, b| a.region.correlation.abs().total_cmp(&b.region.correlation.abs()))?;
    let (rho, [x, y]) = (strongest.region.correlation, strongest.names);
    if rho.abs() >= TOGETHER {
        let way = if rho > 0.0 { "rise together" } else { "move against each other" };
        text.push_str(&format!(" {x} and {y} {way} (correlation {rho:.2}): neither is known without the other."));
    }
    if law.inflation > 1.0 {
        text.push_str(&format!(
            " Printed intervals are {:.2} times as wide, by the errors of hold-out.",
            law.inflation
        ));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_holds_its_share_and_follows_the_correlation() {
        // A tilted grid: y = 2 x + a little.
        let points: Vec<[f64; 2]> =
            (0..400).map(|at| [f64::from(at % 20), 2.0 * f64::from(at % 20) + 0.3 * f64::from(at / 20)]).collect();
        let region = Region::of(points.clone()).unwrap();
        let inside = points.iter().filter(|point| region.distance(point) <= region.radius).count();
        assert!((360..=372).contains(&inside), "{inside}");
        assert!(region.correlation > 0.95);
        for corner in region.rim() {
            assert!((region.distance(&corner) - region.radius).abs() < 1e-9);
        }
        assert!(Region::of(points.iter().map(|point| [point[0], 3.0]).collect()).is_none());
    }
}
