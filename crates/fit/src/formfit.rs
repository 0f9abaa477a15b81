//! The whole fit of one form: optimum, cloud, hold-out, verdict, predictions. What the laws of params and tokens get from
//! `procedure.rs`, for laws in any variables; there is no certificate of a whole grid here, only that of a second basin.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::descent;
use crate::fitted::ln_likelihood;
use crate::form::{FittedForm, Form, Variable};
use crate::general::{self, FormProblem, FormSearch};
use crate::holdout::{self, COVERAGE_LEVEL, WINDOWS};
use crate::identify::DESCRIBES_MAX;
use crate::interval::{Clusters, percentiles};
use crate::observation::{Observation, Observations};
use crate::qr;
use crate::record::{Certificate, FitRecord, HoldoutRecord, Intervals, LawRecord, Prediction, Refusal, Residual};
use crate::settings::{Progress, Settings};
use crate::student;
use crate::trade;

/// Resamples: a form costs more than a law of two variables, and its intervals are rougher.
const RESAMPLES_SHARE: usize = 4;
/// A shape is known when its interval is narrower than this share of where it is looked for.
const SHAPE_WIDTH_MAX: f64 = 0.75;
/// Below this share of the typical loss a coefficient is absent.
const ABSENT: f64 = 1e-5;

/// A fit with what its intervals need.
struct Solved {
    problem: FormProblem,
    search: FormSearch,
    residuals: Vec<f64>,
    /// Standard deviation of ln loss around the law.
    sigma: f64,
    degrees: usize,
}

impl Solved {
    fn new(form: &'static Form, rows: &[Observation], settings: &Settings) -> Self {
        let problem = FormProblem::new(form, rows, settings.entropy, settings.huber_delta);
        let search = general::search(&problem);
        let residuals = problem.residuals(&search.best.theta);
        let degrees = rows.len().saturating_sub(form.dimension());
        let squares: f64 = residuals.iter().map(|r| r * r).sum();
        Self { problem, search, residuals, sigma: (squares / degrees.max(1) as f64).sqrt(), degrees }
    }

    fn fitted(&self) -> FittedForm {
        self.problem.fitted(&self.search.best.theta)
    }

    fn rms(&self) -> f64 {
        (self.residuals.iter().map(|r| r * r).sum::<f64>() / self.residuals.len().max(1) as f64).sqrt()
    }
}

/// Refitted laws, and a run's own deviation for each.
struct Cloud {
    draws: Vec<FittedForm>,
    noise: Vec<f64>,
    inflation: f64,
    widening: f64,
}

impl Cloud {
    fn new(solved: &Solved, rows: &[Observation], settings: &Settings, level: f64, inflation: f64) -> Self {
        let clusters = Clusters::of(rows);
        let widening = student::widening(level, solved.degrees);
        let few = clusters.few();
        let leverage = leverage(solved);
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let basins = general::basins(&solved.problem, &solved.search);
        let mut draws = Vec::new();
        for _ in 0..(settings.resamples / RESAMPLES_SHARE).max(1) {
            let mut problem = solved.problem.clone();
            if few {
                let signs = clusters.webb(&mut rng);
                let rows = problem.y.iter_mut().zip(&solved.residuals).zip(signs).zip(&leverage);
                for (((y, r), sign), leverage) in rows {
                    // The fitted value with the residual as of a run that was not fitted.
                    *y += r + sign * r * widening / (1.0 - leverage).max(0.05).sqrt();
                }
            } else {
                problem.weights = clusters.multiplicities(&mut rng);
            }
            draws.push(solved.problem.fitted(&general::refit(&problem, &basins).theta));
        }
        let n = solved.residuals.len();
        let size = widening * (n as f64 / solved.degrees.max(1) as f64).sqrt();
        let noise = draws.iter().map(|_| size * solved.residuals[rng.random_range(0..n)]).collect();
        // Resamples of the residuals are widened already.
        Self { draws, noise, inflation, widening: if few { 1.0 } else { widening } }
    }

    /// Interval around what the law says, from what its draws say.
    fn around(&self, centre: f64, values: Vec<f64>, level: f64) -> [f64; 2] {
        let reach = self.inflation * self.widening;
        percentiles(values, level).map(|end| centre * (end / centre).powf(reach))
    }

    /// Interval of a new run's loss.
    fn loss(&self, centre: f64, row: &Observation, level: f64) -> [f64; 2] {
        let pairs = self.draws.iter().zip(&self.noise);
        let ends = percentiles(pairs.map(|(law, noise)| law.loss(row) * noise.exp()).collect(), level);
        ends.map(|end| centre * (end / centre).powf(self.inflation))
    }

