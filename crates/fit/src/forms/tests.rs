use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::form::{Centre, FittedForm, Form, form, forms};
use crate::general::{FormProblem, search};
use crate::observation::Observation;

const ENTROPY: f64 = 1.3;

fn map(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn run(params: f64, tokens: f64) -> Observation {
    Observation::dense(format!("{params:e} {tokens:e}"), params, tokens, 1.0)
}

/// A design that has something to say to every form: sizes and budgets over three decades, repeats, experts of many
/// numbers and finenesses.
fn design(form: &Form) -> Vec<Observation> {
    let mut rows = Vec::new();
    let sizes: Vec<f64> = (0..7).map(|i| 1e6 * 1e3_f64.powf(f64::from(i) / 6.0)).collect();
    match form.name {
        name if name.starts_with("broken") => {
            for at in 0..160 {
                let mut row = run(1e8, 1e9);
                row.flops = 1e15 * 1e8_f64.powf(f64::from(at) / 159.0);
                rows.push(row);
            }
        }
        "data-constrained" => {
            for size in &sizes {
                for unique in [1e7, 1e8, 1e9, 1e10] {
                    for epochs in [1.0, 2.0, 6.0, 20.0, 60.0] {
                        let mut row = run(*size, unique * epochs);
                        row.tokens_unique = Some(unique);
                        rows.push(row);
                    }
                }
            }
        }
        _ => {
            for size in &sizes {
                for data in [2e7, 2e8, 2e9, 2e10, 2e11] {
                    for (experts, top_k, granularity) in
                        [(1, 1, 1.0), (4, 1, 2.0), (16, 2, 8.0), (64, 2, 1.0), (256, 8, 4.0), (1024, 4, 16.0)]
                    {
                        let mut row = run(*size, data);
                        (row.experts, row.top_k) = (Some(experts), Some(top_k));
                        row.granularity = Some(granularity);
                        row.params_total = size * (1.0 + 0.6 * f64::from(experts));
                        rows.push(row);
                    }
                }
            }
            let reads_experts =
                form.reads.iter().any(|v| format!("{v:?}").contains("Exp") || format!("{v:?}").contains("Gran"))
                    || form.name == "sparsity";
            if !reads_experts {
                rows.retain(|row| row.experts == Some(1));
            }
        }
    }
    rows
}

/// Random centred parameters inside the ranges where starts are looked for, coefficients of the size of a loss.
fn planted(form: &'static Form, rows: &[Observation], seed: u64) -> FittedForm {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut between = |(low, high): (f64, f64)| low + (high - low) * rng.random::<f64>();
    let inner = |(low, high): (f64, f64)| (low + 0.1 * (high - low), high - 0.1 * (high - low));
    let mut theta: Vec<f64> = form.shapes.iter().map(|shape| between(inner(shape.search))).collect();
    let centre = Centre::of(rows, Some(ENTROPY));
    for coefficient in form.coefficients {
        theta.push(match (form.name, coefficient.name) {
            ("clark", "a") => between((-0.12, -0.05)),
            ("clark", "b") => between((-0.16, -0.08)),
            ("clark", "c") => between((-0.01, 0.02)),
            ("clark", "d") => between((0.3, 0.6)),
            // The data factor of Farseer's law is D to the exponent, not relative to the middle.
            ("farseer", "Q") => between((0.0, 1.0)) + theta[6].exp() * centre.d,
            ("saturation", _) => between((10.0, 20.0)),
            _ => between((-1.5, 0.8)),
        });
    }
    if form.name == "data-constrained" {
        // Where the optimal size for the distinct tokens lies beyond all sizes, nothing says how extra params decay.
        let inside = between((-2.0, 0.5));
        theta[2] = theta[0] * inside - theta[0].ln() + theta[1].ln();
    }
    FittedForm { form, theta, centre }
}

#[test]
fn derivatives_agree_with_differences_and_units_go_both_ways() {
    for form in forms() {
        let rows = design(form);
        let law = planted(form, &rows, 3);
        for row in rows.iter().step_by(7) {
            let spot = law.centre.spot(row);
            let here = form.ln_losses_slopes(&law.theta)(&spot);
            assert!((here.value - form.ln_loss(&law.theta, &spot)).abs() < 1e-12, "{}", form.name);
            for at in 0..form.dimension() {
                let step = 1e-6 * law.theta[at].abs().max(0.1);
                let moved = |sign: f64| {
                    let mut theta = law.theta.clone();
                    theta[at] += sign * step;
                    form.ln_loss(&theta, &spot)
                };
                let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
                let size = slope.abs().max(1.0);
                assert!((here.slope[at] - slope).abs() < 2e-6 * size, "{} {at}: {} {slope}", form.name, here.slope[at]);
            }
        }
        let again = FittedForm::new(form, &law.parameters(), Some(ENTROPY), &rows[..1]).unwrap();
        for row in &rows {
            let ratio = again.loss(row) / law.loss(row);
            assert!((ratio - 1.0).abs() < 1e-9, "{}: {ratio}", form.name);
        }
    }
}

#[test]
fn published_laws_give_published_values() {
    let law = |name: &str, pairs: &[(&str, f64)]| {
        FittedForm::new(form(name).unwrap(), &map(pairs), None, &[run(1e9, 1e11)]).unwrap()
    };
    // Constants of huggingface/datablations at 8.7e9 params and 178e9 tokens of which a seventh is distinct.
    let (a, b) = (6.255414_f64.exp(), 7.3049974_f64.exp());
    let repeats = law(
        "data-constrained",
        &[
            ("alpha", 0.3526596),
            ("beta", 0.3526596),
            ("A", a),
            ("B", b),
            ("E", 0.6254804_f64.exp()),
            ("R_N", 5.309743),
            ("R_D", 15.387756),
        ],
    );
    let mut row = run(8.7e9, 178e9);
    row.tokens_unique = Some(25_428_571_428.571_43);
    assert!((repeats.loss(&row) - 2.226_080_995_952_325).abs() < 1e-12, "{}", repeats.loss(&row));
    // Issue 9 there prints 2.237666982866588, which counts whole passes alone: tokens over distinct ones come out a hair
    // below 7, and 6.7 times the optimal params count as 6.
    let (params, tokens) = (6.0 * 1_296_514_306.050_167_8, 6.0 * 25_428_571_428.571_43);
    let whole = Observation { params, tokens, ..row };
    assert!((repeats.loss(&whole) - 2.237_666_982_866_588).abs() < 1e-12, "{}", repeats.loss(&whole));
    // Clark 2202.01169: 5M params with 128 experts of S-Base are like 52 to 55M dense.
    let clark = law(
        "clark",
        &[("a", -0.082), ("b", -0.108), ("c", 0.009), ("d", 1.104), ("E_start", 1.847), ("E_max", 314.478)],
    );
    let mut routed = run(5e6, 1e9);
    routed.experts = Some(128);
    let (mut low, mut high) = (5e6_f64, 1e9_f64);
    for _ in 0..80 {
        let middle = (low * high).sqrt();
        let dense = clark.loss(&run(middle, 1e9));
        (low, high) = if dense > clark.loss(&routed) { (middle, high) } else { (low, middle) };
    }
    assert!((5.15e7..5.5e7).contains(&low), "{low:e}");
}

/// The table of laws by number of experts in Ludziejewski 2502.05172 follows from the joint law to 1e-3 with all constants
/// as printed; its coefficients do to 2e-4 with 2.083 effective experts of one instead of 2.0732.
#[test]
fn the_joint_law_gives_the_published_law_of_each_number_of_experts() {
    let constants = [
        ("a", 35.91),
        ("alpha", -0.1889),
        ("delta", -0.2285),
        ("gamma", 0.0098),
        ("b", 35.98),
        ("beta", -0.1775),
        ("omega", 0.5529),
        ("zeta", -0.0259),
        ("E_max", 290.4521),
        ("c", 1.3637),
    ];
    let joint = |start: f64| {
        let constants = constants.into_iter().chain([("E_start", start)]).collect::<Vec<_>>();
        FittedForm::new(form("joint-moe").unwrap(), &map(&constants), None, &[run(1e9, 1e11)]).unwrap()
    };
    let (printed, meant) = (joint(2.0732), joint(2.083));
    for (experts, a, alpha, b, beta) in [
        (1, 30.364, -0.1817, 53.9838, -0.1965),
        (2, 27.7982, -0.178, 66.8401, -0.2065),
        (4, 24.8462, -0.1731, 87.7022, -0.2192),
        (8, 21.833, -0.1676, 119.9126, -0.2338),
        (16, 19.0159, -0.1617, 167.5073, -0.2494),
        (32, 16.5424, -0.1557, 234.6726, -0.2652),
    ] {
        let of = |law: &FittedForm, params: f64, tokens: f64| {
            law.loss(&Observation { experts: Some(experts), ..run(params, tokens) })
        };
        for (params, tokens) in [(1e8_f64, 1e10_f64), (3e9, 2e11)] {
            let table = a * params.powf(alpha) + b * tokens.powf(beta) + 1.3637;
            let ratio = of(&printed, params, tokens) / table;
            assert!((ratio - 1.0).abs() < 1e-3, "{experts}: {ratio}");
        }
        // Either term alone, where its power is one and the other has vanished.
        for (term, (params, tokens)) in [(a, (1.0, 1e300)), (b, (1e300, 1.0))] {
            let off = |law: &FittedForm| ((of(law, params, tokens) - 1.3637) / term - 1.0).abs();
            assert!(off(&meant) < 2e-4 && off(&printed) < 3e-3, "{experts}: {} {}", off(&meant), off(&printed));
        }
    }
}

/// Largest relative error of a prediction, and largest error of a shape in plain units.
fn recover(form: &'static Form, seed: u64) -> (f64, f64) {
    let mut rows = design(form);
    let law = planted(form, &rows, seed);
    for row in &mut rows {
        row.loss = law.loss(row);
    }
    let problem = FormProblem::new(form, &rows, Some(ENTROPY), 1e-3);
    let found = problem.fitted(&search(&problem).best.theta);
    let (truth, fitted) = (law.parameters(), found.parameters());
    let shape = |name: &str| (truth[name] - fitted[name]).abs() / truth[name].abs().max(1.0);
    let shapes = form.shapes.iter().map(|one| shape(one.name)).fold(0.0, f64::max);
    let losses = rows.iter().map(|row| (found.loss(row) / row.loss - 1.0).abs()).fold(0.0, f64::max);
    (losses, shapes)
}

/// Laws with breaks take seconds each: a few seeds unless all are asked for, as continuous integration does.
fn recovered(name: &str, seeds: u64, shapes_too: bool) {
    let form = form(name).unwrap();
    let slow = form.shapes.len() > 5 && form.grows_from.is_some();
    let seeds = if slow && std::env::var_os("ISOLOSS_ALL_SEEDS").is_none() { 6 } else { seeds };
    let missed: Vec<String> = (0..seeds)
        .map(|seed| (seed, recover(form, 1_000 + seed)))
        .filter(|(_, (losses, shapes))| *losses > 1e-8 || (shapes_too && *shapes > 1e-6))
        .map(|(seed, (losses, shapes))| format!("seed {seed}: losses {losses:.1e}, shapes {shapes:.1e}"))
        .collect();
    assert!(missed.is_empty(), "{name}: {} of {seeds} missed\n{}", missed.len(), missed.join("\n"));
}

macro_rules! recovery {
    ($($test:ident $name:literal $shapes:literal;)*) => {
        $(#[test]
        fn $test() {
            recovered($name, 50, $shapes);
        })*
    };
}

recovery! {
    farseer_is_recovered "farseer" true;
    finite_zipf_is_recovered "finite-zipf" true;
    saturation_is_recovered "saturation" true;
    a_power_of_compute_is_recovered "broken-0" true;
    one_break_is_recovered "broken-1" true;
    two_breaks_are_recovered "broken-2" true;
    three_breaks_are_recovered "broken-3" false;
    repeats_are_recovered "data-constrained" true;
    clark_is_recovered "clark" true;
    granularity_is_recovered "granularity" true;
    joint_experts_are_recovered "joint-moe" true;
    sparsity_is_recovered "sparsity" false;
}
