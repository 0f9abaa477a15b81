//! The report at its wall: a planted sweep goes in, files and texts come out.

mod planted;

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

use isoloss_fit::{Columns, LossUnit, Observation, Observations, Settings, fit, read_csv};
use isoloss_report::{
    Lab, LabRun, Ledger, figures, fit_json, html, law_table, markdown, runs_csv, runs_jsonl, runs_table, write,
};
use planted::{ALPHA, E, GAIN, lab, law, unfitted};

/// Fitting is the slow part; one fit serves all tests.
fn fitted() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(lab)
}

/// Every element of the markup ends where it should; the first that does not.
fn unbalanced(markup: &str) -> Option<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = markup;
    while let Some(at) = rest.find('<') {
        let end = at + rest[at..].find('>')?;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            if open.pop() != Some(closed) {
                return Some(format!("</{closed}>"));
            }
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    open.pop().map(str::to_owned)
}

#[test]
fn every_question_has_a_figure_and_an_answer() {
    let drawn = figures(fitted());
    let names: Vec<&str> = drawn.iter().map(|figure| figure.name).collect();
    let all = [
        "loss-params",
        "loss-tokens",
        "loss-flops",
        "isoloss",
        "floor",
        "codecs",
        "experts",
        "effective",
        "residuals",
        "left-out",
        "dropped",
        "cloud",
        "curves",
        "routing",
    ];
    assert_eq!(names, all);
    for figure in &drawn {
        assert_eq!(unbalanced(&figure.svg), None, "{}", figure.name);
        assert!(!figure.svg.contains("NaN") && !figure.svg.contains("inf"), "{}", figure.name);
        assert!(figure.answer.ends_with('.') && figure.answer.len() > 40, "{}: {}", figure.name, figure.answer);
    }
    let answer = |name: &str| &drawn.iter().find(|figure| figure.name == name).unwrap().answer;
    assert!(answer("floor").contains("inside the interval"), "{}", answer("floor"));
    assert!(answer("experts").contains("lower than their dense twins"), "{}", answer("experts"));
    assert!(answer("codecs").contains("fewer than gzip"), "{}", answer("codecs"));
    assert!(answer("left-out").contains("alone the best split moves"), "{}", answer("left-out"));
    assert!(answer("dropped").contains("inside the interval of all runs"), "{}", answer("dropped"));
    assert!(answer("curves").contains("1 diverged"), "{}", answer("curves"));
}

#[test]
fn every_finished_run_is_marked_in_the_figures_of_loss() {
    let lab = fitted();
    for name in ["loss-params", "loss-tokens", "loss-flops", "isoloss", "curves"] {
        let drawn = figures(lab);
        let svg = &drawn.iter().find(|figure| figure.name == name).unwrap().svg;
        for (run, _) in lab.scored() {
            assert!(svg.contains(&format!("data-run=\"{}\"", run.run_id.short())), "{name}: {}", run.run_id);
        }
    }
}

#[test]
fn page_needs_nothing_else_and_no_text_becomes_markup() {
    let mut lab = fitted().clone();
    let hostile = "</script><script>alert(1)</script>\"'&";
    lab.name = hostile.to_owned();
    lab.arms[1] = hostile.to_owned();
    for run in lab.runs.iter_mut().filter(|run| run.arm == "moe-8-top2") {
        run.arm = hostile.to_owned();
    }
    let page = html(&lab);
    assert_eq!(page, html(&lab), "equal labs give equal reports");
    assert!(!page.contains("alert(1)</script>"));
    assert_eq!(page.matches("<script").count(), 2);
    let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
    for needle in ["http://", "https://", "src=", "<link", "@import", "url(h"] {
        assert!(!elsewhere.contains(needle), "{needle}");
    }
    assert!(page.contains("Content-Security-Policy") && page.contains("prefers-color-scheme:dark"));
    assert!(!markdown(&lab).contains("<script>alert"));
}

#[test]
fn page_tells_what_a_single_number_would_hide() {
    let mut lab = fitted().clone();
    lab.made_at = Some("2026-01-02T03:04:05.678901234Z".to_owned());
    let page = html(&lab);
    assert!(page.contains("2026-01-02T03:04:05Z") && !page.contains(".678901234"));
    assert!(page.contains("id=\"caution\"") && page.contains("\"others\":[") && page.contains("\"truth\":"));
    let at = lab.fit.as_ref().unwrap().allocation.as_ref().unwrap();
    let [low, high] = at.tokens_per_param_interval;
    assert!(!at.identified || page.contains(&format!("[{low:.1}, {high:.1}]; at ")), "the optimum has its interval");
    let drawings = page.matches("<div class=\"scroll\"><svg").count();
    assert_eq!(drawings, figures(&lab).len(), "a narrow screen scrolls a drawing and does not shrink its text away");
}

#[test]
fn runs_that_differ_in_more_than_size_and_tokens_are_told_apart() {
    let mut lab = fitted().clone();
    assert!(!runs_table(&lab).contains("differs"));
    lab.runs[1].point.insert("seed".to_owned(), "2".to_owned());
    assert!(runs_table(&lab).contains("seed=2") && html(&lab).contains("<th>differs</th>"));
}

