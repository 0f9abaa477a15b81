//! How the law was fitted, and how sure it is.

use isoloss_fit::trade::TradeRecord;
use isoloss_fit::{FitRecord, LawRecord};

use super::{Answer, Group, Item, law, many, runs};
use crate::lab::Lab;
use crate::markdown::plain;
use crate::plot::{power, short_si};
use crate::table::digits;
use crate::trade::named;

pub(super) fn fitting(lab: &Lab) -> Group {
    let of_law = |answer: fn(&FitRecord, &LawRecord) -> String| law(lab).map(|(fit, law)| answer(fit, law));
    Group {
        title: "How the law was fitted",
        items: vec![
            Item {
                question: "Why this law and none of its rivals?",
                answer: law(lab).and_then(|(fit, law)| choice(fit, law)),
            },
            Item { question: "What is minimised?", answer: of_law(objective) },
            Item { question: "How is the minimum looked for?", answer: of_law(search) },
            Item { question: "What shows that it was found?", answer: of_law(certificate) },
            Item { question: "Do the runs identify the law?", answer: of_law(verdict) },
        ],
    }
}

fn choice(fit: &FitRecord, chosen: &LawRecord) -> Answer {
    let rival = |law: &&LawRecord| law.name != chosen.name;
    let figures = |law: &LawRecord| {
        let aicc = law.aicc.map(|aicc| format!(", AICc {aicc:.1}")).unwrap_or_default();
        let rolling = law.rolling.as_ref().map(|rolling| format!(", rolling {}", percent(rolling.mean_relative_error)));
        format!("{} (rms {}{aicc}{})", plain(&law.name), percent(law.rms_relative_error), rolling.unwrap_or_default())
    };
    let refused = fit.refused.iter().map(|one| format!("{} (not fitted: {})", plain(&one.name), plain(&one.reason)));
    let rivals: Vec<String> = fit.laws.iter().filter(rival).map(figures).chain(refused).collect();
    if rivals.is_empty() {
        return Err(format!("only {} was asked for, and it is compared with no other", chosen.name));
    }
    let why = if fit.reasons.is_empty() { "it was asked for".to_owned() } else { plain(&fit.reasons.join("; ")) };
    Ok(format!("{}: {why}. Fitted beside {}.", figures(chosen), rivals.join(", ")))
}

fn objective(fit: &FitRecord, law: &LawRecord) -> String {
    format!(
        "The sum over {} of the Huber loss of ln observed - ln fitted loss, threshold {}, all of one weight; {:e} at the \
         minimum.",
        many(law.residuals.len(), "run"),
        fit.settings.huber_delta,
        law.objective
    )
}

fn search(_: &FitRecord, law: &LawRecord) -> String {
    let (cells, steps) = (law.certificate.grid_cells, law.certificate.iterations);
    if isoloss_fit::law::law(&law.name).is_some() {
        return format!(
            "{cells} cells of a grid of exponents, the coefficients of each solved by non-negative least squares, then {steps} \
             damped Newton steps."
        );
    }
    format!(
        "{cells} starts spread over the ranges of its shapes, the coefficients solved inside, the best polished by \
         Levenberg-Marquardt; {steps} steps."
    )
}

fn certificate(_: &FitRecord, law: &LawRecord) -> String {
    let proof = &law.certificate;
    let second = match proof.second_basin {
        Some(objective) => format!("the best other minimum has {objective:e}"),
        None => "no other minimum was met".to_owned(),
    };
    let boundary = match proof.boundary.as_slice() {
        [] => "no parameter on an edge of its range".to_owned(),
        names => format!("on an edge of their range: {}", plain(&names.join(", "))),
    };
    let condition = proof.condition.map_or_else(
        || "the Jacobian is singular".to_owned(),
        |condition| format!("condition number of the Jacobian {}", digits(condition)),
    );
    format!("Newton decrement {:e} there; {second}; {boundary}; {condition}.", proof.gradient_norm)
}

fn verdict(_: &FitRecord, law: &LawRecord) -> String {
    let verdict = if law.identified { "Yes" } else { "No" };
    if law.reasons.is_empty() {
        return format!("{verdict}.");
    }
    format!("{verdict}: {}.", plain(&law.reasons.join("; ")))
}

pub(super) fn uncertainty(lab: &Lab) -> Group {
    Group {
        title: "How sure it is",
        items: vec![
            Item { question: "How are the intervals made?", answer: law(lab).map(|(fit, law)| intervals(fit, law)) },
            Item {
                question: "How far does it miss runs that it has not seen?",
                answer: law(lab).and_then(|(_, law)| misses(law)),
            },
            Item {
                question: "Do its intervals hold what they promise there?",
                answer: law(lab).and_then(|(_, law)| coverage(law)),
            },
            Item { question: "How far beyond the runs is it used?", answer: reach(lab) },
            Item {
                question: "Is the optimal split of compute identified?",
                answer: law(lab).and_then(|(fit, law)| split(fit, law)),
            },
        ],
    }
}

