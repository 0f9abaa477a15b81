//! What tuning chose, in lines for a terminal: the best value of each size and budget, and the rule behind them.

use std::fmt::Write as _;

use isoloss_fit::response::ResponseRecord;
use isoloss_fit::tuning::{CellRecord, TuningRecord};

use isoloss_sweep::count::four_digits;

use crate::plot::short_si;
use crate::table::digits;

/// Cells that are listed; the others are in the JSON.
const CELLS_SHOWN: usize = 24;

pub(crate) fn lines(out: &mut String, tuning: &TuningRecord) {
    let over: Vec<&str> = tuning.over.iter().map(|parameter| parameter.name()).collect();
    let _ = writeln!(
        out,
        "tuned over {}: the law sees {} of {} runs, the best of each size and budget",
        over.join(", "),
        tuning.kept.len(),
        tuning.tried
    );
    for cell in tuning.cells.iter().take(CELLS_SHOWN) {
        cell_line(out, cell);
    }
    if tuning.cells.len() > CELLS_SHOWN {
        let _ = writeln!(out, "    and {} more; --json has them all", tuning.cells.len() - CELLS_SHOWN);
    }
    for response in &tuning.responses {
        response_lines(out, response);
    }
    let edges = tuning.cells.iter().filter(|cell| !cell.edges.is_empty()).count();
    if edges > 0 {
        let _ = writeln!(
            out,
            "  in {edges} of {} cells the best value is the last that was tried (marked *): try further; a ladder that \
             is undertuned somewhere bends the law",
            tuning.cells.len()
        );
    }
}

fn cell_line(out: &mut String, cell: &CellRecord) {
    let best: Vec<String> = cell
        .best
        .iter()
        .map(|(parameter, value)| {
            let mark = if cell.edges.contains(parameter) { "*" } else { "" };
            format!("{parameter} {}{mark}", four_digits(*value))
        })
        .collect();
    let apart: Vec<String> = cell.apart.iter().map(|(of, value)| format!("  {of} {}", four_digits(*value))).collect();
    let _ = writeln!(
        out,
        "  {:<12} {:>7} params {:>7} tokens{}  loss {:.4}  best of {:>2}: {}{}",
        cell.arm,
        short_si(cell.params),
        short_si(cell.tokens),
        apart.concat(),
        cell.loss,
        cell.settings,
        best.join(", "),
        if cell.diverged > 0 { format!("  ({} diverged)", cell.diverged) } else { String::new() }
    );
}

fn response_lines(out: &mut String, response: &ResponseRecord) {
    let (name, arm) = (response.parameter, &response.arm);
    if let Some(reason) = &response.refused {
        let _ = writeln!(out, "  {arm}: no rule for {name}: {reason}");
        return;
    }
    let _ = writeln!(out, "  {arm}: best {name} = \"{}\"", response.expression);
    if response.exponents.contains_key("batch") {
        let _ = writeln!(out, "    (for [derive], with batch set in [train], [axes] or [derive] too)");
    }
    let [low, high] = response.value_interval;
    let _ = writeln!(out, "    coefficient [{}, {}]", digits(low), digits(high));
    for (of, value) in &response.exponents {
        let range = response.exponent_intervals.get(of).map(|[low, high]| format!(" [{low:.3}, {high:.3}]"));
        let _ = writeln!(out, "    exponent of {of} {value:.3}{}", range.unwrap_or_default());
    }
    let _ = writeln!(
        out,
        "    a value twice or half the best costs {:.2} % of the loss; {} points of {} curves, rms {:.2} %",
        100.0 * response.cost_of_two,
        response.points,
        response.cells,
        100.0 * response.rms
    );
}
