//! The report as one page that needs nothing else: style, script, drawings and data are inline, so that it opens from a
//! file, without a network, and can be sent by mail. Every text from outside is escaped on its way in.

mod law;
mod trade;

use std::fmt::Write as _;

use isoloss_fit::{LawRecord, ScalingLaw};
use serde_json::{Value, json};

use crate::checklist::checklist;
use crate::export::{Row, fit_json, runs_csv};
use crate::figures::Figure;
use crate::lab::{Lab, LabRun};
use crate::latex::law_tex;
use crate::plot::{css_variables, escape, power, short_si};

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// The whole page.
pub(crate) fn page(lab: &Lab, figures: &[Figure]) -> String {
    let name = escape(&lab.name);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:\">\n<title>{name} \u{b7} isoloss</title>\n\
         <style>\n{}{STYLE}</style>\n</head>\n<body>\n",
        css_variables()
    );
    header(&mut out, lab);
    out.push_str("<main>\n");
    law::cards(&mut out, lab);
    out.push_str("<section class=\"figures\">\n");
    for figure in figures {
        draw(&mut out, figure);
    }
    out.push_str("</section>\n");
    law::section(&mut out, lab);
    runs(&mut out, lab);
    out.push_str("</main>\n");
    footer(&mut out, lab);
    data(&mut out, lab);
    let _ =
        write!(out, "<div id=\"tip\" role=\"status\" hidden></div>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    out
}

/// The sweep in a few sentences, plain text.
pub(crate) fn summary(lab: &Lab) -> Vec<String> {
    let finished = lab.scored().count();
    let arms = lab.arms.join(", ");
    let mut lines = vec![match lab.fit.as_ref().filter(|_| lab.runs.is_empty()) {
        Some(fit) => format!("{} runs of a table ({arms})", fit.observations.count),
        None => format!("{finished} of {} runs finished ({arms})", lab.runs.len()),
    }];
    if let Some((run, loss)) = lab.best(|_| true) {
        let (size, tokens) = (short_si(run.size()), short_si(run.tokens().as_f64()));
        let unit = lab.unit_name();
        lines.push(format!("best {loss:.4} {unit}: {}, {size} active params, {tokens} tokens", run.arm));
    }
    if let Some(truth) = lab.truth() {
        lines.push(format!("true entropy of the scored bytes: {truth:.4} {}", lab.unit_name()));
    }
    match lab.fit.as_ref().and_then(|fit| fit.chosen_law()) {
        Some(law) => {
            let verdict = if law.identified { "identified" } else { "not identified" };
            lines.push(format!("{} law, {verdict}, rms error {:.2} %", law.name, 100.0 * law.rms_relative_error));
        }
        None => lines.extend(lab.fit_refusal.clone()),
    }
    lines
}

fn header(out: &mut String, lab: &Lab) {
    let made = lab.made_at.as_deref().map(|at| format!(" \u{b7} {}", escape(&whole_seconds(at)))).unwrap_or_default();
    let id =
        lab.sweep_id.as_deref().map(|id| format!(" \u{b7} {}", escape(&id[..id.len().min(12)]))).unwrap_or_default();
    let _ = write!(
        out,
        "<header>\n<div><p class=\"kicker\">isoloss report{id}{made}</p>\n<h1>{}</h1>\n<p class=\"lead\">{}</p></div>\n\
         <nav class=\"tools\"><button type=\"button\" data-do=\"theme\">light / dark</button>\
         <button type=\"button\" data-do=\"csv\">runs.csv</button>\
         <button type=\"button\" data-do=\"fit\">fit.json</button>\
         <button type=\"button\" data-do=\"tex\">law.tex</button>\
         <button type=\"button\" data-do=\"checklist\">checklist.md</button></nav>\n</header>\n",
        escape(&lab.name),
        escape(&corpus(lab))
    );
    if lab.arms.len() > 1 {
        out.push_str("<div class=\"arms\" role=\"group\" aria-label=\"arms shown\">\n");
        for (index, arm) in lab.arms.iter().enumerate() {
            let arm = escape(arm);
            let _ = writeln!(
                out,
                "<label class=\"arm\"><input type=\"checkbox\" checked data-toggle=\"{arm}\">\
                 <span class=\"dot\" style=\"background:var(--arm{})\"></span>{arm}</label>",
                index % 6
            );
        }
        out.push_str("</div>\n");
    }
}

