//! What a budget buys, in every output: text, LaTeX, CSV, page and checklist say the record's numbers.

use std::sync::OnceLock;

use isoloss_fit::{Asked, FitRecord, LossUnit, Observation, Observations, Settings, fit};
use isoloss_report::{Lab, SCHEMA_VERSION, checklist, fit_json, html, law_csv, law_table, law_tex};
use isoloss_sweep::count::si;

/// Total over active params of one expert more.
const SHARE: f64 = 0.5;

fn truth(params: f64, tokens: f64, experts: f64) -> f64 {
    let ln = 0.9 * experts.ln();
    1.4 + 40.0 * (-0.2 * ln + (-0.2 + 0.01 * ln) * params.ln()).exp()
        + 40.0 * (0.5 * ln + (-0.18 - 0.024 * ln) * tokens.ln()).exp()
}

fn lab(law: &str, settings: Settings, experts: &[u32]) -> Lab {
    let mut rows = Vec::new();
    for &count in experts {
        for size in [5e7, 2e8, 8e8, 3.2e9] {
            for tokens in [4e9, 3e10, 2e11] {
                let loss = truth(size, tokens, f64::from(count));
                let mut row = Observation::dense(format!("{count} {size:e} {tokens:e}"), size, tokens, loss);
                row.loss *= 1.0 + 1e-3 * (rows.len() as f64 * 1.7).sin();
                (row.experts, row.top_k) = (Some(count), Some(1));
                row.params_total = size * (1.0 + SHARE * f64::from(count - 1));
                if count > 1 {
                    row.arm = format!("moe-{count}");
                }
                rows.push(row);
            }
        }
    }
    let table = Observations::new(rows, vec![], "column N");
    let settings = Settings { laws: law.parse().unwrap(), resamples: 80, ..settings };
    let record = fit(&table, &settings, &mut |_| ());
    let arms = record.arms.clone();
    Lab {
        schema_version: SCHEMA_VERSION,
        name: "planted".to_owned(),
        sweep_id: None,
        made_at: None,
        code_version: "0".to_owned(),
        unit: LossUnit::NatsPerToken,
        arms,
        runs: Vec::new(),
        manifests: Vec::new(),
        columns: None,
        fit: Some(record),
        fit_refusal: None,
    }
}

fn settings(serve_tokens: Option<f64>, params_max: Option<f64>) -> Settings {
    let predict = vec![Asked { experts: Some(512.0), ..Asked::dense(1e9, 2e10) }];
    Settings { budget: Some(2e21), serve_tokens, params_max, predict, ..Settings::default() }
}

fn mixtures() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| lab("joint-moe", settings(Some(1e11), Some(4e9)), &[1, 2, 4, 8, 16, 32]))
}

#[test]
fn kinds_stand_in_every_output_with_active_and_total_params() {
    let trade = mixtures().fit.as_ref().unwrap().trade.as_ref().unwrap();
    assert!(trade.identified, "{:?}", trade.reasons);
    let record = mixtures().fit.as_ref().unwrap();
    assert_eq!(serde_json::from_str::<FitRecord>(&fit_json(mixtures())).unwrap(), *record);
    let (free, (kind, place)) = (trade.free().unwrap().0.value, trade.answer().unwrap());
    assert!(kind.value < free, "memory wants fewer experts: {} of {free}", kind.value);
    let text = law_table(mixtures());
    assert!(
        text.contains("  compute-optimal at 2.00e21 FLOPs, 6.00 per active param and token:\n    32 experts, "),
        "{text}"
    );
    assert!(text.contains("  with 100G tokens of use paid from it and with 4.00G total params at most:\n"), "{text}");
    let row = format!("{:>12} {:>8} {:>8}", kind.value, si(place.params_active), si(place.params_total));
    assert!(text.contains(&row), "{row}\n{text}");
    assert!(text.contains("a number of experts of 512 lies beyond the 1 to 32 seen"), "{text}");
    let tex = law_tex(mixtures());
    assert!(tex.contains(&format!("    \\textbf{{{free}}} & ")), "{tex}");
    assert!(tex.contains(&format!("    \\textbf{{{}}} & ", kind.value)), "{tex}");
    assert!(
        tex.contains("With $1\\times 10^{11}$ tokens of use paid from it and $4\\times 10^{9}$ params in all at most")
    );
    let csv = law_csv(mixtures().fit.as_ref().unwrap());
    let best = format!("joint-moe,true,true,optimal_kind,{:?},", trade.free().unwrap().1.params_active);
    assert!(csv.contains(&best), "{best}\n{csv}");
    assert_eq!(csv.matches("kind_loss_bounded").count(), 6, "{csv}");
    let page = html(mixtures());
    assert!(page.contains("<h3>What a budget buys</h3>") && page.contains("best for the budget"));
    assert!(page.contains(&format!("<tr class=\"chosen\"><td class=\"n\">{free}</td>")));
    assert!(checklist(mixtures()).contains("Yes: 32 experts, "), "{}", checklist(mixtures()));
}

#[test]
fn laws_of_sizes_and_tokens_alone_are_split_by_forms_too_and_use_stands_in_latex() {
    let farseer = lab("finite-zipf", Settings { entropy: Some(1.3), ..settings(None, None) }, &[1]);
    let record = farseer.fit.as_ref().unwrap();
    assert!(record.trade.as_ref().is_some_and(|trade| trade.axis.is_none() && trade.kinds.len() == 1));
    let dense = lab("additive", settings(Some(1e11), Some(4e8)), &[1]);
    let record = dense.fit.as_ref().unwrap();
    let served = record.allocation.as_ref().unwrap().served.as_ref().unwrap();
    let tex = law_tex(&dense);
    assert!((served.params / 4e8 - 1.0).abs() < 1e-9);
    assert!(tex.contains("    Params $N$ & $4\\times 10^{8}$ & -- \\\\\n"), "{tex}");
    assert!(tex.contains("tokens of use paid from it and $4\\times 10^{8}$ params in all at most} \\\\"), "{tex}");
    assert!(law_csv(dense.fit.as_ref().unwrap()).contains(",used_params,"), "{}", law_csv(dense.fit.as_ref().unwrap()));
}

#[test]
fn what_a_budget_cannot_pay_or_a_law_cannot_split_is_said() {
    let dense = lab("additive", settings(Some(1e15), None), &[1]);
    let said = law_table(&dense);
    assert!(said.contains("  the budget does not pay for 1.000e15 tokens of use: with the smallest model"), "{said}");
    assert!(law_tex(&dense).contains("% no optimum with use: the budget does not pay"), "{}", law_tex(&dense));
    let power = lab("power-tokens", settings(None, Some(1e9)), &[1]);
    let said = law_table(&power);
    assert!(said.contains("  no allocation: the law power-tokens trades no params against tokens\n"), "{said}");
}

#[test]
fn an_arm_is_told_at_equal_active_and_at_equal_total_params() {
    let arms = lab("additive", settings(None, None), &[1, 8]);
    let text = law_table(&arms);
    let line = text
        .lines()
        .find(|line| line.contains("at equal active params and tokens"))
        .unwrap_or_else(|| panic!("{text}"));
    assert!(
        line.contains("lower than dense; at equal total params and tokens") && line.contains("and compute"),
        "{line}"
    );
    assert!(html(&arms).contains("at equal total params and compute"));
}
