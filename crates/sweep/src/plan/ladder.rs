//! From a size to a shape: the ladder. It knows nothing of tokens or experts.
//!
//! The rule: of all shapes whose realised `params_non_embedding` is within 10 % of the target, take the one with the
//! least cost, a sum of squared logarithms: aspect (width over layers) against `aspect(target)`, four times that of
//! ff over width against 8/3, ten times that of size against target, and 0.1 for a width that is no multiple of 16.
//! Size costs least because fits use the realised size, while a ladder of unlike shapes would bend the law. Widths and
//! feed-forward widths are multiples of 8 up to 32, of 16 up to 256, of 32 up to 512 and of 64 above.

use crate::model::Model;

/// What a run fixes of its shape; `None` is left to the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wanted {
    pub(crate) params: Option<u64>,
    pub(crate) width: Option<u32>,
    pub(crate) layers: Option<u32>,
    pub(crate) heads: Option<u32>,
    pub(crate) ff: Option<u32>,
    pub(crate) context: u32,
    pub(crate) vocab: u32,
    pub(crate) tied: bool,
}

/// Relative distance of the realised size that is refused.
const FAR: f64 = 0.10;
const WIDTH_MAX: u32 = 32_768;
const LAYERS_MAX: u32 = 512;

/// Width over layers: 12 at 16 k params, 64 at 44 M (the smallest Chinchilla model), at most 100 (Hoffmann 2203.15556,
/// table A9, has 64 to 133). Loss hardly depends on it (Kaplan 2001.08361, figure 5); few layers run faster.
fn aspect(params: f64) -> f64 {
    (12.0 * (params / 16e3).powf(0.21)).clamp(6.0, 100.0)
}

/// The step of good widths around `width`: whole vectors, and for large models whole tiles.
pub(crate) fn grain(width: u32) -> u32 {
    match width {
        0..=32 => 8,
        33..=256 => 16,
        257..=512 => 32,
        _ => 64,
    }
}

/// Heads of a width: the head width is a divisor of `width`, even and from 16 to 128, nearest to 16, 32, 64 or 128 as
/// the width grows, multiples of 8 first. A width with no such divisor is one head.
pub(crate) fn heads(width: u32) -> u32 {
    let ideal: f64 = match width {
        0..=96 => 16.0,
        97..=256 => 32.0,
        257..=2048 => 64.0,
        _ => 128.0,
    };
    let fits = |head: &u32| width.is_multiple_of(*head);
    let distance = |head: &u32| {
        let odd = if head.is_multiple_of(8) { 0.0 } else { 1.0 };
        (f64::from(*head) / ideal).ln().abs() + odd
    };
    (16..=128.min(width))
        .step_by(2)
        .filter(fits)
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
        .map_or(1, |head| width / head)
}

/// 8/3 of the width on its grain: SwiGLU with the weights of a plain feed-forward of 4 widths (Shazeer 2002.05202).
pub(crate) fn feed_forward(width: u32) -> u32 {
    let grain = f64::from(grain(width));
    ((f64::from(width) * 8.0 / 3.0 / grain).round() * grain).max(8.0) as u32
}

impl Wanted {
    /// The dense shape, or what stands in its way.
    pub(crate) fn dense(&self) -> Result<Model, String> {
        let model = match (self.params, self.width, self.layers) {
            (Some(params), ..) => self.sized(params)?,
            (None, Some(width), Some(layers)) => {
                self.shape(width, layers, self.ff.unwrap_or_else(|| feed_forward(width)))
            }
            (None, ..) => return Err("expected `params`, or both `width` and `layers`".to_owned()),
        };
        match model.defect() {
            None => Ok(model),
            Some(defect) => Err(defect),
        }
    }

    fn shape(&self, width: u32, layers: u32, ff: u32) -> Model {
        Model {
            layers,
            width,
            heads: self.heads.unwrap_or_else(|| heads(width)),
            ff,
            context: self.context,
            vocab: self.vocab,
            tied: self.tied,
            experts: None,
        }
    }

    fn sized(&self, params: u64) -> Result<Model, String> {
        let target = params as f64;
        let ratio = |model: &Model| model.param_counts().non_embedding.as_f64() / target;
        let possible: Vec<Model> = self.candidates(target).filter(|model| model.defect().is_none()).collect();
        let best = possible
            .iter()
            .filter(|model| (ratio(model) - 1.0).abs() <= FAR)
            .min_by(|a, b| cost(a, target).total_cmp(&cost(b, target)));
        if let Some(model) = best {
            return Ok(model.clone());
        }
        let nearest = possible.iter().min_by(|a, b| ratio(a).ln().abs().total_cmp(&ratio(b).ln().abs()));
        Err(match nearest {
            Some(model) => {
                let nearest = model.param_counts().non_embedding.get();
                format!("no shape is within 10 % of {params} params; the nearest has {nearest}")
            }
            None => format!("no shape has {params} params"),
        })
    }

    /// Widths from a quarter to four times the ideal one, each with the layers on both sides of the target.
    fn candidates(&self, target: f64) -> impl Iterator<Item = Model> + '_ {
        let ideal = (target * aspect(target) / 12.0).cbrt();
        let widths: Vec<u32> = match self.width {
            Some(width) => vec![width],
            None => {
                let mut widths = Vec::new();
                let mut width = 16;
                while f64::from(width) <= (4.0 * ideal).max(32.0) && width <= WIDTH_MAX {
                    if f64::from(width) >= ideal / 4.0 {
                        widths.push(width);
                    }
                    width += grain(width + 1);
                }
                widths
            }
        };
        widths.into_iter().flat_map(move |width| {
            self.feed_forwards(width).into_iter().flat_map(move |ff| {
                let one = self.shape(width, 1, ff).param_counts().non_embedding.as_f64() - f64::from(width);
                let about = ((target - f64::from(width)) / one).clamp(1.0, f64::from(LAYERS_MAX)) as u32;
                let layers = match self.layers {
                    Some(layers) => layers..=layers,
                    None => about..=about + 1,
                };
                layers.map(move |layers| self.shape(width, layers, ff))
            })
        })
    }

    /// From two to three and a half widths on the grain.
    fn feed_forwards(&self, width: u32) -> Vec<u32> {
        if let Some(ff) = self.ff {
            return vec![ff];
        }
        let grain = grain(width) as usize;
        let low = (width * 2).next_multiple_of(grain as u32);
        let mut widths: Vec<u32> = (low..=width / 2 * 7).step_by(grain).collect();
        widths.push(feed_forward(width));
        widths
    }
}

/// How far a shape is from what the ladder wants.
fn cost(model: &Model, target: f64) -> f64 {
    let square = |ratio: f64| ratio.ln() * ratio.ln();
    let (width, layers) = (f64::from(model.width), f64::from(model.layers));
    let size = square(model.param_counts().non_embedding.as_f64() / target);
    let shape = square(width / layers / aspect(target)) + 4.0 * square(f64::from(model.ff) / width * 3.0 / 8.0);
    shape + 10.0 * size + if model.width.is_multiple_of(16) { 0.0 } else { 0.1 }
}
