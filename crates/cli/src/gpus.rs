//! The GPUs of this machine: what the doctor says of them, and the slots that a worker makes of them.

use isoloss_sweep::Plan;
use isoloss_sweep::count::si;
use isoloss_sweep::plan::{Action, PlannedRun};
use isoloss_sweep::run::EngineKind;
use isoloss_sweep::spec::{bytes_words, parse_bytes};
use isoloss_train::cuda::{Card, Found, Library, cards, find};
use isoloss_wire::api::Slot;
use isoloss_worker::gpu_slots;

use crate::doctor::Finding;
use crate::exit::{Code, Exit};

/// The driver alone takes about that much of a GPU for a process.
const MEMORY_LEAST: u64 = 256 << 20;
/// Runs side by side on each GPU in `up`: while the host of one prepares or scores, another uses the GPU.
pub(crate) const RUNS_BESIDE: u32 = 4;

/// The GPUs, and with them CUDA's libraries one by one. Without a driver there is nothing to repair: runs go to the CPU.
pub(crate) fn findings() -> Vec<Finding> {
    let found = find();
    let cards = Library::Driver.path().map(|_| cards().map_err(|error| error.to_string()));
    told(cards, &found)
}

fn told(cards: Option<Result<Vec<Card>, String>>, found: &[Found]) -> Vec<Finding> {
    let (mut findings, present) = match cards {
        None => (vec![Finding::good("gpu", "none found (no NVIDIA driver); runs train on the CPU")], false),
        Some(Ok(cards)) if cards.is_empty() => {
            let none = "the driver shows none (see CUDA_VISIBLE_DEVICES and nvidia-smi); runs train on the CPU";
            (vec![Finding::good("gpu", none)], false)
        }
        Some(Ok(cards)) => (cards.iter().map(|card| Finding::good("gpu", words(card))).collect(), true),
        Some(Err(error)) => {
            let fix = "see nvidia-smi; until the driver works, runs train on the CPU";
            (vec![Finding::bad("gpu", error, fix)], false)
        }
    };
    findings.extend(found.iter().map(|one| library(one, present)));
    findings
}

fn words(card: &Card) -> String {
    let Card { uuid, name, capability, memory } = card;
    let (free, total) = (si(memory.free as f64), si(memory.total as f64));
    format!("{name}, compute capability {}.{}, {free}B of {total}B free, {uuid}", capability / 10, capability % 10)
}

