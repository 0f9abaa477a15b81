//! What the law is about, in which units, and how the models behind it were trained.

use std::collections::{BTreeMap, BTreeSet};

use isoloss_sweep::run::Schedule;

use super::{Answer, Group, Item, distinct, fit, law, many, spread, told};
use crate::lab::{Lab, LabRun};
use crate::markdown::plain;
use crate::plot::short_si;
use crate::table::digits;

pub(super) fn claim(lab: &Lab) -> Group {
    Group {
        title: "What is claimed, in which units",
        items: vec![
            Item { question: "Which law, and where does its form come from?", answer: form(lab) },
            Item { question: "What does the law predict, in which unit?", answer: unit(lab) },
            Item { question: "What does N count?", answer: params(lab) },
            Item { question: "What does D count?", answer: tokens(lab) },
            Item { question: "How are FLOPs counted?", answer: flops(lab) },
            Item { question: "How do mixtures of experts enter?", answer: experts(lab) },
        ],
    }
}

fn form(lab: &Lab) -> Answer {
    let (_, law) = law(lab)?;
    Ok(format!("{}: `L = {}`, {}.", plain(&law.name), law.formula, plain(&law.reference)))
}

fn unit(lab: &Lab) -> Answer {
    told(lab)?;
    Ok(format!("The mean loss on validation text, in {}, once training has ended.", lab.unit_name()))
}

fn params(lab: &Lab) -> Answer {
    let convention = &fit(lab)?.observations.params_convention;
    let words = match convention.as_str() {
        "params_active_non_embedding" => ": weights used for one token, without embedding table and output head",
        "params_non_embedding" => ": all weights but embedding table and output head",
        "params_active" => ": weights used for one token, embeddings among them",
        "params_total" => ": every weight",
        named if named.starts_with("column ") => {
            return Err(format!("the {named} of the table, which does not say what it counts"));
        }
        _ => "",
    };
    Ok(format!("{}{words}.", plain(convention)))
}

fn tokens(lab: &Lab) -> Answer {
    told(lab)?;
    Ok("Tokens trained on, those seen again counted again.".to_owned())
}

fn flops(lab: &Lab) -> Answer {
    let runs = told(lab)?;
    let over = |run: &&LabRun| run.flops().get() / run.run.model.flops_6nd(run.tokens()).get();
    let ratio = spread(runs.iter().map(over), |ratio| format!("{ratio:.2}"));
    Ok(format!(
        "Products forward and backward, term by term, causal attention and output head among them, evaluation apart; over 6 N \
         D: {ratio}."
    ))
}

fn experts(lab: &Lab) -> Answer {
    let fit = fit(lab)?;
    if !fit.experts.is_empty() {
        let arms: Vec<String> =
            fit.experts.iter().map(|arm| format!("{} ({} runs)", plain(&arm.arm), arm.runs)).collect();
        let arms = arms.join(", ");
        return Ok(format!(
            "Beside the law of {}: {arms}, by active and by total params.",
            plain(&fit.arms.join(", "))
        ));
    }
    let runs = told(lab)?;
    let routed = runs.iter().filter(|run| run.run.model.experts.is_some()).count();
    Ok(if routed == 0 {
        "There are none.".to_owned()
    } else {
        format!("{} on the axes of the law.", many(routed, "run"))
    })
}

pub(super) fn training(lab: &Lab) -> Group {
    Group {
        title: "How the models were trained",
        items: vec![
            Item { question: "Which architecture, in which shapes?", answer: told(lab).map(|runs| shapes(&runs)) },
            Item { question: "Which optimiser, with which constants?", answer: told(lab).map(|runs| optimiser(&runs)) },
            Item { question: "Which peak learning rates?", answer: told(lab).map(|runs| rates(&runs)) },
            Item { question: "Were hyper-parameters tuned for each size and budget?", answer: tuned(lab) },
            Item { question: "Which batches?", answer: told(lab).map(|runs| batches(&runs)) },
            Item {
                question: "How does the rate move, and is every loss that of a finished schedule?",
                answer: told(lab).map(|runs| schedules(&runs)),
            },
            Item { question: "Which seeds, and how far do replicates differ?", answer: replicates(lab) },
            Item {
                question: "In which arithmetic, on which devices?",
                answer: told(lab).map(|runs| arithmetic(&runs)),
            },
        ],
    }
}

fn of(runs: &[&LabRun], value: impl Fn(&LabRun) -> f64) -> String {
    spread(runs.iter().map(|run| value(run)), |value| value.to_string())
}

fn shapes(runs: &[&LabRun]) -> String {
    let model = |value: fn(&isoloss_sweep::Model) -> u32| of(runs, |run| f64::from(value(&run.run.model)));
    let heads = distinct(runs.iter().map(|run| if run.run.model.tied { "tied" } else { "untied" }.to_owned()));
    let experts = distinct(runs.iter().filter_map(|run| run.experts()));
    let experts = if experts.is_empty() { String::new() } else { format!(", experts {}", experts.join(", ")) };
    format!(
        "Decoder-only transformer with RMSNorm, rotary positions and SwiGLU; layers {}, width {}, context {}, vocabulary {}, \
         output head {}{experts}.",
        model(|model| model.layers),
        model(|model| model.width),
        model(|model| model.context),
        model(|model| model.vocab),
        heads.join(" and ")
    )
}

