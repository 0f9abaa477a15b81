//! What was predicted for the runs of a sweep beside what they took.

use isoloss_sweep::plan::Totals;
use isoloss_wire::api::RunRow;

use crate::status::gpu_hours;

/// A plan that ends within this is not held to what was predicted: it hangs on other things than speed.
const SECONDS_LEAST: f64 = 10.0;

/// For all runs of a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Predicted {
    seconds: Option<f64>,
    gpu_hours: Option<f64>,
}

impl Predicted {
    pub(crate) fn of(totals: &Totals) -> Self {
        Self { seconds: totals.seconds, gpu_hours: totals.gpu_hours }
    }

    /// A line for each that says something. The runs took so many seconds.
    pub(crate) fn beside(self, took_seconds: f64, rows: &[RunRow]) -> Vec<String> {
        let Some(seconds) = self.seconds.filter(|seconds| *seconds >= SECONDS_LEAST) else { return Vec::new() };
        let mut lines = vec![comparison(seconds, took_seconds, "s", 1)];
        if let (Some(hours), Some(spent)) = (self.gpu_hours.filter(|hours| *hours > 0.0), gpu_hours(rows)) {
            lines.push(comparison(hours, spent, "GPU hours", 3));
        }
        lines
    }
}

fn comparison(predicted: f64, took: f64, unit: &str, digits: usize) -> String {
    let off = 100.0 * (took / predicted.max(1e-9) - 1.0);
    let word = if off < 0.0 { "less" } else { "more" };
    let [predicted, took] = [predicted, took].map(|amount| format!("{amount:.digits$} {unit}"));
    format!("the runs were predicted to take {predicted} and took {took}, {:.0} % {word}", off.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(gpu_seconds: Option<f64>) -> RunRow {
        let mut row = serde_json::json!({
            "run_id": "1".repeat(64), "kind": "run", "arm": "dense", "state": "finished", "attempts": 1,
            "params_total": 1, "params_non_embedding": 1, "params_active": 1, "params_active_non_embedding": 1,
            "layers": 1, "width": 1, "tokens": 1, "flops": 1.0, "seed": 1,
        });
        if let Some(seconds) = gpu_seconds {
            row["gpu"] = serde_json::json!({ "uuid": "GPU-1", "seconds": seconds });
        }
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_prediction_is_held_to_what_happened() {
        let on_cores = Predicted { seconds: Some(200.0), gpu_hours: Some(0.0) };
        let text = on_cores.beside(218.0, &[row(None)]);
        assert_eq!(text, ["the runs were predicted to take 200.0 s and took 218.0 s, 9 % more"]);
        assert!(on_cores.beside(150.0, &[])[0].ends_with("25 % less"));
        let on_gpus = Predicted { seconds: Some(200.0), gpu_hours: Some(0.1) };
        let rows = [row(Some(120.0)), row(None), row(Some(276.0))];
        let text = "the runs were predicted to take 0.100 GPU hours and took 0.110 GPU hours, 10 % more";
        assert_eq!(on_gpus.beside(200.0, &rows)[1..], [text]);
        assert_eq!(on_gpus.beside(200.0, &[row(None)]).len(), 1, "nothing is known of what was spent");
        assert!(Predicted { seconds: Some(9.0), ..on_gpus }.beside(9.0, &rows).is_empty());
    }
}
