//! What several figures need of a sweep, worked out once, and the things they all draw alike.

use isoloss_fit::ScalingLaw;
use isoloss_fit::record::AllocationRecord;

use super::bounds;
use crate::lab::{Lab, LabRun};
use crate::ledger::Ledger;
use crate::plot::{Axis, Paint, Plot, Shape, Tip, power, short_si};

/// A sweep with at least one finished run.
pub(super) struct Scene<'a> {
    pub(super) lab: &'a Lab,
    /// Finished runs and their loss; of a tuned sweep the best of each size and budget.
    pub(super) runs: Vec<(&'a LabRun, f64)>,
    /// Finished runs of all settings.
    pub(super) tried: Vec<(&'a LabRun, f64)>,
    pub(super) law: Option<ScalingLaw>,
    pub(super) ledger: Option<Ledger>,
    /// Whether the data pin the law down.
    pub(super) identified: bool,
    pub(super) truth: Option<f64>,
}

impl<'a> Scene<'a> {
    pub(super) fn of(lab: &'a Lab) -> Option<Self> {
        let tried: Vec<_> = lab.scored().collect();
        let tuning = lab.fit.as_ref().and_then(|fit| fit.tuning.as_ref());
        let kept = |run: &LabRun| tuning.is_none_or(|tuning| tuning.kept.contains(&run.run_id.to_string()));
        let runs: Vec<_> = tried.iter().copied().filter(|(run, _)| kept(run)).collect();
        if runs.is_empty() {
            return None;
        }
        Some(Self {
            lab,
            runs,
            tried,
            law: lab.law(),
            ledger: Ledger::of(lab),
            identified: lab.fit.as_ref().and_then(|fit| fit.chosen_law()).is_some_and(|law| law.identified),
            truth: lab.truth(),
        })
    }

    /// Finished runs of the arms that the law was fitted to; all of them without a law.
    pub(super) fn fitted(&self) -> Vec<(&'a LabRun, f64)> {
        let keep = |run: &LabRun| self.law.is_none() || self.lab.fitted(&run.arm);
        self.runs.iter().copied().filter(|(run, _)| keep(run)).collect()
    }

    /// The finished run of that id.
    pub(super) fn run(&self, id: &str) -> Option<(&'a LabRun, f64)> {
        self.runs.iter().copied().find(|(run, _)| run.run_id.to_string() == id)
    }

    /// The law's irreducible loss with its interval, where the law has one.
    pub(super) fn floor(&self) -> Option<(f64, Option<[f64; 2]>)> {
        let record = self.lab.fit.as_ref()?.chosen_law()?;
        let value = record.parameters.get("E")?;
        Some((*value, record.intervals.get("E")))
    }

    /// The best split of a budget, where the runs pin down both the law and the split.
    pub(super) fn allocation(&self) -> Option<&'a AllocationRecord> {
        let record = self.lab.fit.as_ref()?.allocation.as_ref()?;
        (self.identified && record.identified).then_some(record)
    }

    /// A loss axis over the runs and, where they are near, the floor and the truth.
    pub(super) fn loss_axis(&self) -> Axis {
        let (best, worst) = bounds(self.runs.iter().map(|(_, loss)| *loss));
        let floors = [self.truth, self.floor().map(|(e, _)| e)].into_iter().flatten();
        let near = floors.filter(|floor| *floor > best - 2.0 * (worst - best).max(0.1 * best));
        let (low, high) = bounds(near.chain([best, worst]));
        Axis::linear(low, high, self.lab.unit_name()).padded(0.07, 0.05)
    }

    /// The floor as the law sees it and, on a synthetic language, as it is.
    pub(super) fn draw_floor(&self, plot: &mut Plot) {
        let seen = |plot: &Plot, loss: f64| loss >= plot.y_axis().low();
        if let Some((floor, interval)) = self.floor().filter(|(floor, _)| seen(plot, *floor)) {
            if let Some([low, high]) = interval.filter(|_| self.identified) {
                let (left, right) = (plot.x_axis().low(), plot.x_axis().high());
                let (low, high) = (low.max(plot.y_axis().low()), high.min(plot.y_axis().high()));
                plot.band(&[(left, low, high), (right, low, high)], Paint::Law, 0.10);
            }
            plot.level(floor, Paint::Law, "7 4");
            let doubt = if self.identified { "" } else { "?" };
            plot.end_label(floor, &format!("E = {floor:.3}{doubt}"), Paint::Law, None);
        }
        if let Some(truth) = self.truth.filter(|truth| seen(plot, *truth)) {
            plot.level(truth, Paint::Truth, "");
            plot.end_label(truth, &format!("true {truth:.3}"), Paint::Truth, None);
        }
    }

    /// Shapes of the arms, where there is more than one.
    pub(super) fn draw_legend(&self, plot: &mut Plot, paint: impl Fn(usize) -> Paint) {
        let drawn = |arm: &&String| self.runs.iter().any(|(run, _)| run.arm == **arm);
        let arms: Vec<&String> = self.lab.arms.iter().filter(drawn).collect();
        if arms.len() > 1 {
            let index = |arm: &String| self.lab.arm_index(arm);
            let entries = arms.iter().map(|arm| (Shape::of(index(arm)), paint(index(arm)), arm.as_str()));
            plot.legend(&entries.collect::<Vec<_>>());
        }
    }

    pub(super) fn shape(&self, run: &LabRun) -> Shape {
        Shape::of(self.lab.arm_index(&run.arm))
    }

    /// What a run's mark tells.
    pub(super) fn tip(&self, run: &LabRun, loss: f64) -> Tip {
        let params = run.params();
        let size = short_si(params.active_non_embedding.as_f64());
        let shape = match run.experts() {
            Some(experts) => format!("{size} active of {} params, {experts}", short_si(params.non_embedding.as_f64())),
            None => format!("{size} params"),
        };
        let mut lines = vec![
            format!("{} {}", run.arm, run.run_id.short()),
            format!("{loss:.4} {}", self.lab.unit_name()),
            shape,
            format!("{} tokens, {} FLOPs", short_si(run.tokens().as_f64()), power(run.flops().get())),
        ];
        if let Some(law) = self.law.as_ref().filter(|_| self.lab.fitted(&run.arm)) {
            let ratio = loss / law.loss(run.size(), run.tokens().as_f64()) - 1.0;
            lines.push(format!("{:+.2} % off the law", 100.0 * ratio));
        }
        if let Some(truth) = self.truth {
            lines.push(format!("{:+.3} above the true entropy", loss - truth));
        }
        Tip { run: Some(run.run_id.short()), arm: Some(run.arm.clone()), text: lines.join("\n") }
    }
}