fn optimiser(runs: &[&LabRun]) -> String {
    format!(
        "AdamW: beta1 {}, beta2 {}, epsilon {}, weight decay {}, gradients clipped at norm {}.",
        of(runs, |run| run.run.train.beta1),
        of(runs, |run| run.run.train.beta2),
        of(runs, |run| run.run.train.epsilon),
        of(runs, |run| run.run.train.weight_decay),
        of(runs, |run| run.run.train.clip)
    )
}

fn rates(runs: &[&LabRun]) -> String {
    format!("{}; each run's stands in `runs.csv`.", of(runs, |run| run.run.train.learning_rate))
}

fn tuned(lab: &Lab) -> Answer {
    let fit = fit(lab)?;
    let Some(tuning) = &fit.tuning else {
        return Err(
            "this fit chose among no settings, and on what their values were tuned is not in its record".to_owned()
        );
    };
    let over: Vec<&str> = tuning.over.iter().map(|parameter| parameter.name()).collect();
    let edges = tuning.cells.iter().filter(|cell| !cell.edges.is_empty()).count();
    let diverged: usize = tuning.cells.iter().map(|cell| cell.diverged).sum();
    let settings = spread(tuning.cells.iter().map(|cell| cell.settings as f64), |count| format!("{count:.0}"));
    Ok(format!(
        "Over {}: the law sees the best of {settings} settings in each of {}, {} of {} runs; in {edges} the best value is the \
         last that was tried, and {diverged} settings diverged.",
        plain(&over.join(", ")),
        many(tuning.cells.len(), "cell"),
        tuning.kept.len(),
        tuning.tried
    ))
}

fn batches(runs: &[&LabRun]) -> String {
    let tokens = |run: &&LabRun| f64::from(run.run.train.batch) * f64::from(run.run.model.context);
    let sequences = of(runs, |run| f64::from(run.run.train.batch));
    format!("{} tokens, in sequences: {sequences}.", spread(runs.iter().map(tokens), short_si))
}

fn schedules(runs: &[&LabRun]) -> String {
    let shape = |run: &&LabRun| match run.run.train.schedule {
        Schedule::Cosine { final_ratio } => format!("cosine over the run's own budget to {final_ratio} of the peak"),
        Schedule::Wsd { .. } => "constant, then decay to zero at the end of the run's own budget".to_owned(),
    };
    let warmup = of(runs, |run| run.run.train.warmup_steps as f64);
    let decay = runs.iter().filter_map(|run| match run.run.train.schedule {
        Schedule::Wsd { decay_steps } => Some(decay_steps as f64 / run.run.train.steps.max(1) as f64),
        Schedule::Cosine { .. } => None,
    });
    let decay: Vec<f64> = decay.map(|share| (1000.0 * share).round() / 1000.0).collect();
    let share = if decay.is_empty() {
        String::new()
    } else {
        format!(", decay {} of the steps", spread(decay.into_iter(), |share| share.to_string()))
    };
    let whole = |run: &&&LabRun| run.finished().is_some_and(|finished| finished.steps == run.run.train.steps);
    let short = runs.len() - runs.iter().filter(whole).count();
    let verdict = match short {
        0 => "Every loss is of a finished schedule, none of a checkpoint on the way".to_owned(),
        short => format!("{} did not go through all of it", many(short, "run")),
    };
    format!("{}; warmup {warmup} steps{share}. {verdict}.", distinct(runs.iter().map(shape)).join(" or "))
}

/// What repeats of a run with other seeds say of the noise; without any, the noise is not known.
fn replicates(lab: &Lab) -> Answer {
    let runs = told(lab)?;
    let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in &runs {
        let mut alike = run.run.clone();
        alike.train.seed = 0;
        groups.entry(alike.id().to_string()).or_default().extend(run.loss(lab.unit).map(f64::ln));
    }
    groups.retain(|_, losses| losses.len() > 1);
    let seeds = seeds(&runs);
    if groups.is_empty() {
        return Err(format!(
            "{seeds}, and no setting was run with a second one: the noise between seeds is not measured"
        ));
    }
    let (mut square, mut degrees) = (0.0, 0);
    for losses in groups.values() {
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        square += losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>();
        degrees += losses.len() - 1;
    }
    let scatter = 100.0 * (square / f64::from(u32::try_from(degrees).unwrap_or(u32::MAX))).sqrt();
    let settings = many(groups.len(), "setting");
    Ok(format!("Of {seeds}; {settings} with more than one, whose losses scatter by {} %.", digits(scatter)))
}

/// Seeds are names, not amounts.
fn seeds(runs: &[&LabRun]) -> String {
    const SHOWN: usize = 8;
    let seeds: BTreeSet<u64> = runs.iter().map(|run| run.run.train.seed).collect();
    if seeds.len() > SHOWN {
        return format!("{} seeds", seeds.len());
    }
    let noun = if seeds.len() == 1 { "seed" } else { "seeds" };
    format!("{noun} {}", seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "))
}

fn arithmetic(runs: &[&LabRun]) -> String {
    let engine = |run: &&LabRun| {
        let numerics = &run.run.numerics;
        format!(
            "engine {} in {}, numerics version {}",
            numerics.engine.name(),
            numerics.precision.name(),
            numerics.version
        )
    };
    let devices = distinct(runs.iter().filter_map(|run| run.device()));
    format!("{}; on {}.", distinct(runs.iter().map(engine)).join(" and "), plain(&devices.join("; ")))
}