/// A time without fractions of a second: nobody reads nanoseconds.
fn whole_seconds(at: &str) -> String {
    match at.split_once('.') {
        Some((whole, fraction)) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{whole}{zone}")
        }
        None => at.to_owned(),
    }
}

/// What was read, in a sentence.
fn corpus(lab: &Lab) -> String {
    if let Some(fit) = lab.fit.as_ref().filter(|_| lab.runs.is_empty()) {
        return format!("{} runs of a table, of which only the fit is known here.", fit.observations.count);
    }
    let runs = format!("{} runs", lab.runs.len());
    let Some(manifest) = lab.manifests.first() else {
        return runs;
    };
    let source = match &manifest.spec.source {
        isoloss_sweep::corpus::Source::Files { paths, .. } => paths.join(", "),
        isoloss_sweep::corpus::Source::Synthetic { preset, .. } => {
            format!("the synthetic language ({preset:?})").to_lowercase()
        }
    };
    let (train, validation) = (short_si(manifest.train.bytes as f64), short_si(manifest.validation.bytes as f64));
    format!("{runs} on {source}: {train} bytes to learn from, {validation} bytes kept for validation.")
}

fn draw(out: &mut String, figure: &Figure) {
    // Fixed sizes are for files; on the page a drawing takes the width it is given.
    let end = figure.svg.find('>').unwrap_or(0);
    let (open, rest) = figure.svg.split_at(end);
    let open = open.split(" width=").next().unwrap_or(open).to_owned() + " preserveAspectRatio=\"xMidYMid meet\"";
    let font = figure.svg[..end].find(" font-family=").map(|at| &figure.svg[at..end]).unwrap_or_default();
    let name = figure.name;
    let _ = write!(
        out,
        "<figure id=\"{name}\">\n<h2>{}</h2>\n<div class=\"scroll\">{open}{font}{rest}</div><figcaption>{} \
         <button type=\"button\" class=\"quiet\" data-do=\"svg\">svg</button></figcaption>\n</figure>\n",
        escape(figure.question),
        escape(&figure.answer)
    );
}

