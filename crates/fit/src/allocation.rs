//! Compute-optimal params and tokens at a budget, with intervals and its own rule of when not to believe them.

use crate::interval::Cloud;
use crate::observation::Observation;
use crate::record::AllocationRecord;
use crate::scaling::ScalingLaw;
use crate::serving;
use crate::settings::Settings;

/// Tokens per parameter are known when their interval spans less than this factor.
pub(crate) const RATIO_MAX: f64 = 10.0;
/// Two decades beyond the largest run is further than any published law has been checked.
pub(crate) const EXTRAPOLATION_MAX: f64 = 100.0;

/// FLOPs per param and token that join budgets to the size axis: the geometric mean over the dearer half of the runs,
/// because attention and head weigh more in small models.
fn factor(rows: &[Observation]) -> f64 {
    let mut sorted: Vec<(f64, f64)> =
        rows.iter().map(|row| (row.flops, (row.flops / (row.params * row.tokens)).ln())).collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
    sorted.truncate(rows.len().div_ceil(2));
    (sorted.iter().map(|(_, ln)| ln).sum::<f64>() / sorted.len() as f64).exp()
}

/// The allocation at `flops`, or at the largest observed; `None` where the law has no trade.
pub(crate) fn allocation(
    law: &ScalingLaw,
    cloud: &Cloud,
    rows: &[Observation],
    settings: &Settings,
) -> Option<AllocationRecord> {
    let level = settings.level;
    let largest = rows.iter().map(|row| row.flops).fold(0.0, f64::max);
    let flops = settings.budget.unwrap_or(largest);
    let factor = factor(rows);
    let (params, tokens) = law.allocate(flops, factor)?;
    let of = |pick: fn((f64, f64)) -> f64| {
        let centre = pick((params, tokens));
        let [low, high] = cloud.interval(centre, |law| law.allocate(flops, factor).map_or(f64::NAN, pick));
        [low.min(centre), high.max(centre)]
    };
    let ratio_interval = of(|(n, d)| d / n);
    let a = law.allocation_exponent()?;
    let a_interval = cloud.parameter(law, "a")?;
    let reasons = reasons(flops, largest, ratio_interval);
    let (bounds, tokens_served) =
        (settings.serve_tokens.is_some() || settings.params_max.is_some(), settings.serve_tokens.unwrap_or(0.0));
    let smallest = rows.iter().map(|row| row.params).fold(f64::INFINITY, f64::min);
    let unmet = serving::unpaid(flops, factor, tokens_served, smallest);
    Some(AllocationRecord {
        flops,
        flops_per_param_token: factor,
        params,
        tokens,
        loss: law.loss(params, tokens),
        level,
        params_interval: of(|(n, _)| n),
        tokens_per_param: tokens / params,
        tokens_per_param_interval: ratio_interval,
        a,
        a_interval,
        b: 1.0 - a,
        b_interval: [1.0 - a_interval[1], 1.0 - a_interval[0]],
        within: serving::within(law, flops, factor),
        served: (bounds && unmet.is_none())
            .then(|| serving::served(law, flops, factor, tokens_served, settings.params_max))
            .flatten(),
        unmet,
        identified: reasons.is_empty(),
        reasons,
    })
}

/// `own` with its intervals stretched to those that other laws which the runs do not rule out give for the same budget.
pub(crate) fn stretched(own: AllocationRecord, others: &[AllocationRecord]) -> AllocationRecord {
    let joined = |of: fn(&AllocationRecord) -> [f64; 2]| {
        others.iter().map(of).fold(of(&own), |[low, high], [l, h]| [low.min(l), high.max(h)])
    };
    let a_interval = joined(|record| record.a_interval);
    let tokens_per_param_interval = joined(|record| record.tokens_per_param_interval);
    let mut reasons: Vec<String> = own.reasons.iter().chain(others.iter().flat_map(|o| &o.reasons)).cloned().collect();
    reasons.sort();
    reasons.dedup();
    let [low, high] = tokens_per_param_interval;
    if reasons.is_empty() {
        reasons.extend(spread(low, high));
    }
    AllocationRecord {
        params_interval: joined(|record| record.params_interval),
        tokens_per_param_interval,
        a_interval,
        b_interval: [1.0 - a_interval[1], 1.0 - a_interval[0]],
        identified: reasons.is_empty(),
        reasons,
        ..own
    }
}

/// Why tokens per parameter within such ends are not known.
fn spread(low: f64, high: f64) -> Option<String> {
    let wide = (high / low).is_nan() || high / low > RATIO_MAX;
    wide.then(|| {
        format!(
            "tokens per parameter lie anywhere in {low:.3} to {high:.3e}; add runs at this budget on both sides of the optimum"
        )
    })
}

fn reasons(flops: f64, largest: f64, [low, high]: [f64; 2]) -> Vec<String> {
    let mut reasons = Vec::new();
    reasons.extend(spread(low, high));
    if flops > EXTRAPOLATION_MAX * largest {
        reasons.push(format!("the budget is {:.0} times the largest run; add larger runs", flops / largest));
    }
    reasons
}