    /// Between the ends of a parameter's interval in plain units; without end where they differ in sign.
    fn factor(&self, name: &str) -> f64 {
        let [low, high] = percentiles(self.draws.iter().map(|law| law.parameters()[name]).collect(), COVERAGE_LEVEL);
        let factor = if low * high > 0.0 { (high / low).max(low / high) } else { f64::INFINITY };
        factor.powf(self.inflation)
    }

    /// Intervals of all parameters in plain units, around the fit's own.
    fn parameters(&self, law: &FittedForm, level: f64) -> BTreeMap<String, [f64; 2]> {
        let all: Vec<BTreeMap<String, f64>> = self.draws.iter().map(FittedForm::parameters).collect();
        let interval = |(name, centre): (String, f64)| {
            let own = percentiles(all.iter().map(|one| one[&name]).collect(), level);
            let reach = self.inflation * self.widening;
            let ends = own.map(|end| match (end > 0.0) == (centre > 0.0) && end != 0.0 {
                true => centre * (end / centre).powf(reach),
                false => centre + reach * (end - centre),
            });
            (name, [ends[0].min(ends[1]).min(centre), ends[0].max(ends[1]).max(centre)])
        };
        // Where no resample moves a parameter the runs say nothing of it: that is no certainty, so there is no interval.
        let said = |(_, [low, high]): &(String, [f64; 2])| low.is_finite() && high.is_finite() && high > low;
        law.parameters().into_iter().map(interval).filter(said).collect()
    }
}

/// Leverage of each row at the optimum; zero where the runs do not determine the law.
fn leverage(solved: &Solved) -> Vec<f64> {
    let lines: Vec<qr::Line> = lines(solved);
    let reach = qr::Reach::of(lines.clone(), solved.problem.form.dimension());
    let of = |line: &qr::Line| reach.as_ref().map_or(0.0, |reach| reach.leverage(line));
    lines.iter().map(of).collect()
}

fn lines(solved: &Solved) -> Vec<qr::Line> {
    let slopes = solved.problem.slopes(&solved.search.best.theta);
    slopes.iter().map(|dual| std::array::from_fn(|i| dual.slope.get(i).copied().unwrap_or(0.0))).collect()
}

/// Fits one form; what cannot be fitted stands in the record with the reason.
pub(crate) fn fit(
    form: &'static Form,
    observations: &Observations,
    settings: &Settings,
    empty: FitRecord,
    progress: &mut dyn FnMut(Progress),
) -> FitRecord {
    let rows = observations.rows();
    let settings = &Settings { huber_delta: settings.huber_delta.max(form.huber_delta), ..settings.clone() };
    let mut empty = empty;
    empty.settings.huber_delta = settings.huber_delta;
    if let Some(reason) = refusal(form, rows, settings) {
        let refused = vec![Refusal { name: form.name.to_owned(), reason }];
        return FitRecord { refused, ..empty };
    }
    progress(Progress { law: form.name, done: 0, total: 1 });
    let solved = Solved::new(form, rows, settings);
    let rolling = rolling(form, rows, settings, settings.level);
    let inflation = rolling.as_ref().map_or(1.0, |(_, inflation)| *inflation);
    let cloud = Cloud::new(&solved, rows, settings, settings.level, inflation);
    progress(Progress { law: form.name, done: 1, total: 1 });
    let law = solved.fitted();
    let intervals = Intervals { level: settings.level, of: cloud.parameters(&law, settings.level) };
    let reasons = reasons(&solved, rows, &cloud);
    let interval = |centre: f64, values: Vec<f64>| cloud.around(centre, values, settings.level);
    let asked = trade::Law { law: &law, draws: &cloud.draws, interval: &interval, whole: reasons.is_empty() };
    let trade = match unsound(&solved, rows) {
        false => trade::trade(&asked, rows, settings),
        true => None,
    };
    let predict = |asked: &crate::asked::Asked| {
        let row = asked.row();
        let loss = law.loss(&row);
        let [low, high] = cloud.loss(loss, &row, settings.level);
        Prediction { at: *asked, loss, level: settings.level, interval: [low.min(loss), high.max(loss)] }
    };
    let record = LawRecord {
        parameters: law.parameters(),
        intervals,
        holdout: largest(form, rows, settings),
        rolling: rolling.map(|(record, _)| record),
        inflation,
        identified: reasons.is_empty(),
        reasons,
        ..bare(&solved, rows, settings)
    };
    FitRecord {
        chosen: Some(form.name.to_owned()),
        trade,
        predictions: settings.predict.iter().map(predict).collect(),
        laws: vec![record],
        ..empty
    }
}