#[test]
fn csv_is_read_back_by_the_fit() {
    let lab = fitted();
    let (text, lines) = (runs_csv(lab), lab.runs.len() + 1);
    assert_eq!(text.lines().count(), lines);
    let read = read_csv(text.as_bytes(), &"loss=bits_per_byte".parse::<Columns>().unwrap()).unwrap();
    assert_eq!(read.rows().len(), 20, "the diverged run has no loss and is left out");
    let losses: BTreeMap<&str, f64> = read.rows().iter().map(|row| (row.id.as_str(), row.loss)).collect();
    for (run, loss) in lab.scored() {
        assert_eq!(losses[run.run_id.to_string().as_str()], loss);
    }
}

#[test]
fn a_missing_value_is_missing_in_json() {
    let lab = fitted();
    let rows: Vec<serde_json::Value> =
        runs_jsonl(lab).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), lab.runs.len());
    let last = rows.last().unwrap();
    assert_eq!(last["state"], "diverged");
    assert!(last.get("bits_per_byte").is_none() && last.get("seconds").is_none() && last.get("experts").is_none());
    assert!(rows.iter().all(|row| row.as_object().unwrap().values().all(|field| !field.is_null())));
    let fit: isoloss_fit::FitRecord = serde_json::from_str(&fit_json(lab)).unwrap();
    assert_eq!(Some(fit), lab.fit);
    let none: serde_json::Value = serde_json::from_str(&fit_json(&unfitted())).unwrap();
    assert_eq!(none["reasons"][0], "the fit waits for more runs");
}

#[test]
fn tables_say_the_law_and_every_run() {
    let lab = fitted();
    let text = law_table(lab);
    for word in [
        "alpha",
        "95 % interval",
        "identified: yes",
        "hold-out",
        "compute-optimal",
        "inside E's interval",
        "moe-8-top2",
        "which moves the law most",
    ] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    let found = lab.law().unwrap();
    assert!((found.parameter("alpha").unwrap() - ALPHA).abs() < 0.05);
    assert!((found.irreducible() - E).abs() < 0.06);
    let gain = lab.fit.as_ref().unwrap().experts[0].effective_over_active.unwrap();
    assert!((gain / GAIN - 1.0).abs() < 0.1, "planted {GAIN}, found {gain}");
    assert_eq!(runs_table(lab).lines().count(), lab.runs.len() + 1);
    assert_eq!(law_table(&unfitted()), "no law: the fit waits for more runs\n");
}

#[test]
fn checks_stand_under_the_law_with_their_known_bias() {
    let mut lab = unfitted();
    let rows = (0..5).flat_map(|budget| (-3..=3).map(move |size| (budget, size))).map(|(budget, size)| {
        let flops = 1e12 * 4f64.powi(budget);
        let params = (flops / 100.0).sqrt() * 1.7f64.powi(size);
        let tokens = flops / (6.0 * params);
        Observation::dense(format!("{budget}{size:+}"), params, tokens, law(params, tokens))
    });
    let mut rows: Vec<Observation> = rows.collect();
    rows.push(Observation { id: "again".to_owned(), loss: 1.001 * rows[3].loss, ..rows[3].clone() });
    let settings = Settings { resamples: 60, laws: "additive".parse().unwrap(), ..Settings::default() };
    lab.fit = Some(fit(&Observations::new(rows, Vec::new(), "params"), &settings, &mut |_| ()));
    let text = law_table(&lab);
    for word in [
        "  checks\n    approach 2, isoFLOP parabolas, 5 of 5 budgets vote: N* ~ C^0.5",
        "      its bias here: C^0.5",
        "a parabola is symmetric",
        "    approach 1, envelope of ",
        "by 2 runs of 1 settings",
        "    FLOPs are 6.00 N D in all runs\n",
    ] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    let page = markdown(&lab);
    assert!(page.contains("\n## Checks\n\n- approach 2, isoFLOP parabolas"), "{page}");
    lab.fit.as_mut().unwrap().diagnosis = None;
    assert!(!law_table(&lab).contains("checks") && !markdown(&lab).contains("Checks"));
}

#[test]
fn report_is_written_whole_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let lab = fitted();
    let first = write(dir.path(), lab).unwrap();
    assert_eq!(first.files.last(), Some(&first.index));
    let read = |written: &isoloss_report::Written| -> Vec<Vec<u8>> {
        written.files.iter().map(|path| fs::read(path).unwrap()).collect()
    };
    let before = read(&first);
    assert_eq!(before, read(&write(dir.path(), lab).unwrap()));
    let on_disk = |folder: &str| fs::read_dir(dir.path().join(folder)).unwrap().count();
    assert_eq!(on_disk("figures"), figures(lab).len(), "no partial file is left");
    assert_eq!(on_disk(""), 8);
    assert!(first.files.iter().all(|path| fs::metadata(path).unwrap().len() > 0));
    let blocked = dir.path().join("runs.csv").join("inside-a-file");
    assert!(write(&blocked, lab).is_err());
}

