//! The GPUs of this machine: what the doctor says of them, and the slots that a worker makes of them.

use std::collections::BTreeMap;
use std::sync::Once;

use isoloss_sweep::Plan;
use isoloss_sweep::count::si;
use isoloss_sweep::plan::{Action, PlannedRun};
use isoloss_sweep::run::EngineKind;
use isoloss_sweep::spec::{bytes_words, parse_bytes};
use isoloss_train::cuda::{CAPABILITY_LEAST, Card, Found, GpuError, Library, Unusable, cards, find};
use isoloss_wire::api::Slot;
use isoloss_worker::gpu_slots;

use crate::doctor::Finding;
use crate::exit::{Code, Exit};
use crate::print;

/// The driver alone takes about that much of a GPU for a process.
const MEMORY_LEAST: u64 = 256 << 20;
/// Runs side by side on each GPU in `up`: while the host of one prepares or scores, another uses the GPU.
pub(crate) const RUNS_BESIDE: u32 = 4;

/// What a machine does whose GPUs are of no use.
const WITHOUT: &str = "runs train on the CPU, those that ask for `engine = \"cuda\"` are refused";

/// GPUs as a worker offers them.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    pub(crate) slots: Vec<Slot>,
    /// As the driver calls them, by [`Slot::gpu`]; without those that it does not show.
    pub(crate) names: BTreeMap<String, String>,
}

impl Offer {
    fn of(slots: Vec<Slot>, cards: &[Card]) -> Self {
        let named = |gpu: &String| Some((gpu.clone(), name(gpu, cards)?));
        let names = slots.iter().filter_map(|slot| slot.gpu.as_ref()).filter_map(named).collect();
        Self { slots, names }
    }
}

/// One GPU's name, or that of a group: `2 x NVIDIA H200`.
fn name(gpu: &str, cards: &[Card]) -> Option<String> {
    let of = |uuid: &str| Some(cards.iter().find(|card| card.uuid == uuid)?.name.as_str());
    let names: Vec<&str> = gpu.split(',').map(of).collect::<Option<_>>()?;
    match names.as_slice() {
        [one] => Some((*one).to_owned()),
        [first, others @ ..] if others.iter().all(|other| other == first) => Some(format!("{} x {first}", names.len())),
        several => Some(several.join(" + ")),
    }
}

/// Those that can be used, and those that cannot.
type Sorted = (Vec<Card>, Vec<Unusable>);

/// What the driver shows, or why it cannot be asked.
type Shown = Result<Vec<Result<Card, Unusable>>, GpuError>;

/// The GPUs, and with them CUDA's libraries one by one. Without a driver there is nothing to repair: runs go to the CPU.
pub(crate) fn findings() -> Vec<Finding> {
    let found = find();
    let is_there = |one: &Found| one.library == Library::Driver && (one.path.is_some() || one.wrong.is_some());
    told(found.iter().any(is_there).then(cards), &found)
}

fn told(shown: Option<Shown>, found: &[Found]) -> Vec<Finding> {
    let mut is_usable = false;
    let mut findings = match shown {
        None => vec![Finding::good("gpu", format!("none found (no NVIDIA driver): {WITHOUT}"))],
        Some(Ok(cards)) if cards.is_empty() => {
            let none = format!("the driver shows none (see CUDA_VISIBLE_DEVICES and nvidia-smi): {WITHOUT}");
            vec![Finding::good("gpu", none)]
        }
        Some(Ok(cards)) => {
            let usable: Vec<&str> = cards.iter().flatten().map(|card| card.uuid.as_str()).collect();
            is_usable = !usable.is_empty();
            let one = |card: &Result<Card, Unusable>| match card {
                Ok(card) => Finding::good("gpu", words(card)),
                Err(card) => Finding::bad("gpu", card.to_string(), advice(card, &usable)),
            };
            cards.iter().map(one).collect()
        }
        Some(Err(error)) => {
            let fix = format!("see nvidia-smi; until the driver works, {WITHOUT}");
            vec![Finding::bad("gpu", no_driver(&error), fix)]
        }
    };
    findings.extend(found.iter().map(|one| library(one, is_usable)));
    findings
}

/// What to do about a GPU beside which these can be used.
fn advice(card: &Unusable, usable: &[&str]) -> String {
    let without = match usable {
        [] => WITHOUT.to_owned(),
        _ => format!("the others are used; `CUDA_VISIBLE_DEVICES={}` hides it", usable.join(",")),
    };
    match card.error {
        GpuError::TooOld { .. } => format!("the engine cuda needs {}; {without}", least()),
        _ => format!("see nvidia-smi, which can reset it; {without}"),
    }
}

fn least() -> String {
    format!("compute capability {}.{} or newer", CAPABILITY_LEAST / 10, CAPABILITY_LEAST % 10)
}