fn runs(out: &mut String, lab: &Lab) {
    if lab.runs.is_empty() {
        return;
    }
    let differences = lab.differences();
    let told = differences.iter().any(|differs| !differs.is_empty());
    let _ = writeln!(
        out,
        "<section id=\"runs\"><h2>Runs</h2>\n<div class=\"scroll\"><table class=\"sortable\"><thead><tr>\
         <th>run</th><th>arm</th><th>state</th><th class=\"n\">active params</th><th class=\"n\">total params</th>\
         <th class=\"n\">tokens</th><th class=\"n\">FLOPs</th><th class=\"n\">bits per byte</th><th class=\"n\">off the law</th>\
         <th class=\"n\">seconds</th>{}</tr></thead>\n<tbody>",
        if told { "<th>differs</th>" } else { "" }
    );
    for (run, differs) in lab.runs.iter().zip(&differences) {
        run_row(out, lab, run, differs);
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn run_row(out: &mut String, lab: &Lab, run: &LabRun, differs: &str) {
    let row = Row::of(lab, run);
    let cell = |value: Option<f64>, word: String| {
        let key = value.map(|value| format!(" data-v=\"{value}\"")).unwrap_or_default();
        format!("<td class=\"n\"{key}>{word}</td>")
    };
    let off = row.fitted_loss.zip(run.loss(lab.unit)).map(|(fitted, loss)| 100.0 * (loss / fitted - 1.0));
    let why = row.reason.as_deref().map(|reason| format!(" title=\"{}\"", escape(reason))).unwrap_or_default();
    let _ = write!(
        out,
        "<tr data-run=\"{id}\" data-arm=\"{arm}\"><td><code>{id}</code></td><td class=\"w\">{arm}</td><td{why}>{state}</td>",
        id = run.run_id.short(),
        arm = escape(&run.arm),
        state = escape(&run.state)
    );
    for count in [row.params_active_non_embedding as f64, row.params_non_embedding as f64, row.tokens as f64] {
        out.push_str(&cell(Some(count), short_si(count)));
    }
    out.push_str(&cell(Some(row.flops), power(row.flops)));
    let optional = |value: Option<f64>, word: &dyn Fn(f64) -> String| cell(value, value.map(word).unwrap_or_default());
    out.push_str(&optional(row.bits_per_byte, &|bits| format!("{bits:.4}")));
    out.push_str(&optional(off, &|off| format!("{off:+.2} %")));
    out.push_str(&optional(row.seconds, &|seconds| format!("{seconds:.1}")));
    if !differs.is_empty() {
        let _ = write!(out, "<td class=\"w\">{}</td>", escape(differs));
    }
    out.push_str("</tr>\n");
}

fn footer(out: &mut String, lab: &Lab) {
    let _ = writeln!(
        out,
        "<footer><p>Made by isoloss {}.{} Sizes are params without embeddings unless named; FLOPs are counted, \
         forward and backward, attention and head included.</p></footer>",
        escape(&lab.code_version),
        escape(&lab.trained())
    );
}

/// What the script offers for download and computes with. `<` is written as an escape, so that no text ends the element.
fn data(out: &mut String, lab: &Lab) {
    let value = json!({
        "name": lab.name,
        "unit": lab.unit_name(),
        "law": lab.law().and_then(|law| numbers(&law)),
        "others": others(lab),
        "runs": seen(lab),
        "truth": lab.truth(),
        "csv": runs_csv(lab),
        "fit": fit_json(lab),
        "tex": law_tex(lab),
        "checklist": checklist(lab),
    });
    let text = value.to_string().replace('<', "\\u003c");
    let _ = writeln!(out, "<script type=\"application/json\" id=\"data\">{text}</script>");
}

/// A law's numbers for the calculator; none for a law without a trade between size and data.
fn numbers(law: &ScalingLaw) -> Option<Value> {
    let (alpha, beta) = law.exponents()?;
    let named = |name: &str| law.parameter(name);
    Some(
        json!({ "E": named("E")?, "A": named("A")?, "B": named("B")?, "q": named("q")?, "alpha": alpha, "beta": beta }),
    )
}

/// The other laws that the runs identify: how far they part says how far to trust any of them beyond the runs.
fn others(lab: &Lab) -> Vec<Value> {
    let Some(fit) = &lab.fit else {
        return Vec::new();
    };
    let others = fit.laws.iter().filter(|law| law.identified && fit.chosen.as_deref() != Some(law.name.as_str()));
    let named = |law: &LawRecord| Some(json!({ "name": law.name, "law": numbers(&law.scaling_law()?)? }));
    others.filter_map(named).collect()
}

/// What the law was fitted to: the largest size and budget, and how far the law misses.
fn seen(lab: &Lab) -> Option<Value> {
    let law = lab.fit.as_ref()?.chosen_law()?;
    let runs: Vec<&LabRun> = lab.scored().map(|(run, _)| run).filter(|run| lab.fitted(&run.arm)).collect();
    let most = |of: &dyn Fn(&LabRun) -> f64| runs.iter().map(|run| of(run)).fold(0.0, f64::max);
    let least = |of: &dyn Fn(&LabRun) -> f64| runs.iter().map(|run| of(run)).fold(f64::INFINITY, f64::min);
    let (size, tokens) = (|run: &LabRun| run.size(), |run: &LabRun| run.tokens().as_f64());
    (!runs.is_empty()).then(|| {
        json!({
            "params": [least(&size), most(&size)],
            "tokens": [least(&tokens), most(&tokens)],
            "rms": law.rms_relative_error,
        })
    })
}
