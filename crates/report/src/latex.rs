//! `law.tex`: the fitted laws and the allocation as `booktabs` tables, for `\input` in a paper. The tables round; the
//! comments above them keep every digit, and say which observations and which code the numbers are of.

mod allocation;
mod words;

use std::fmt::Write as _;

use isoloss_fit::{FitRecord, LawRecord};

use crate::lab::Lab;
use crate::table::ordered;
use words::{comment, escape, formula, interval, number, percent, symbol};

/// Columns of the table of laws.
const COLUMNS: usize = 6;

/// Both tables; comments alone where there is no law.
pub fn law_tex(lab: &Lab) -> String {
    let mut out = comment(&format!("scaling laws of {}, made by isoloss {}", lab.name, lab.code_version));
    let Some(fit) = &lab.fit else {
        let why = lab.fit_refusal.as_deref().unwrap_or("no fit has been made");
        out.push_str(&comment(&format!("no law: {why}")));
        return out;
    };
    provenance(&mut out, fit);
    let laws = chosen_first(fit);
    if laws.is_empty() {
        out.push_str(&comment("no law could be fitted"));
        return out;
    }
    exact(&mut out, &laws);
    table_of_laws(&mut out, lab, fit, &laws);
    allocation::tables(&mut out, lab, fit);
    out
}

fn provenance(out: &mut String, fit: &FitRecord) {
    let (observed, settings) = (&fit.observations, &fit.settings);
    let data = format!("{} observations, digest {}", observed.count, observed.digest);
    out.push_str(&comment(&data));
    let how = format!(
        "fitted by isoloss {}: Huber delta {}, {} resamples, seed {}",
        settings.code_version, settings.huber_delta, settings.resamples, settings.seed
    );
    out.push_str(&comment(&how));
    for refused in &fit.refused {
        out.push_str(&comment(&format!("not fitted: {}: {}", refused.name, refused.reason)));
    }
}

fn chosen_first(fit: &FitRecord) -> Vec<&LawRecord> {
    let chosen = |law: &&LawRecord| fit.chosen.as_deref() == Some(law.name.as_str());
    let others = fit.laws.iter().filter(|law| !chosen(law));
    fit.laws.iter().filter(chosen).chain(others).collect()
}

/// Rounded constants predict something else, so all digits stand beside the table.
fn exact(out: &mut String, laws: &[&LawRecord]) {
    for law in laws {
        let numbers: Vec<String> = ordered(law).iter().map(|(name, value)| format!("{name} = {value}")).collect();
        out.push_str(&comment(&format!("{}, all digits: {}", law.name, numbers.join(", "))));
    }
    out.push_str(&comment("needs \\usepackage{booktabs} and \\usepackage{amsmath}"));
}

fn table_of_laws(out: &mut String, lab: &Lab, fit: &FitRecord, laws: &[&LawRecord]) {
    let level = format!("{:.0}\\,\\%", 100.0 * laws[0].intervals.level);
    let _ = write!(
        out,
        "\\begin{{table}}\n  \\centering\n  \\caption{{{}}}\n  \\label{{tab:laws}}\n  \\begin{{tabular}}{{lrlrrr}}\n    \
         \\toprule\n     & Value & {level} interval & rms error & Hold-out error & Runs \\\\\n",
        caption(lab, fit)
    );
    for law in laws {
        law_rows(out, law, fit.chosen.as_deref() == Some(law.name.as_str()));
    }
    out.push_str("    \\bottomrule\n  \\end{tabular}\n\\end{table}\n");
}

fn caption(lab: &Lab, fit: &FitRecord) -> String {
    let arms: Vec<String> = fit.arms.iter().map(|arm| format!("\\texttt{{{}}}", escape(arm))).collect();
    // Of a table of runs nobody says the unit.
    let unit = lab.scored().next().map(|_| format!(" in {}", lab.unit_name())).unwrap_or_default();
    format!(
        "Laws of the loss{unit} fitted to the runs of {}. $N$ counts \\texttt{{{}}}, $D$ training tokens. Hold-out error: \
         mean relative error on the {}.",
        arms.join(", "),
        escape(&fit.observations.params_convention),
        held(fit)
    )
}

/// Which runs were held out, in words.
fn held(fit: &FitRecord) -> String {
    let rule = fit.laws.iter().find_map(|law| law.holdout.as_ref()).map(|holdout| holdout.rule.as_str());
    format!("{}, kept from that fit", escape(rule.unwrap_or("largest runs")))
}

/// A law over the whole width, then one row a parameter; what is the law's own stands in the first of these.
fn law_rows(out: &mut String, law: &LawRecord, chosen: bool) {
    let mut words = vec![format!("\\emph{{{}}}: $L = {}$", escape(&law.name), formula(&law.formula))];
    words.extend(chosen.then(|| "chosen".to_owned()));
    words.extend((!law.identified).then(|| "not identified".to_owned()));
    let _ = writeln!(out, "    \\midrule\n    \\multicolumn{{{COLUMNS}}}{{l}}{{{}}} \\\\", words.join(", "));
    let holdout = law.holdout.as_ref().map_or_else(|| "--".to_owned(), |held| percent(held.mean_relative_error));
    let own = format!("{} & {holdout} & {}", percent(law.rms_relative_error), law.residuals.len());
    for (at, (name, value)) in ordered(law).into_iter().enumerate() {
        let beside = if at == 0 { own.as_str() } else { " &  & " };
        let range = interval(law.intervals.get(name));
        let _ = writeln!(out, "    ${}$ & {} & {range} & {beside} \\\\", symbol(name), number(value));
    }
}
