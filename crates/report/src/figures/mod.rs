//! The figures: each asks one question of a sweep, draws the answer and says it in a sentence. Standalone SVG; the page
//! puts the same drawings into its own colours.

mod budget;
mod cloud;
mod codecs;
mod curves;
mod effective;
mod experts;
mod floor;
mod influence;
mod map;
mod residuals;
mod routing;
mod scene;
mod size;
mod slice;
mod tuning;

use crate::lab::Lab;
use crate::plot::{Rect, document};
use scene::Scene;

/// A drawing with its question and its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Name of the file, without `.svg`.
    pub name: &'static str,
    pub question: &'static str,
    /// The answer in a sentence or two.
    pub answer: String,
    pub svg: String,
}

/// Room around a frame: the y label and ticks left, the x label below.
const LEFT: f64 = 58.0;
const TOP: f64 = 36.0;
const BELOW: f64 = 50.0;
const WIDTH: f64 = 680.0;
const HEIGHT: f64 = 420.0;

impl Figure {
    /// `height` is the frame's; the labels around it are added.
    fn new(name: &'static str, question: &'static str, answer: String, height: f64, plot: String) -> Self {
        let svg = document(WIDTH, TOP + height + BELOW, &format!("{question} {answer}"), &[plot]);
        Self { name, question, answer, svg }
    }
}

/// The frame of a figure of the usual height whose end labels need `right` pixels.
fn frame(right: f64) -> Rect {
    Rect { x: LEFT, y: TOP, width: WIDTH - LEFT - right, height: HEIGHT - TOP - BELOW }
}

/// Every figure that the sweep has data for.
pub fn all(lab: &Lab) -> Vec<Figure> {
    let Some(scene) = Scene::of(lab) else {
        return [curves::draw(lab), cloud::draw(lab)].into_iter().flatten().collect();
    };
    let figures = [
        size::by_params(&scene),
        size::by_tokens(&scene),
        budget::draw(&scene),
        map::draw(&scene),
        floor::draw(&scene),
        codecs::draw(&scene),
        experts::draw(&scene),
        effective::draw(&scene),
        tuning::draw(&scene),
        residuals::draw(&scene),
        influence::by_run(&scene),
        influence::by_drop(&scene),
        cloud::draw(lab),
        curves::draw(lab),
        routing::draw(&scene),
    ];
    figures.into_iter().flatten().collect()
}

/// Least and greatest finite value.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|v| v.is_finite());
    finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}
