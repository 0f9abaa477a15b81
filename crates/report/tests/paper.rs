//! What a paper needs of a fit: a table that LaTeX reads, a checklist that guesses nothing, and the way to the same numbers
//! again.

mod planted;

use std::sync::OnceLock;

use isoloss_fit::{Asked, Columns, FitRecord, LossUnit, Observation, Observations, Settings, fit, read_csv};
use isoloss_report::{Lab, checklist, law_tex, runs_csv, write};
use isoloss_sweep::Outcome;
use isoloss_sweep::outcome::Diverged;
use isoloss_sweep::spec::parse_number;

/// Fitting is the slow part; one fit serves all tests.
fn fitted() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(planted::lab)
}

fn tuned() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(planted::tuned)
}

/// A table of runs of which nothing is known but its numbers.
fn of_table() -> Lab {
    let rows = [(1e6, 2e7), (1e6, 8e7), (2e6, 2e7), (2e6, 8e7), (4e6, 2e7), (4e6, 8e7), (8e6, 4e7), (8e6, 3e8)];
    let mut text = "params,tokens,loss\n".to_owned();
    for (params, tokens) in rows {
        text.push_str(&format!("{params},{tokens},{}\n", planted::law(params, tokens)));
    }
    text.push_str("1e6,2e7,\n");
    let table = read_csv(text.as_bytes(), &Columns::default()).unwrap();
    let settings = Settings { resamples: 40, ..Settings::default() };
    let record = fit(&table, &settings, &mut |_| ());
    let (runs, manifests) = (Vec::new(), Vec::new());
    let (name, arms) = ("my runs & 50%.csv".to_owned(), record.arms.clone());
    Lab { name, unit: LossUnit::NatsPerToken, arms, runs, manifests, fit: Some(record), ..planted::unfitted() }
}

/// The boxes of a checklist: whether each is ticked, and its line.
fn boxes(list: &str) -> Vec<(bool, &str)> {
    list.lines()
        .filter_map(|line| {
            let known = line.strip_prefix("- [x] ").map(|rest| (true, rest));
            known.or_else(|| line.strip_prefix("- [ ] ").map(|rest| (false, rest)))
        })
        .collect()
}

/// The answer to the question that begins so.
fn answer<'l>(list: &'l str, question: &str) -> (bool, &'l str) {
    let found = boxes(list).into_iter().find(|(_, line)| line.starts_with(&format!("**{question}")));
    let (known, line) = found.unwrap_or_else(|| panic!("no question {question:?} in\n{list}"));
    (known, line.split_once("** ").unwrap().1)
}

/// Cells of a row of a table, those that span several counted as so many.
fn cells(row: &str) -> usize {
    let signs = row.replace("\\&", "").matches('&').count();
    let spans =
        row.split("\\multicolumn{").skip(1).map(|rest| rest.split('}').next().unwrap().parse::<usize>().unwrap());
    1 + signs + spans.map(|span| span - 1).sum::<usize>()
}