/// Why the driver's library cannot be asked: it is of no use, or it answers with an error.
fn no_driver(error: &GpuError) -> String {
    match error {
        GpuError::Driver { .. } => format!("the NVIDIA driver does not work: {error}"),
        other => other.to_string(),
    }
}

fn words(card: &Card) -> String {
    let Card { uuid, name, capability, memory, ordinal: _ } = card;
    let (free, total) = (si(memory.free as f64), si(memory.total as f64));
    format!("{name}, compute capability {}.{}, {free}B of {total}B free, {uuid}", capability / 10, capability % 10)
}

/// A GPU in a line that must leave no doubt which one is meant.
pub(crate) fn named_whole(card: &Card) -> String {
    format!("GPU {}, {}, {}", card.ordinal, card.name, card.uuid)
}

/// What is missing matters where a GPU is.
fn library(found: &Found, gpu: bool) -> Finding {
    let name = found.library.name();
    if let Some(wrong) = &found.wrong {
        let place = found.path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
        return Finding::bad("cuda", format!("{name}: {place}{wrong}"), found.library.hint());
    }
    match &found.path {
        Some(path) => Finding::good("cuda", format!("{name}: {}", path.display())),
        None if found.library == Library::Nccl => {
            Finding::good("cuda", format!("{name}: not found; for runs on several GPUs {}", found.library.hint()))
        }
        None if gpu => Finding::bad("cuda", format!("{name}: not found"), found.library.hint()),
        None => Finding::good("cuda", format!("{name}: not found; if it is wanted, {}", found.library.hint())),
    }
}

/// The slots of `--gpu`: so many GPUs together, each group with room for so many runs side by side.
pub(crate) fn slots(asked: &[String], together: u32, runs: u32) -> Result<Offer, Exit> {
    let (mut gpus, mut cards) = (Vec::new(), Vec::new());
    let shown = asked.iter().any(|text| text != "auto").then(shown).transpose()?.flatten();
    for text in asked {
        if text == "auto" {
            let found = offered().map_err(|why| Exit::failure(format!("--gpu auto: {why}")))?;
            gpus.extend(found.iter().map(|card| (card.uuid.clone(), card.memory.free)));
            cards.extend(found);
        } else {
            let gpu = named(text)?;
            gpus.push(match &shown {
                Some((cards, unusable)) => held_to(gpu, cards, unusable)?,
                None => gpu,
            });
        }
    }
    cards.extend(shown.into_iter().flat_map(|(cards, _)| cards));
    Ok(Offer::of(grouped(&gpus, together, runs)?, &cards))
}

/// The GPUs that a driver shows, and those that it cannot open; nothing where no driver is, and GPUs are what their user says.
fn shown() -> Result<Option<Sorted>, Exit> {
    let cards = Library::Driver.path().map(|_| cards()).transpose();
    let cards =
        cards.map_err(|error| Exit::failure(format!("--gpu: the driver does not say which GPUs are here: {error}")))?;
    Ok(cards.map(sorted))
}

fn sorted(shown: Vec<Result<Card, Unusable>>) -> Sorted {
    let (cards, unusable): (Vec<_>, Vec<_>) = shown.into_iter().partition(Result::is_ok);
    (cards.into_iter().flatten().collect(), unusable.into_iter().filter_map(Result::err).collect())
}

/// A GPU that was named, as the driver shows it. Parts of GPUs (MIG) are left as they were named: the driver shows those that
/// this process uses, and not those that others may.
fn held_to((name, memory): (String, u64), cards: &[Card], unusable: &[Unusable]) -> Result<(String, u64), Exit> {
    if name.starts_with("MIG-") {
        return Ok((name, memory));
    }
    // As CUDA_VISIBLE_DEVICES takes it: the beginning of a UUID is enough where it is one card's alone.
    let mut alike = cards.iter().filter(|card| card.uuid.starts_with(&name));
    let card = match (alike.next(), alike.next()) {
        (Some(card), None) => card,
        (Some(one), Some(other)) => {
            return Err(Exit::usage(format!("--gpu: {name} may be {} or {}: name all of it", one.uuid, other.uuid)));
        }
        (None, _) => {
            let is_it = |one: &&Unusable| one.uuid.as_ref().is_some_and(|uuid| uuid.starts_with(&name));
            if let Some(one) = unusable.iter().find(is_it) {
                return Err(Exit::failure(format!("--gpu: {one}; `isoloss doctor` says more")));
            }
            let shown: Vec<&str> = cards.iter().map(|card| card.uuid.as_str()).collect();
            let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
            let hint = "see CUDA_VISIBLE_DEVICES and nvidia-smi";
            return Err(Exit::usage(format!("--gpu: there is no {name} here; the driver shows {shown} ({hint})")));
        }
    };
    if memory > card.memory.total {
        let [offered, has] = [memory, card.memory.total].map(bytes_words);
        return Err(Exit::usage(format!("--gpu: {offered} of {} are offered, and it has {has}", card.uuid)));
    }
    Ok((card.uuid.clone(), memory))
}