/// What is missing matters where a GPU is.
fn library(found: &Found, gpu: bool) -> Finding {
    let name = found.library.name();
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
pub(crate) fn slots(asked: &[String], together: u32, runs: u32) -> Result<Vec<Slot>, Exit> {
    let mut gpus = Vec::new();
    let shown = asked.iter().any(|text| text != "auto").then(shown).transpose()?.flatten();
    for text in asked {
        if text == "auto" {
            let found = offered().map_err(|why| Exit::failure(format!("--gpu auto: {why}")))?;
            gpus.extend(found.into_iter().map(|card| (card.uuid, card.memory.free)));
        } else {
            let gpu = named(text)?;
            gpus.push(match &shown {
                Some(cards) => held_to(gpu, cards)?,
                None => gpu,
            });
        }
    }
    grouped(&gpus, together, runs)
}

/// The GPUs that a driver shows; nothing where none is, and GPUs are what their user says.
fn shown() -> Result<Option<Vec<Card>>, Exit> {
    let cards = Library::Driver.path().map(|_| cards()).transpose();
    cards.map_err(|error| Exit::failure(format!("--gpu: the driver does not say which GPUs are here: {error}")))
}

/// A GPU that was named, as the driver shows it. Parts of GPUs (MIG) are left as they were named: the driver shows those that
/// this process uses, and not those that others may.
fn held_to((name, memory): (String, u64), cards: &[Card]) -> Result<(String, u64), Exit> {
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

/// GPUs that the engine can use, or why there is none.
pub(crate) fn offered() -> Result<Vec<Card>, String> {
    if let Some(missing) = Library::NEEDED.into_iter().find(|library| library.path().is_none()) {
        return Err(format!("no {}: {}", missing.name(), missing.hint()));
    }
    let cards = cards().map_err(|error| error.to_string())?;
    if cards.is_empty() {
        return Err("the driver shows no GPU; see CUDA_VISIBLE_DEVICES and nvidia-smi".to_owned());
    }
    Ok(cards)
}

/// Slots for the runs of the plan that want a GPU; none where none does. A machine that has no GPU cannot work them off.
pub(crate) fn for_plan(plan: &Plan) -> Result<Vec<Slot>, Exit> {
    let wanting = |run: &&PlannedRun| run.run.numerics.engine == EngineKind::Cuda && run.action != Action::Reuse;
    let wanted: Vec<u64> = plan.runs.iter().filter(wanting).map(|run| run.memory_bytes).collect();
    let Some(needed) = wanted.iter().copied().max() else { return Ok(Vec::new()) };
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
    Ok(cards.iter().flat_map(|card| gpu_slots(&card.uuid, card.memory.free, RUNS_BESIDE)).collect())
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
mod tests {
    use super::*;

    fn found(path: Option<&str>) -> Vec<Found> {
        Library::ALL.map(|library| Found { library, path: path.map(Into::into) }).to_vec()
    }

    fn fixes(findings: &[Finding]) -> Vec<&str> {
        findings.iter().filter(|finding| !finding.fix.is_empty()).map(|finding| finding.found.as_str()).collect()
    }

    #[test]
    fn only_a_machine_with_a_gpu_lacks_libraries() {
        let none = told(None, &found(None));
        assert!(fixes(&none).is_empty() && none[0].found.starts_with("none found"), "{none:?}");
        let card = Card {
            uuid: "GPU-1".to_owned(),
            name: "H200".to_owned(),
            capability: 90,
            memory: isoloss_train::cuda::Memory { free: 1 << 30, total: 2 << 30 },
        };
        let bare = told(Some(Ok(vec![card])), &found(None));
        assert!(bare[0].found.starts_with("H200, compute capability 9.0, 1"), "{bare:?}");
        assert_eq!(fixes(&bare).len(), 3, "{bare:?}");
        assert!(fixes(&told(Some(Ok(Vec::new())), &found(Some("/x")))).is_empty());
        assert_eq!(fixes(&told(Some(Err("cuInit failed".to_owned())), &found(Some("/x")))), ["cuInit failed"]);
    }

    #[test]
    fn gpus_are_named_once_with_their_memory() {
        let slots = |asked: &[&str], together, runs| {
            let gpus = asked.iter().map(|text| named(text)).collect::<Result<Vec<_>, _>>()?;
            grouped(&gpus, together, runs)
        };
        let both = slots(&["GPU-1=80GiB", "GPU-2=1GiB"], 1, 2).unwrap();
        assert_eq!(
            both.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>(),
            ["GPU-1:0", "GPU-1:1", "GPU-2:0", "GPU-2:1"]
        );
        assert_eq!(both[0].memory_bytes, 80 << 30);
        let twice = ["GPU-1=1GiB", "GPU-1=2GiB"];
        for wrong in [&["GPU-1"][..], &["GPU-1=much"], &["GPU-1=80"], &["=80GiB"], &["GPU-1,GPU-2=1GiB"], &twice] {
            assert!(slots(wrong, 1, 1).is_err(), "{wrong:?}");
        }
        // A group is one device that has the memory of its smallest.
        let pair = slots(&["GPU-1=80GiB", "GPU-2=1GiB"], 2, 1).unwrap();
        assert_eq!((pair.len(), pair[0].gpu.as_deref(), pair[0].memory_bytes), (1, Some("GPU-1,GPU-2"), 1 << 30));
        assert!(slots(&["GPU-1=1GiB"], 2, 1).is_err());
    }

    #[test]
    fn gpus_that_are_named_are_held_to_those_that_the_driver_shows() {
        let card = |uuid: &str| Card {
            uuid: uuid.to_owned(),
            name: "H200".to_owned(),
            capability: 90,
            memory: isoloss_train::cuda::Memory { free: 7 << 30, total: 8 << 30 },
        };
        let cards = [card("GPU-11aa"), card("GPU-11bb")];
        let held = |name: &str, gib: u64| held_to((name.to_owned(), gib << 30), &cards);
        assert_eq!(held("GPU-11aa", 8).unwrap(), ("GPU-11aa".to_owned(), 8 << 30));
        assert_eq!(held("GPU-11b", 8).unwrap().0, "GPU-11bb");
        assert_eq!(held("MIG-5", 900).unwrap().0, "MIG-5");
        for (name, gib, words) in [
            ("GPU-11", 8, "--gpu: GPU-11 may be GPU-11aa or GPU-11bb"),
            ("GPU-22", 8, "no GPU-22 here; the driver shows GPU-11aa, GPU-11bb"),
            ("GPU-11aa", 900, "--gpu: 900 GiB of GPU-11aa are offered, and it has 8.00 GiB"),
        ] {
            let error = held(name, gib).unwrap_err().message;
            assert!(error.contains(words), "{error}");
        }
    }
}
