//! What workers call themselves and what they have. These words go into the journal, into tables and before people's eyes,
//! so they are short and of one line.

use isoloss_wire::api::{Code, Register};

use crate::http::refusal::Refused;

/// Of a worker or a slot.
const NAME_CHARS_MAX: usize = 128;
/// Of what describes them: versions, places, devices.
const WORDS_CHARS_MAX: usize = 1024;
/// A machine of 1024 cores offers a slot for each.
const SLOTS_MAX: usize = 4096;

/// Refuses a worker whose words are no names.
pub(crate) fn check(register: &Register) -> Result<(), Refused> {
    name("worker's name", &register.worker)?;
    if register.slots.len() > SLOTS_MAX {
        let detail = format!("a worker has at most {SLOTS_MAX} slots, got {}", register.slots.len());
        return Err(Refused::new(Code::BadRequest, detail));
    }
    for slot in &register.slots {
        name("slot's name", &slot.name)?;
        words("GPU's id", slot.gpu.as_deref().unwrap_or_default())?;
    }
    if register.gpu_names.len() > register.slots.len() {
        let (names, slots) = (register.gpu_names.len(), register.slots.len());
        let detail = format!("a worker names no more GPUs than it has slots, got {names} for {slots}");
        return Err(Refused::new(Code::BadRequest, detail));
    }
    for (gpu, name) in &register.gpu_names {
        words("GPU's id", gpu)?;
        words("GPU's name", name)?;
    }
    words("version", &register.code_version)?;
    words("storage's name", &register.storage)?;
    match &register.instance {
        Some(own) => [&own.id, &own.home, &own.place].into_iter().try_for_each(|text| words("description", text)),
        None => Ok(()),
    }
}

fn name(what: &str, text: &str) -> Result<(), Refused> {
    // A name that begins or ends with a space looks like another.
    match text.trim() != text || text.is_empty() {
        true => Err(refused(what, NAME_CHARS_MAX, text)),
        false => bounded(what, NAME_CHARS_MAX, text),
    }
}

fn words(what: &str, text: &str) -> Result<(), Refused> {
    bounded(what, WORDS_CHARS_MAX, text)
}

fn bounded(what: &str, most: usize, text: &str) -> Result<(), Refused> {
    match text.chars().count() > most || text.chars().any(char::is_control) {
        true => Err(refused(what, most, text)),
        false => Ok(()),
    }
}

fn refused(what: &str, most: usize, text: &str) -> Refused {
    let shown: String = text.chars().take(40).collect();
    let more = if shown.len() < text.len() { " and more" } else { "" };
    let detail = format!("a {what} has 1 to {most} printable characters and no space around them, got {shown:?}{more}");
    Refused::new(Code::BadRequest, detail)
}