/// Slots of GPUs with their memory.
fn grouped(gpus: &[(String, u64)], together: u32, runs: u32) -> Result<Vec<Slot>, Exit> {
    let mut names: Vec<&str> = gpus.iter().map(|(uuid, _)| uuid.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Exit::usage(format!("--gpu: {} is offered twice", pair[0])));
    }
    let together = together as usize;
    if !gpus.len().is_multiple_of(together) {
        return Err(Exit::usage(format!("--gpus-per-run: {} GPU(s) do not make groups of {together}", gpus.len())));
    }
    let group = |gpus: &[(String, u64)]| {
        let uuids: Vec<&str> = gpus.iter().map(|(uuid, _)| uuid.as_str()).collect();
        gpu_slots(&uuids.join(","), gpus.iter().map(|(_, memory)| *memory).min().unwrap_or(0), runs)
    };
    Ok(gpus.chunks(together).flat_map(group).collect())
}

/// GPUs that the engine can use, or why there is none. Of those that it cannot use people are told once.
pub(crate) fn offered() -> Result<Vec<Card>, String> {
    static TOLD: Once = Once::new();
    Library::NEEDED.into_iter().try_for_each(Library::usable).map_err(|error| error.to_string())?;
    let (cards, warnings) = parted(cards().map_err(|error| no_driver(&error))?)?;
    TOLD.call_once(|| warnings.iter().for_each(|warning| print::note(warning)));
    Ok(cards)
}

/// Those that can be used, and a warning for each that cannot; an error where none is left.
fn parted(shown: Vec<Result<Card, Unusable>>) -> Result<(Vec<Card>, Vec<String>), String> {
    let (cards, unusable) = sorted(shown);
    let usable: Vec<&str> = cards.iter().map(|card| card.uuid.as_str()).collect();
    match (cards.is_empty(), unusable.is_empty()) {
        (true, true) => Err("the driver shows no GPU; see CUDA_VISIBLE_DEVICES and nvidia-smi".to_owned()),
        (true, false) => {
            let each: Vec<String> = unusable.iter().map(Unusable::to_string).collect();
            Err(format!("no GPU can be used (`isoloss doctor` says more): {}", each.join("; ")))
        }
        (false, _) => {
            let warning = |one: &Unusable| format!("warning: {one}: {}", advice(one, &usable));
            let warnings = unusable.iter().map(warning).collect();
            Ok((cards, warnings))
        }
    }
}

/// Slots for the runs of the plan that want a GPU; none where none does. A machine that has no GPU cannot work them off.
pub(crate) fn for_plan(plan: &Plan) -> Result<Offer, Exit> {
    let wanting = |run: &&PlannedRun| run.run.numerics.engine == EngineKind::Cuda && run.action != Action::Reuse;
    let wanted: Vec<u64> = plan.runs.iter().filter(wanting).map(|run| run.memory_bytes).collect();
    let Some(needed) = wanted.iter().copied().max() else { return Ok(Offer::default()) };
    let cards = offered().map_err(|why| {
        Exit::new(
            Code::Refused,
            format!(
                "{} run(s) ask for the engine cuda, and this machine cannot train them: {why}\n`--set train.engine=cpu` \
                 trains here; `isoloss submit` hands them to a coordinator with `isoloss worker --gpu auto`",
                wanted.len()
            ),
        )
    })?;
    let most = cards.iter().map(|card| card.memory.free).max().unwrap_or(0);
    if needed > most {
        let [needed, most] = [needed, most].map(|bytes| si(bytes as f64));
        let detail =
            format!("a run needs {needed}B of GPU memory, {most}B are free: `[resources] memory` gives it less");
        return Err(Exit::new(Code::Refused, detail));
    }
    let slots = cards.iter().flat_map(|card| gpu_slots(&card.uuid, card.memory.free, RUNS_BESIDE)).collect();
    Ok(Offer::of(slots, &cards))
}

/// `GPU-1234=80GiB`.
fn named(text: &str) -> Result<(String, u64), Exit> {
    let is_name = |name: &str| !name.is_empty() && !name.contains([',', ' ']);
    let parsed = text
        .split_once('=')
        .filter(|(uuid, _)| is_name(uuid))
        .and_then(|(uuid, memory)| Some((uuid.to_owned(), parse_bytes(memory)?)));
    let expected = || Exit::usage(format!("--gpu: expected auto, or UUID=MEMORY such as GPU-1234=80GiB, got {text:?}"));
    let (uuid, memory) = parsed.ok_or_else(expected)?;
    if memory < MEMORY_LEAST {
        let [offered, least] = [memory, MEMORY_LEAST].map(bytes_words);
        let detail = format!("no run fits into {offered}, which {text:?} offers; {least} is the least");
        return Err(Exit::usage(format!("--gpu: {detail}: MEMORY has a unit, such as 80GiB")));
    }
    Ok((uuid, memory))
}

#[cfg(test)]
mod tests;