/// Why the form cannot be fitted to these rows at all.
fn refusal(form: &Form, rows: &[Observation], settings: &Settings) -> Option<String> {
    if rows.len() < form.dimension() {
        return Some(format!("{} runs for {} parameters", rows.len(), form.dimension()));
    }
    if !form.needs_entropy {
        return None;
    }
    let Some(entropy) = settings.entropy else {
        return Some("it needs the entropy of the text: say --entropy; synthetic languages know their own".to_owned());
    };
    let lowest = rows.iter().map(|row| row.loss).fold(f64::INFINITY, f64::min);
    (entropy >= lowest).then(|| format!("the smallest loss {lowest} is not above the entropy {entropy}"))
}

/// The optimum itself, before anything is said of its uncertainty.
fn bare(solved: &Solved, rows: &[Observation], settings: &Settings) -> LawRecord {
    let (form, best) = (solved.problem.form, &solved.search.best);
    let square = settings.huber_delta * settings.huber_delta;
    LawRecord {
        name: form.name.to_owned(),
        formula: form.formula.to_owned(),
        reference: form.reference.to_owned(),
        parameters: BTreeMap::new(),
        intervals: Intervals { level: settings.level, of: BTreeMap::new() },
        objective: best.objective * square,
        rms_relative_error: solved.rms(),
        aicc: aicc(solved),
        holdout: None,
        rolling: None,
        inflation: 1.0,
        identified: false,
        reasons: Vec::new(),
        certificate: Certificate {
            gradient_norm: descent::decrement(&solved.problem, &best.theta),
            iterations: best.steps,
            grid_cells: solved.search.starts,
            second_basin: solved.search.second.as_ref().map(|second| second.objective * square),
            boundary: boundary(solved),
            condition: qr::Reach::of(lines(solved), form.dimension()).map(|reach| reach.condition()),
        },
        residuals: rows
            .iter()
            .zip(&solved.residuals)
            .map(|(row, r)| Residual { id: row.id.clone(), ln_ratio: -r })
            .collect(),
    }
}

/// As for the other laws, the noise being one more parameter.
fn aicc(solved: &Solved) -> Option<f64> {
    let (n, k) = (solved.residuals.len() as f64, solved.problem.form.dimension() as f64 + 1.0);
    let spare = n - k - 1.0;
    (spare > 0.0).then(|| -2.0 * ln_likelihood(&solved.residuals) + 2.0 * k + 2.0 * k * (k + 1.0) / spare)
}

fn boundary(solved: &Solved) -> Vec<String> {
    let (form, theta) = (solved.problem.form, &solved.search.best.theta);
    let edge = |(at, shape): (usize, &crate::form::Shape)| {
        let (low, high) = shape.bounds;
        (theta[at] <= low || theta[at] >= high).then(|| shape.name.to_owned())
    };
    let absent = |(at, coefficient): (usize, &crate::form::Coefficient)| {
        let at = form.shapes.len() + at;
        let share = |spot: &crate::form::Spot| {
            let whole = form.ln_loss(theta, spot);
            let mut without = theta.clone();
            without[at] = -700.0;
            1.0 - (form.ln_loss(&without, spot) - whole).exp()
        };
        let most = solved.problem.spots.iter().map(share).fold(0.0, f64::max);
        (coefficient.positive && most < ABSENT).then(|| coefficient.name.to_owned())
    };
    let edges = form.shapes.iter().enumerate().filter_map(edge);
    edges.chain(form.coefficients.iter().enumerate().filter_map(absent)).collect()
}

/// Whether the law's losses mean nothing even among its runs. A shape that is hardly bounded does not make them so: what
/// the losses leave open then stands in their intervals.
fn unsound(solved: &Solved, rows: &[Observation]) -> bool {
    let one = |variable: &Variable| rows.iter().all(|row| variable.of(row) == variable.of(&rows[0]));
    solved.degrees == 0 || solved.rms() > DESCRIBES_MAX || solved.problem.form.reads.iter().any(one)
}

