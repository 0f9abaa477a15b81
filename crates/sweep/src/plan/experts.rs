//! A mixture of experts from its dense twin: same width, layers and heads, and experts as wide as the match asks.
//! It does not choose tokens; the run takes its twin's.

use crate::model::{Experts, Model};
use crate::plan::ladder;

/// What the mixture shares with its dense twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// `params_active_non_embedding`.
    Active,
    /// `params_non_embedding`.
    Total,
    /// Exact FLOPs per token.
    Flops,
}

/// Relative distance from the twin that a match may have.
const NEAR: f64 = 0.02;
/// Widths on each side of the twin's that are tried when no expert width matches.
const DETOUR: u32 = 4;

impl Match {
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "total" => Self::Total,
            "flops" => Self::Flops,
            _ => Self::Active,
        }
    }

    fn measure(self, model: &Model) -> f64 {
        match self {
            Self::Active => model.param_counts().active_non_embedding.as_f64(),
            Self::Total => model.param_counts().non_embedding.as_f64(),
            Self::Flops => model.flop_terms().training(),
        }
    }
}

/// The mixture with these `experts`, whose `ff` is found so that it matches `twin` within 2 %. Where the twin's width
/// allows none and `free_width` holds, the nearest widths are tried.
pub(crate) fn matched(twin: &Model, experts: &Experts, by: Match, free_width: bool) -> Result<Model, String> {
    let goal = by.measure(twin);
    let mut nearest: Option<f64> = None;
    for width in widths(twin, free_width) {
        let shape =
            Model { width, heads: if width == twin.width { twin.heads } else { ladder::heads(width) }, ..twin.clone() };
        let Some(model) = widened(&shape, experts, by, goal) else {
            continue;
        };
        let error = (by.measure(&model) / goal - 1.0).abs();
        if error <= NEAR {
            return Ok(model);
        }
        nearest = Some(nearest.map_or(error, |least| least.min(error)));
    }
    let (count, top_k, width, ff) = (experts.count, experts.top_k, twin.width, twin.ff);
    Err(match nearest {
        Some(error) => format!(
            "{count} experts, top {top_k}, miss the dense twin (width {width}, ff {ff}) by {:.1} % at best",
            error * 100.0
        ),
        None => format!(
            "the router and shared expert of {count} experts alone outgrow the dense twin (width {width}, ff {ff})"
        ),
    })
}

fn widths(twin: &Model, free: bool) -> Vec<u32> {
    let step = ladder::grain(twin.width);
    let mut widths = vec![twin.width];
    if free {
        for away in 1..=DETOUR {
            widths.extend(twin.width.checked_sub(away * step).filter(|width| *width >= 16));
            widths.push(twin.width + away * step);
        }
    }
    widths
}

/// `shape` with experts of the width that comes nearest to `goal`: a multiple of 8 if one is within 2 %, else of 4, 2, 1.
fn widened(shape: &Model, experts: &Experts, by: Match, goal: f64) -> Option<Model> {
    let with = |ff: u32| Model { ff: 0, experts: Some(Experts { ff, ..experts.clone() }), ..shape.clone() };
    // Every measure is linear in the width of an expert.
    let (base, slope) = (by.measure(&with(0)), by.measure(&with(1)) - by.measure(&with(0)));
    let exact = (goal - base) / slope;
    if exact < 0.5 {
        return None;
    }
    let rounded = |grain: f64| (((exact / grain).round() * grain) as u32).max(1);
    let near = |ff: u32| (by.measure(&with(ff)) / goal - 1.0).abs() <= NEAR;
    let ff = [8.0, 4.0, 2.0].map(rounded).into_iter().find(|ff| near(*ff));
    Some(with(ff.unwrap_or_else(|| rounded(1.0))))
}