/// The fit of a table knows no runs: what is drawn is what the fit alone says.
#[test]
fn the_fit_of_a_table_is_a_report_too() {
    let columns = Some("params=N,tokens=D,label=kind of run".to_owned());
    let lab = Lab {
        name: "runs of mine.csv".to_owned(),
        runs: Vec::new(),
        manifests: Vec::new(),
        columns,
        ..fitted().clone()
    };
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &lab).unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let page = read("index.html");
    assert_eq!(unbalanced(&read("figures/cloud.svg")), None);
    assert!(page.contains("<figure id=\"cloud\">") && page.contains("runs of a table"), "{page}");
    assert!(!folder.path().join("runs.csv").exists());
    let list = read("checklist.md");
    assert!(list.contains("--csv 'runs of mine.csv' --map 'params=N,tokens=D,label=kind of run'"), "{list}");
}

#[test]
fn sweeps_with_little_or_nothing_still_report() {
    let mut lab = unfitted();
    assert!(figures(&lab).iter().any(|figure| figure.name == "loss-params"), "runs are drawn without a law");
    assert!(html(&lab).contains("the fit waits for more runs"));
    lab.unit = LossUnit::NatsPerToken;
    assert!((lab.truth().unwrap() - E * std::f64::consts::LN_2).abs() < 1e-9);
    lab.runs.truncate(1);
    lab.manifests.clear();
    assert_eq!(unbalanced(&figures(&lab)[0].svg), None);
    lab.runs[0] = LabRun::new("dense", lab.runs[0].run.clone(), None);
    assert_eq!((figures(&lab).len(), lab.runs[0].state.as_str()), (0, "pending"));
    lab.runs.clear();
    lab.arms.clear();
    assert!(html(&lab).contains("0 runs"));
    assert_eq!(runs_csv(&lab), "");
}

#[test]
fn what_the_runs_do_not_identify_is_not_headlined() {
    let mut lab = fitted().clone();
    let record = lab.fit.as_mut().unwrap();
    let chosen = record.chosen.clone().unwrap();
    let law = record.laws.iter_mut().find(|law| law.name == chosen).unwrap();
    law.identified = false;
    law.reasons = vec!["add larger runs".to_owned()];
    let names: Vec<&str> = figures(&lab).iter().map(|figure| figure.name).collect();
    assert!(!names.contains(&"isoloss") && names.contains(&"loss-flops"), "{names:?}");
    let page = html(&lab);
    assert!(page.contains("not identified") && page.contains("add larger runs"));
    assert!(!page.contains("size exponent alpha") && !page.contains("id=\"ask\""));
    assert!(html(fitted()).contains("size exponent alpha"));
}

#[test]
fn frontier_is_the_least_loss_of_its_budget() {
    let lab = fitted();
    let (ledger, found) = (Ledger::of(lab).unwrap(), lab.law().unwrap());
    for (run, _) in lab.scored().filter(|(run, _)| run.arm == "dense") {
        let counted = run.flops().get() / run.tokens().as_f64();
        let ratio = ledger.flops_per_token(run.size()) / counted;
        assert!((ratio - 1.0).abs() < 0.05, "cost of {} params is off by {ratio}", run.size());
    }
    for flops in [1e11, 1e13, 1e15] {
        let best = ledger.optimum(&found, flops).unwrap();
        assert!((ledger.flops_per_token(best.params) * best.tokens / flops - 1.0).abs() < 1e-9);
        for shift in [0.5, 0.9, 1.1, 2.0] {
            let params = best.params * shift;
            assert!(found.loss(params, flops / ledger.flops_per_token(params)) > best.loss);
        }
        assert!((law(best.params, best.tokens) / best.loss - 1.0).abs() < 0.03, "near the planted law");
    }
    let size = ledger.size_for(1e13, 1e6);
    assert!((ledger.flops_per_token(size) * 1e6 / 1e13 - 1.0).abs() < 1e-6);
}

#[test]
fn a_tuned_sweep_shows_valleys_and_fits_only_their_floors() {
    let lab = planted::tuned();
    let fit = lab.fit.as_ref().unwrap();
    assert_eq!((lab.runs.len(), fit.tuning.as_ref().unwrap().kept.len()), (80, 16));
    let figures = figures(&lab);
    let marks = |name: &str| figures.iter().find(|figure| figure.name == name).unwrap().svg.matches("data-run").count();
    assert_eq!((marks("tuning"), marks("loss-params")), (80, 16));
    let figure = figures.iter().find(|figure| figure.name == "tuning").unwrap();
    assert!(figure.answer.contains("params_non_embedding"), "{}", figure.answer);
    assert_eq!(unbalanced(&figure.svg), None);
    let text = law_table(&lab);
    assert!(text.contains("tuned over learning_rate: the law sees 16 of 80 runs"), "{text}");
    assert!(text.contains("dense: best learning_rate = \""), "{text}");
}
