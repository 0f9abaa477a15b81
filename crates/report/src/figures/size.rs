//! Loss against params and against tokens: the law's curves through the runs, one for each value of what is held.

use super::slice::{Held, Slice, fewest, share};
use super::{Figure, Scene, bounds, frame};
use crate::lab::LabRun;
use crate::plot::{Axis, Paint, Plot, label_room, short_si};

/// What runs along the x axis.
#[derive(Clone, Copy, PartialEq)]
enum Along {
    Params,
    Tokens,
}

pub(super) fn by_params(scene: &Scene<'_>) -> Option<Figure> {
    draw(scene, Along::Params)
}

pub(super) fn by_tokens(scene: &Scene<'_>) -> Option<Figure> {
    draw(scene, Along::Tokens)
}

impl Along {
    fn of(self, run: &LabRun) -> f64 {
        match self {
            Self::Params => run.size(),
            Self::Tokens => run.tokens().as_f64(),
        }
    }

    fn choices(self) -> [Held; 3] {
        match self {
            Self::Params => [Held::Tokens, Held::TokensPerParam, Held::Flops],
            Self::Tokens => [Held::Params, Held::TokensPerParam, Held::Flops],
        }
    }

    /// The point (params, tokens) at `x` on the curve of a held value.
    fn point(self, scene: &Scene<'_>, held: Held, value: f64, x: f64) -> Option<(f64, f64)> {
        let ledger = scene.ledger.as_ref();
        Some(match (self, held) {
            (Self::Params, Held::Tokens) => (x, value),
            (Self::Params, Held::TokensPerParam) => (x, value * x),
            (Self::Params, Held::Flops) => (x, value / ledger?.flops_per_token(x)),
            (Self::Tokens, Held::Params) => (value, x),
            (Self::Tokens, Held::TokensPerParam) => (x / value, x),
            (Self::Tokens, Held::Flops) => (ledger?.size_for(value, x), x),
            (Self::Params, Held::Params) | (Self::Tokens, Held::Tokens) => return None,
        })
    }
}

fn draw(scene: &Scene<'_>, along: Along) -> Option<Figure> {
    let fitted = scene.fitted();
    let runs: Vec<&LabRun> = fitted.iter().map(|(run, _)| *run).collect();
    let (low, high) = bounds(runs.iter().map(|run| along.of(run)));
    if runs.len() < 2 || high < low * 1.05 {
        return None;
    }
    let (held, slices) = fewest(&runs, &along.choices());
    let words: Vec<String> = slices.iter().map(|slice| held.word(slice.value)).collect();
    let room = label_room(words.iter().map(String::as_str).chain(["true 0.000"]));
    let (name, question, label) = match along {
        Along::Params => ("loss-params", "How does loss fall with size?", "non-embedding params, active"),
        Along::Tokens => ("loss-tokens", "How does loss fall with data?", "training tokens"),
    };
    // Room to the right shows where the curves go.
    let axis = Axis::log(low, high, label).counts().padded(0.06, 0.22);
    let mut plot = Plot::new(name, frame(room), axis, scene.loss_axis());
    scene.draw_floor(&mut plot);
    let tint = |value: f64| Paint::Ramp(share(value, slices.iter().map(|slice| slice.value)));
    for (slice, word) in slices.iter().zip(&words) {
        draw_slice(scene, &mut plot, along, held, slice, (tint(slice.value), word));
    }
    for (run, loss) in &scene.runs {
        plot.mark(along.of(run), *loss, scene.shape(run), tint(held.of(run)), 4.8, &scene.tip(run, *loss));
    }
    scene.draw_legend(&mut plot, |_| Paint::Muted);
    Some(Figure::new(name, question, answer(scene, along, high / low, held), frame(0.0).height, plot.finish()))
}

/// The law's curve: solid where runs stand, dotted beyond; without a law the runs joined.
fn draw_slice(
    scene: &Scene<'_>,
    plot: &mut Plot,
    along: Along,
    held: Held,
    slice: &Slice,
    (paint, word): (Paint, &str),
) {
    let fitted = scene.fitted();
    let mut seen: Vec<(f64, f64)> = slice.members.iter().map(|at| (along.of(fitted[*at].0), fitted[*at].1)).collect();
    seen.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    let arm = fitted[slice.members[0]].0.arm.as_str();
    let Some(law) = &scene.law else {
        plot.line(&seen, paint, 1.6, "", Some(arm));
        plot.end_label(last.1, word, paint, Some(arm));
        return;
    };
    let at = |x: f64| along.point(scene, held, slice.value, x).map(|(n, d)| (x, law.loss(n, d)));
    let all: Vec<(f64, f64)> = plot.x_axis().samples(160).filter_map(at).collect();
    let near = first.0 * 0.97..=last.0 * 1.03;
    let inside: Vec<(f64, f64)> = all.iter().copied().filter(|(x, _)| near.contains(x)).collect();
    plot.line(&all, paint, 1.3, "1 4", Some(arm));
    plot.line(&inside, paint, 2.2, "", Some(arm));
    if let Some((_, loss)) = all.last() {
        plot.end_label(*loss, word, paint, Some(arm));
    }
}

fn answer(scene: &Scene<'_>, along: Along, span: f64, held: Held) -> String {
    let (other, name) = if along == Along::Params { ("size", "alpha") } else { ("data", "beta") };
    let curves = format!("One curve for each {}", held.name());
    let exponent = scene.law.as_ref().and_then(|law| law.parameter(name));
    match exponent {
        Some(value) if scene.identified => format!(
            "Each doubling of {other} removes {:.0} % of the loss that {other} can remove ({name} = {value:.3}), over {} \
             times in {other}. {curves}; dotted is where no run has been.",
            100.0 * (1.0 - (-value * std::f64::consts::LN_2).exp()),
            short_si((span * 10.0).round() / 10.0)
        ),
        Some(_) => format!("{curves}. The runs do not pin the law down, so read the curves inside the data only."),
        None => format!("{curves}; no law has been fitted."),
    }
}
