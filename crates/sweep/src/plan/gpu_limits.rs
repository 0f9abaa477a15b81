//! What the engine `cuda` takes at most: a run beyond it is refused before anything is started.

use crate::count::si;
use crate::model::Model;
use crate::plan::draft::Draft;
use crate::plan::gpu_memory::gpu_memory_least_bytes;
use crate::plan::probe::Probe;
use crate::plan::{GPU_PROCESS_BYTES, PlanError, Refusal};
use crate::run::Run;
use crate::spec::SweepSpec;

const HEAD_MOST: u32 = 256;
const EXPERTS_MOST: u32 = 512;
const TOP_K_MOST: u32 = 16;

/// What of the model is more than the engine's kernels take: the key that says it, and why.
pub fn gpu_defect(model: &Model) -> Option<(&'static str, String)> {
    let head = model.head_width();
    if head > HEAD_MOST {
        let why = format!("heads may be {HEAD_MOST} wide at most, these are {head}: more `heads` are narrower");
        return Some(("heads", why));
    }
    let experts = model.experts.as_ref()?;
    let most =
        |what: &str, most: u32, found: u32| format!("{what} may be {most} at most, granularity counted, not {found}");
    if experts.count > EXPERTS_MOST {
        return Some(("experts", most("experts", EXPERTS_MOST, experts.count)));
    }
    (experts.top_k > TOP_K_MOST).then(|| ("top_k", most("top_k", TOP_K_MOST, experts.top_k)))
}

/// Refuses a run on a GPU that its engine could only fail.
pub(super) fn within(spec: &SweepSpec, draft: &Draft<'_>, run: &Run, probe: Option<&Probe>) -> Result<(), PlanError> {
    if !super::on_gpu(run) {
        return Ok(());
    }
    let point = &draft.point;
    if let Some((key, why)) = gpu_defect(&run.model) {
        let place = if point.get(key).is_some() { point.place_of(key) } else { point.place_of("engine") };
        let message = format!("the engine \"cuda\" does not train the model of arm `{}`", point.arm);
        return Err(spec.refuse(Refusal::Shape, place, message).label(why));
    }
    let process = probe.and_then(|probe| probe.gpus.as_ref()?.process_bytes).unwrap_or(GPU_PROCESS_BYTES);
    let least = process + gpu_memory_least_bytes(&run.model, run.numerics.precision);
    match spec.resources.memory_bytes {
        Some(given) if given < least => {
            let message = format!(
                "`memory` under `[resources]` is {}B, too little for a GPU run of arm `{}`",
                si(given as f64),
                point.arm
            );
            let why = format!(
                "expected {}B at least, or no `memory`: the plan then reserves what is needed",
                si(least as f64)
            );
            let place = spec.memory_place.unwrap_or_else(|| point.place_of("engine"));
            Err(spec.refuse(Refusal::Capability, place, message).label(why))
        }
        _ => Ok(()),
    }
}