/// What is wrong and what would mend it.
fn reasons(solved: &Solved, rows: &[Observation], cloud: &Cloud) -> Vec<String> {
    let form = solved.problem.form;
    let mut reasons = Vec::new();
    for variable in form.reads {
        let mut values: Vec<f64> = rows.iter().map(|row| variable.of(row)).collect();
        values.sort_by(f64::total_cmp);
        values.dedup_by(|a, b| (*a / *b - 1.0).abs() < 1e-9);
        let name = variable.name();
        match (variable, values.len()) {
            (_, 1) => reasons.push(format!("all runs have the same {name}: the law's part in it is not seen; vary it")),
            (Variable::TokensUnique, _) if rows.iter().all(|row| row.tokens_unique.is_none()) => {
                reasons.push("no run repeats its data: add runs that do, or take a law without repeats".to_owned());
            }
            _ => {}
        }
    }
    if solved.degrees == 0 {
        reasons.push(format!("{} runs for as many parameters: nothing is left to judge the fit by", rows.len()));
    }
    for name in boundary(solved) {
        reasons.push(format!("{name} ends on the edge of its range: the runs do not show that part of the law"));
    }
    let rms = solved.rms();
    if rms > DESCRIBES_MAX {
        reasons.push(format!("rms error {:.0} %: the law does not describe these runs", 100.0 * rms));
    }
    for (at, shape) in form.shapes.iter().enumerate() {
        let still = cloud.draws.iter().all(|law| law.theta[at] == solved.search.best.theta[at]);
        if still && rms > 0.0 {
            reasons.push(format!("{} is not seen by these runs", shape.name));
        }
        let ends = percentiles(cloud.draws.iter().map(|law| law.theta[at]).collect(), COVERAGE_LEVEL);
        let (low, high) = shape.search;
        let wide = (ends[1] - ends[0]) * cloud.inflation > SHAPE_WIDTH_MAX * (high - low);
        if wide || cloud.factor(shape.name) > shape.factor_max {
            reasons.push(format!(
                "{} is hardly bounded by these runs; add runs that differ in what it acts on",
                shape.name
            ));
        }
    }
    reasons
}

/// Expanding windows over the order of cost, and by how much their errors exceed what each fit expects.
fn rolling(form: &'static Form, rows: &[Observation], settings: &Settings, level: f64) -> Option<(HoldoutRecord, f64)> {
    let sorted = holdout::sorted(rows, |row| row.flops);
    let end = |share: f64| (share * sorted.len() as f64).round() as usize;
    let (mut errors, mut squares) = (Vec::new(), Vec::new());
    for (at, share) in WINDOWS.iter().enumerate() {
        let (from, to) = (end(*share), end(WINDOWS.get(at + 1).copied().unwrap_or(1.0)));
        if from <= form.dimension() + 2 {
            continue;
        }
        let solved = Solved::new(form, &sorted[..from], settings);
        let law = solved.fitted();
        let degrees = solved.degrees as f64;
        let variance = (solved.sigma * solved.sigma * degrees / (degrees - 2.0)).max(f64::MIN_POSITIVE);
        let reach = qr::Reach::of(lines(&solved), form.dimension());
        let slopes = form.ln_losses_slopes(&law.theta);
        for row in &sorted[from..to] {
            let error = (law.loss(row) / row.loss).ln();
            errors.push(error.exp_m1().abs());
            let slope = slopes(&law.centre.spot(row)).slope;
            let leverage = reach.as_ref().map_or(0.0, |reach| reach.leverage(&slope));
            squares.push(error * error / (variance * (1.0 + leverage)));
        }
    }
    if errors.is_empty() {
        return None;
    }
    let record = HoldoutRecord {
        rule: "rolling by flops from the cheapest half".to_owned(),
        runs: errors.len(),
        mean_relative_error: errors.iter().sum::<f64>() / errors.len() as f64,
        coverage: BTreeMap::new(),
    };
    Some((record, holdout::inflation(squares, level).max(1.0)))
}

/// Error on the largest runs, kept from the fit, and whether their intervals held them.
fn largest(form: &'static Form, rows: &[Observation], settings: &Settings) -> Option<HoldoutRecord> {
    let rule = settings.holdout;
    let kept = rows.len().checked_sub(rule.runs(rows.len()))?;
    if kept <= form.dimension() {
        return None;
    }
    let sorted = holdout::sorted(rows, |row| rule.size(row));
    let (near, far) = sorted.split_at(kept);
    let solved = Solved::new(form, near, settings);
    let inflation = rolling(form, near, settings, COVERAGE_LEVEL).map_or(1.0, |(_, inflation)| inflation);
    let cloud = Cloud::new(&solved, near, settings, COVERAGE_LEVEL, inflation);
    let law = solved.fitted();
    let inside = far.iter().filter(|row| {
        let [low, high] = cloud.loss(law.loss(row), row, COVERAGE_LEVEL);
        low <= row.loss && row.loss <= high
    });
    let error = |row: &Observation| (law.loss(row) / row.loss - 1.0).abs();
    Some(HoldoutRecord {
        rule: rule.to_string(),
        runs: far.len(),
        mean_relative_error: far.iter().map(error).sum::<f64>() / far.len() as f64,
        coverage: BTreeMap::from([(COVERAGE_LEVEL.to_string(), inside.count() as f64 / far.len() as f64)]),
    })
}
