//! `corpus stats` and `corpus sample`: a text in numbers, and text from the synthetic language.

use isoloss_corpus::language::Language;
use isoloss_sweep::corpus::Preset;

use crate::args::{CorpusCommand, Place, PresetName};
use crate::exit::Done;
use crate::print;

pub(crate) fn run(place: &Place, command: &CorpusCommand) -> Done {
    match command {
        CorpusCommand::Stats { paths, separator } => crate::stats::run(place, paths, separator.as_deref()),
        CorpusCommand::Sample { preset, seed, bytes } => sample(*preset, *seed, *bytes),
    }
}

fn sample(preset: PresetName, seed: u64, bytes: u64) -> Done {
    let preset = match preset {
        PresetName::Tiny => Preset::Tiny,
        PresetName::Small => Preset::Small,
        PresetName::Large => Preset::Large,
    };
    let language = Language::new(preset, seed);
    let (mut written, mut bits, mut index) = (0, 0.0, 0);
    while written < bytes {
        let document = language.document(index);
        print::data(&String::from_utf8_lossy(&document.text));
        written += document.text.len() as u64;
        bits += document.bits;
        index += 1;
    }
    let entropy = language.entropy().bits_per_byte;
    let sampled = bits / written as f64;
    print::note(&format!(
        "{index} whole documents, {written} bytes; true surprisal {sampled:.4} bits/byte, entropy {entropy:.4}"
    ));
    Ok(())
}
