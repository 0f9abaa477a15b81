//! The report as Markdown: for a README, an issue, a notebook. Figures are linked, not drawn.

use std::fmt::Write as _;

use crate::figures::Figure;
use crate::lab::Lab;
use crate::table::{digits, law_table, ordered};

/// What lies beside the page.
const FILES: &str = "\nBeside this page: [what the fit rests on](checklist.md), [the laws for LaTeX](law.tex), [the fit](fit.json), the \
                     runs as [CSV](runs.csv) and [JSON lines](runs.jsonl).\n";

/// The page, beside a folder `figures` that holds the drawings.
pub(crate) fn markdown(lab: &Lab, figures: &[Figure]) -> String {
    let mut out = format!("# {}\n\n", plain(&lab.name));
    for line in crate::html::summary(lab) {
        let _ = writeln!(out, "- {}", plain(&line));
    }
    law(&mut out, lab);
    for figure in figures {
        let (question, name) = (&figure.question, figure.name);
        let _ = write!(out, "\n## {question}\n\n![{question}](figures/{name}.svg)\n\n{}\n", plain(&figure.answer));
    }
    runs(&mut out, lab);
    out.push_str(FILES);
    let _ = writeln!(out, "\nMade by isoloss {}.{}", plain(&lab.code_version), plain(&lab.trained()));
    out
}

fn law(out: &mut String, lab: &Lab) {
    let Some((fit, law)) = lab.fit.as_ref().and_then(|fit| Some((fit, fit.chosen_law()?))) else {
        // A fence inside would end the block.
        let _ = write!(out, "\n```text\n{}```\n", law_table(lab).replace("```", "'"));
        return;
    };
    let level = 100.0 * law.intervals.level;
    let _ = write!(
        out,
        "\n## The law\n\n`L(N, D) = {}`\n\n| | value | {level:.0} % interval |\n|---|---|---|\n",
        law.formula
    );
    for (name, value) in ordered(law) {
        let range = law.intervals.get(name).map(|[low, high]| format!("[{}, {}]", digits(low), digits(high)));
        let _ = writeln!(out, "| {name} | {} | {} |", digits(value), range.unwrap_or_default());
    }
    for reason in &law.reasons {
        let _ = writeln!(out, "\n{}", plain(reason));
    }
    if let Some(diagnosis) = &fit.diagnosis {
        out.push_str("\n## Checks\n\n");
        for sentence in crate::diagnosis::sentences(diagnosis, fit, law).iter().chain(&diagnosis.warnings) {
            let _ = writeln!(out, "- {}", plain(sentence.trim_start()));
        }
    }
}

fn runs(out: &mut String, lab: &Lab) {
    out.push_str("\n## Runs\n\n| run | arm | state | active | total | tokens | FLOPs | bits per byte |\n|---|---|---|---|---|---|---|---|\n");
    for run in &lab.runs {
        let params = run.params();
        let bits = run.score().map(|score| format!("{:.4}", score.bits_per_byte)).unwrap_or_default();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {bits} |",
            run.run_id.short(),
            plain(&run.arm),
            plain(&run.state),
            params.active_non_embedding,
            params.non_embedding,
            run.tokens(),
            run.flops()
        );
    }
}

/// Text that stays text: Markdown's and HTML's marks escaped, on one line.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' => out.extend(['\\', letter]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
