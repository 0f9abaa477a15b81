//! Where each run of a sweep stands on its grid. The coordinator keeps the sweep file and its manifests, and planning
//! is pure, so that planning them again names the axes of every run.

use std::collections::BTreeMap;

use isoloss_report::{Point, differences};
use isoloss_sweep::RunId;
use isoloss_sweep::plan::Inputs;
use isoloss_wire::Client;
use isoloss_wire::api::{RunRow, SweepDetail};

use crate::plan::capabilities;

/// Points of a sweep's runs, by arm and run; empty where this version plans the file differently.
#[derive(Debug, Default)]
pub(crate) struct Points(BTreeMap<(String, RunId), Point>);

impl Points {
    pub(crate) fn of(detail: &SweepDetail) -> Self {
        let planned = || {
            let spec = isoloss_sweep::spec::parse("sweep.toml", &detail.toml, &detail.set).ok()?;
            let capabilities = capabilities();
            let files = detail.trainer.as_ref().map(|trainer| trainer.files.clone()).unwrap_or_default();
            let inputs = Inputs {
                manifests: &detail.manifests,
                probe: None,
                known: &|_| false,
                capabilities: &capabilities,
                files: &files,
            };
            isoloss_sweep::plan(&spec, &inputs).ok()
        };
        let runs = planned().map(|plan| plan.runs).unwrap_or_default();
        Self(runs.into_iter().map(|run| ((run.arm, run.run_id), run.point)).collect())
    }

    /// Points only serve to tell rows apart: a coordinator that does not say them is no reason to fail.
    pub(crate) async fn ask(client: &Client, sweep: &str) -> Self {
        client.sweep(sweep).await.map(|detail| Self::of(&detail)).unwrap_or_default()
    }

    pub(crate) fn get(&self, arm: &str, run_id: RunId) -> Point {
        self.0.get(&(arm.to_owned(), run_id)).cloned().unwrap_or_default()
    }

    /// What tells each row apart beside its size and tokens.
    pub(crate) fn of_rows(&self, rows: &[RunRow]) -> Vec<String> {
        let points: Vec<Point> = rows.iter().map(|row| self.get(&row.arm, row.run_id)).collect();
        let pairs: Vec<(&str, &Point)> = rows.iter().map(|row| row.arm.as_str()).zip(&points).collect();
        differences(&pairs)
    }

    /// What tells each run apart, by arm and run.
    pub(crate) fn differences(&self) -> BTreeMap<(String, RunId), String> {
        let pairs: Vec<(&str, &Point)> = self.0.iter().map(|((arm, _), point)| (arm.as_str(), point)).collect();
        self.0.keys().cloned().zip(differences(&pairs)).collect()
    }
}