fn intervals(fit: &FitRecord, law: &LawRecord) -> String {
    let asked = fit.settings.question.as_ref().map_or("", |question| question.laws.as_str());
    // The procedure gives all resamples to the law that is most often chosen, or is the only one.
    let whole = law.name == "additive" || asked == law.name && isoloss_fit::law::law(asked).is_some();
    let share = if whole { "" } else { " (a quarter of them for this law)" };
    let stretched = if law.inflation == 1.0 {
        "not stretched".to_owned()
    } else {
        format!("stretched {:.2} times by the errors of rolling hold-out", law.inflation)
    };
    format!(
        "Level {} %, bootstrap of clusters with {} resamples{share} from seed {}, {stretched}; \
         ARCHITECTURE.md of that version, section Fitting, says what else widens them.",
        digits(100.0 * law.intervals.level).trim_end_matches('0').trim_end_matches('.'),
        fit.settings.resamples,
        fit.settings.seed
    )
}

fn misses(law: &LawRecord) -> Answer {
    let Some(held) = &law.holdout else {
        return Err("the runs were too few to keep some from the fit".to_owned());
    };
    let rolling = law.rolling.as_ref().map(|rolling| {
        let (error, runs) = (percent(rolling.mean_relative_error), many(rolling.runs, "run"));
        format!("; {} ({runs}): {error}", plain(&rolling.rule))
    });
    Ok(format!(
        "{} ({}): {} mean relative error{}. On the runs it was fitted to: {} rms.",
        plain(&held.rule),
        many(held.runs, "run"),
        percent(held.mean_relative_error),
        rolling.unwrap_or_default(),
        percent(law.rms_relative_error)
    ))
}

fn coverage(law: &LawRecord) -> Answer {
    let held = law.holdout.as_ref().filter(|held| !held.coverage.is_empty());
    let held = held.ok_or("no coverage was measured")?;
    let line = |(level, share): (&String, &f64)| {
        let level: f64 = level.parse().unwrap_or(f64::NAN);
        format!("intervals of {:.0} % hold {:.0} %", 100.0 * level, 100.0 * share)
    };
    let lines: Vec<String> = held.coverage.iter().map(line).collect();
    Ok(format!("{} of {} kept from the fit.", lines.join(", "), many(held.runs, "run")))
}

/// Budgets and models asked about, over the largest that were fitted.
fn reach(lab: &Lab) -> Answer {
    let (fit, _) = law(lab)?;
    let extent = runs::extent(lab)?;
    let mut said = Vec::new();
    if let Some(at) = &fit.allocation {
        let times = digits(at.flops / extent.flops[1]);
        said.push(format!("allocation at {} FLOPs, {times} times the dearest run", power(at.flops)));
    }
    for at in fit.predictions.iter().map(|prediction| &prediction.at) {
        let (params, tokens) = (digits(at.params / extent.params[1]), digits(at.tokens / extent.tokens[1]));
        let (n, d) = (short_si(at.params), short_si(at.tokens));
        said.push(format!("prediction at N {n}, D {d}: {params} and {tokens} times the largest"));
    }
    Ok(if said.is_empty() {
        "Not at all: nothing was asked of it.".to_owned()
    } else {
        format!("{}.", said.join("; "))
    })
}

fn split(fit: &FitRecord, law: &LawRecord) -> Answer {
    if let (None, Some(trade)) = (&fit.allocation, &fit.trade) {
        return Ok(bought(trade));
    }
    let at = fit.allocation.as_ref().ok_or("this law trades no params against tokens")?;
    let reasons: Vec<&str> = at.reasons.iter().map(String::as_str).collect();
    if !law.identified {
        return Ok("No: the law itself is not.".to_owned());
    }
    if !at.identified {
        return Ok(format!("No: {}.", plain(&reasons.join("; "))));
    }
    let [low, high] = at.tokens_per_param_interval;
    Ok(format!("Yes: {} tokens per param [{}, {}].", digits(at.tokens_per_param), digits(low), digits(high)))
}

/// The same of a law that reads experts.
fn bought(trade: &TradeRecord) -> String {
    match trade.free() {
        Some((kind, place)) if trade.identified => format!(
            "Yes: {}, {} active params, {} tokens.",
            named(trade.axis, kind.value),
            short_si(place.params_active),
            short_si(place.tokens)
        ),
        _ => format!("No: {}.", plain(&trade.reasons.join("; "))),
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
