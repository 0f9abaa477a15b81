//! Gathers from a coordinator all that a report is made from.

use isoloss_fit::{FitRecord, LossUnit};
use isoloss_report::{Lab, LabRun};
use isoloss_wire::Client;
use isoloss_wire::api::{Code as Problem, FitQuery, Kind};
use jiff::Timestamp;

use crate::exit::Exit;
use crate::points::Points;

/// The sweep with its outcomes and its law; where no law can be fitted the lab says why.
pub(crate) async fn gather(client: &Client, sweep: &str, query: &FitQuery) -> Result<Lab, Exit> {
    let detail = client.sweep(sweep).await?;
    let results = client.results(sweep).await?;
    let (fit, fit_refusal) = match law(client, sweep, query).await {
        Ok(record) => (Some(record), None),
        Err(refusal) => (None, Some(refusal?)),
    };
    let points = Points::of(&detail);
    let runs = results.into_iter().filter(|detail| detail.row.kind == Kind::Run).map(|detail| LabRun {
        run_id: detail.row.run_id,
        point: points.get(&detail.row.arm, detail.row.run_id),
        arm: detail.row.arm,
        state: detail.row.state.name().to_owned(),
        attempts: Some(detail.row.attempts),
        run: detail.run,
        outcome: detail.outcome,
    });
    Ok(Lab {
        schema_version: isoloss_report::SCHEMA_VERSION,
        name: detail.sweep.name,
        sweep_id: Some(detail.sweep.sweep_id.to_string()),
        made_at: Timestamp::from_second(Timestamp::now().as_second()).ok().map(|now| now.to_string()),
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        unit: LossUnit::BitsPerByte,
        arms: detail.arms,
        runs: runs.collect(),
        manifests: detail.manifests,
        fit,
        columns: None,
        fit_refusal,
    })
}

/// The sweep's fit; the inner result of an error is the reason why there is none, or a failure.
async fn law(client: &Client, sweep: &str, query: &FitQuery) -> Result<FitRecord, Result<String, Exit>> {
    let value = client.fit(sweep, query).await.map_err(|error| match error.code() {
        Some(Problem::NotIdentified) => Ok(error.to_string()),
        _ => Err(error.into()),
    })?;
    serde_json::from_value(value)
        .map_err(|e| Err(Exit::failure(format!("the coordinator's fit is not understood: {e}"))))
}