/// That braces, environments and math close, and that every row has the columns that its table declares.
fn sound_latex(tex: &str) {
    let code: Vec<&str> = tex.lines().filter(|line| !line.starts_with('%')).collect();
    let code = code.join("\n");
    let mut depth = 0_i32;
    let mut escaped = false;
    for letter in code.chars() {
        match letter {
            '{' if !escaped => depth += 1,
            '}' if !escaped => depth -= 1,
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
        assert!(depth >= 0, "{tex}");
    }
    assert_eq!(depth, 0, "{tex}");
    assert_eq!(code.replace("\\$", "").matches('$').count() % 2, 0, "{tex}");
    let mut open: Vec<&str> = Vec::new();
    let mut columns = 0;
    for line in code.lines() {
        let line = line.trim();
        for begun in line.split("\\begin{").skip(1) {
            let (name, rest) = begun.split_once('}').unwrap();
            open.push(name);
            if name == "tabular" {
                columns = rest.trim_matches(['{', '}']).len();
            }
        }
        if let Some(ended) = line.strip_prefix("\\end{") {
            assert_eq!(open.pop(), ended.strip_suffix('}'));
        }
        if let Some(row) = line.strip_suffix("\\\\") {
            assert_eq!(cells(row), columns, "{row}");
        }
    }
    assert!(open.is_empty(), "{open:?}");
    // A bare per cent sign would swallow the rest of its line.
    assert!(!code.replace("\\%", "").contains('%'), "{tex}");
}

#[test]
fn the_table_of_laws_is_latex_with_the_chosen_one_first() {
    let tex = law_tex(fitted());
    sound_latex(&tex);
    let record = fitted().fit.as_ref().unwrap();
    let law = record.chosen_law().unwrap();
    assert!(tex.contains(&format!("digest {}", record.observations.digest)), "{tex}");
    assert!(tex.contains(&format!("E = {}", law.parameters["E"])), "all digits stand in a comment\n{tex}");
    assert!(tex.contains("$L = E + A N^{-\\alpha} + B D^{-\\beta}$, chosen"), "{tex}");
    let first = tex.find("\\multicolumn").unwrap();
    assert!(tex[first..].starts_with(&format!("\\multicolumn{{6}}{{l}}{{\\emph{{{}}}", law.name)), "{tex}");
    assert_eq!(tex.matches("\\multicolumn").count(), record.laws.len());
    assert_eq!(tex.contains("\\label{tab:allocation}"), record.allocation.as_ref().is_some_and(|at| at.identified));
    assert!(tex.contains("$1\\times 10^{14}$ FLOPs"), "{tex}");
    assert!(tex.contains("loss in bits per byte") && tex.contains("params\\_active\\_non\\_embedding"), "{tex}");
}

#[test]
fn names_from_outside_stay_text_in_latex_and_markdown() {
    let mut lab = fitted().clone();
    let hostile = "a_b & 50% #1 {x\n\\end{document} [y](z)";
    hostile.clone_into(&mut lab.name);
    let record = lab.fit.as_mut().unwrap();
    record.arms = vec![hostile.to_owned()];
    record.observations.params_convention = hostile.to_owned();
    record.laws[0].intervals.of.insert("E".to_owned(), [0.0, f64::INFINITY]);
    let tex = law_tex(&lab);
    sound_latex(&tex);
    assert!(!tex.lines().any(|line| line.trim_start().starts_with("\\end{document}")), "{tex}");
    assert!(tex.contains("a\\_b \\& 50\\% \\#1 \\{x \\textbackslash{}end\\{document\\}"), "{tex}");
    let list = checklist(&lab);
    assert_eq!(boxes(&list).len(), boxes(&checklist(fitted())).len());
    assert!(!list.contains("[y](z)"), "{list}");
}

#[test]
fn what_is_not_identified_gets_no_allocation_and_no_fit_no_table() {
    let mut lab = fitted().clone();
    let record = lab.fit.as_mut().unwrap();
    let chosen = record.chosen.clone().unwrap();
    let law = record.laws.iter_mut().find(|law| law.name == chosen).unwrap();
    (law.identified, law.reasons) = (false, vec!["add larger runs".to_owned()]);
    let tex = law_tex(&lab);
    sound_latex(&tex);
    assert!(tex.contains("chosen, not identified") && !tex.contains("tab:allocation"), "{tex}");
    assert!(tex.contains("% no allocation, it is not identified: add larger runs"), "{tex}");
    assert_eq!(answer(&checklist(&lab), "Do the runs identify").1, "No: add larger runs.");

    let none = law_tex(&planted::unfitted());
    assert!(none.lines().all(|line| line.starts_with('%')) && none.contains("the fit waits for more runs"), "{none}");
    let list = checklist(&planted::unfitted());
    assert_eq!(answer(&list, "Which law"), (false, "not known: the fit waits for more runs"));
    assert!(answer(&list, "Which tokenizer").0 && !list.contains("```"), "the runs are told without a fit");
}

#[test]
fn a_checklist_answers_what_the_sweep_knows_and_leaves_the_rest_open() {
    let list = checklist(fitted());
    let record = fitted().fit.as_ref().unwrap();
    for (question, words) in [
        ("Which law", "additive: `L = E + A N^-alpha + B D^-beta`, Hoffmann et al. 2203.15556, eq. 2."),
        ("What does the law predict", "bits per byte"),
        ("What does N count", "weights used for one token, without embedding table and output head"),
        ("How do mixtures", "Beside the law of dense: moe-8-top2 (4 runs)"),
        ("Which architecture", "layers 2 to 5 (4 values)"),
        ("Which optimiser", "beta1 0.9, beta2 0.95, epsilon 0.00000001, weight decay 0.1"),
        ("Which peak learning rates", "0.003;"),
        ("Which batches", "2.05k tokens, in sequences: 8."),
        ("How does the rate move", "warmup 32 steps"),
        ("In which arithmetic", "engine cpu in f32, numerics version 1; on planted."),
        ("Which corpus", "The synthetic language, preset tiny, seed 1, 8000000 bytes"),
        ("Which text is scored", "40 documents, 400000 bytes"),
        ("How much of it", "262144 bytes"),
        ("Was any text seen", "No run saw"),
        ("Is the entropy", "1.9500 bits per byte"),
        ("How many runs", "16 runs: N"),
        ("Are the runs independent", "16 runs share the beginning of their training in 4 groups"),
        ("Which runs were left out", "loss 31.2 passed the ceiling"),
        ("Which runs were left out", "4 runs of other arms than dense"),
        ("Why this law", "tied (rms"),
        ("What is minimised", "Huber loss"),
        ("What is minimised", "threshold 0.001"),
        ("What shows", "Newton decrement"),
        ("How are the intervals", "Level 95 %, bootstrap of clusters with 200 resamples from seed 1"),
        ("How far does it miss", "largest 20% by flops (3 runs)"),
        ("Do its intervals hold", "intervals of 90 % hold"),
        ("How far beyond", "allocation at 10\u{b9}\u{2074} FLOPs"),
        ("Which code", "trained by isoloss test, reported by isoloss test"),
        ("Exactly which", &record.observations.digest.to_string()),
        ("Does the table of runs", "its 20 observations have that digest"),
    ] {
        let (known, text) = answer(&list, question);
        assert!(known && text.contains(words), "{question}: {text}");
    }
    for question in ["Were hyper-parameters tuned", "Which seeds", "Were law, hold-out"] {
        let (known, text) = answer(&list, question);
        assert!(!known && text.starts_with("not known: "), "{question}: {text}");
    }
    let known = boxes(&list).iter().filter(|(known, _)| *known).count();
    assert!(list.contains(&format!("{known} of {} questions are answered", boxes(&list).len())));
    assert_eq!(boxes(&list).len() - known, 3, "{list}");
    for word in ["NaN", "inf ", "None,", "Some("] {
        assert!(!list.contains(word), "{word}\n{list}");
    }
}

#[test]
fn a_checklist_of_a_table_knows_its_numbers_and_not_its_runs() {
    let lab = of_table();
    let list = checklist(&lab);
    for question in [
        "What does the law predict",
        "What does N count",
        "How are FLOPs counted",
        "Which architecture",
        "Which peak learning rates",
        "Which corpus",
        "Is the entropy",
        "Does the table of runs",
    ] {
        let (known, text) = answer(&list, question);
        assert!(!known, "{question}: {text}");
    }
    assert_eq!(answer(&list, "Which runs were left out"), (true, "1 run (line 10): loss is missing."));
    assert!(answer(&list, "How many runs").1.starts_with("8 runs: N 1M to 8M (4 values), D 20M to 300M (4 values)"));
    let command = "isoloss fit --csv 'my runs & 50%.csv' --law auto --resamples 40 --seed 1 --holdout 'largest 20% by flops' --json";
    assert!(list.contains(&format!("```sh\n{command}\n```")), "{list}");
    let tex = law_tex(&lab);
    sound_latex(&tex);
    assert!(tex.contains("column params") && !tex.contains("nats per token"), "nobody said the unit\n{tex}");
}

#[test]
fn tuning_and_replicates_are_told() {
    let mut lab = tuned().clone();
    let list = checklist(&lab);
    let (known, text) = answer(&list, "Were hyper-parameters tuned");
    assert!(known && text.contains("the best of 5 settings in each of 16 cells, 16 of 80 runs"), "{text}");
    assert!(answer(&list, "Which runs were left out").1.contains("64 runs that were not the best of their cell"));
    assert!(list.contains("--best-of learning_rate"), "{list}");

    let kept = &lab.fit.as_ref().unwrap().tuning.as_ref().unwrap().kept;
    let mut twin = lab.runs.iter().find(|run| kept.contains(&run.run_id.to_string())).unwrap().clone();
    twin.run.train.seed = 2;
    let Some(Outcome::Finished(finished)) = &mut twin.outcome else { panic!("planted runs finish") };
    finished.score.bits_per_byte *= 1.01;
    twin.run_id = twin.run.id();
    let id = twin.run_id.to_string();
    lab.fit.as_mut().unwrap().tuning.as_mut().unwrap().kept.push(id);
    lab.runs.push(twin);
    let list = checklist(&lab);
    let (known, text) = answer(&list, "Which seeds");
    assert!(
        known && text.starts_with("Of seeds 1, 2; 1 setting with more than one, whose losses scatter by 0.70"),
        "{text}"
    );
    let (known, text) = answer(&list, "Does the table of runs");
    assert!(!known && text.contains("gives 17 observations"), "a table that is not the fitted one is told: {text}");
}

/// The fit of `runs.csv` alone, with the settings that the record holds.
fn again(lab: &Lab) -> FitRecord {
    let record = lab.fit.as_ref().unwrap();
    let list = checklist(lab);
    let map = list.split("--map ").nth(1).unwrap().split(' ').next().unwrap();
    let table = read_csv(runs_csv(lab).as_bytes(), &map.parse::<Columns>().unwrap()).unwrap();
    fit(&table, &record.settings_again().unwrap(), &mut |_| ())
}

/// Everything but the words about runs that were left out.
fn assert_same(lab: &Lab) {
    let (first, mut second) = (lab.fit.as_ref().unwrap(), again(lab));
    assert_eq!(second.observations.digest, first.observations.digest);
    second.observations.excluded.clone_from(&first.observations.excluded);
    assert_eq!(serde_json::to_string(&second).unwrap(), serde_json::to_string(first).unwrap());
}

#[test]
fn the_table_of_a_report_gives_the_fit_again_to_the_last_bit() {
    assert_same(fitted());
    assert_same(tuned());
}

#[test]
fn settings_that_are_not_the_usual_ones_and_diverged_runs_are_repeated_too() {
    let mut lab = tuned().clone();
    // The largest rate of one cell diverges in its only seed.
    let at = lab.runs.iter().position(|run| run.run.train.learning_rate == 1.6e-2).unwrap();
    let reason = "loss 31.2".to_owned();
    lab.runs[at].outcome =
        Some(Outcome::Diverged(Diverged { step: 9, reason, curve: Vec::new(), seconds: 1.0, gpu: None }));
    lab.runs[at].state = "diverged".to_owned();
    let row = |run: &isoloss_report::LabRun| match run.finished() {
        Some(finished) => Observation::of_run(&run.arm, &run.run, finished, lab.unit),
        None => Observation::of_diverged(&run.arm, &run.run),
    };
    let observations = Observations::new(lab.runs.iter().map(row).collect(), vec![], "params_active_non_embedding");
    let mut settings = tuned().fit.as_ref().unwrap().settings_again().unwrap();
    settings.holdout = "largest 30% by tokens".parse().unwrap();
    (settings.budget, settings.entropy, settings.seed) = (Some(3.1e14), Some(1.93), 7);
    (settings.serve_tokens, settings.params_max) = (Some(1e9), Some(2e6));
    settings.predict = vec![Asked::dense(1e7, 2.5e9)];
    lab.fit = Some(fit(&observations, &settings, &mut |_| ()));
    assert_eq!(
        lab.fit.as_ref().unwrap().tuning.as_ref().unwrap().cells.iter().map(|cell| cell.diverged).sum::<usize>(),
        1
    );
    assert_same(&lab);
    let list = checklist(&lab);
    for word in [
        "--seed 7",
        "--holdout 'largest 30% by tokens'",
        "--budget 3.1e14",
        "--serve-tokens 1e9",
        "--params-max 2e6",
        "--entropy 1.93e0",
        "--predict params=1e7,tokens=2.5e9",
    ] {
        assert!(list.contains(word), "{word}\n{list}");
    }
    // The command line reads these words by the same functions.
    assert_eq!("params=1e7,tokens=2.5e9".parse(), Ok(Asked::dense(1e7, 2.5e9)));
    assert_eq!((parse_number("3.1e14"), "1.93e0".parse()), (Some(3.1e14), Ok(1.93)));
}

#[test]
fn records_that_kept_less_still_read_and_say_so() {
    let mut value = serde_json::to_value(fitted().fit.as_ref().unwrap()).unwrap();
    value["settings"].as_object_mut().unwrap().remove("question");
    value["observations"].as_object_mut().unwrap().remove("fitted");
    let mut lab = fitted().clone();
    lab.fit = Some(serde_json::from_value(value).unwrap());
    let list = checklist(&lab);
    for question in ["How many runs", "How far beyond", "Which command"] {
        assert!(!answer(&list, question).0, "{question}");
    }
    assert!(!list.contains("```") && lab.fit.as_ref().unwrap().settings_again().is_none());
}

#[test]
fn both_files_are_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), fitted()).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!((read("law.tex"), read("checklist.md")), (law_tex(fitted()), checklist(fitted())));
    assert!(read("report.md").contains("[what the fit rests on](checklist.md)"));
    assert!(read("index.html").contains("data-do=\"checklist\""));
}
