//! `corpus stats`: a text in numbers, or the corpora of a sweep as its runs see them.

use std::path::Path;

use isoloss_corpus::Stats;
use isoloss_sweep::Manifest;
use isoloss_sweep::corpus::{Part, Source};
use serde::Serialize;

use crate::args::{Format, Place, SweepFile};
use crate::exit::{Done, Exit};
use crate::place::DataDir;
use crate::{plan, print};

const SCHEMA_VERSION: u32 = 1;

/// What is printed of files as JSON.
#[derive(Debug, Serialize)]
struct FilesJson<'a> {
    schema_version: u32,
    paths: &'a [String],
    stats: Stats,
}

/// What is printed of a sweep as JSON: manifests have no statistics of words, but say what is trained and scored.
#[derive(Debug, Serialize)]
struct SweepJson<'a> {
    schema_version: u32,
    corpora: &'a [Manifest],
}

pub(crate) fn run(place: &Place, paths: &[String], separator: Option<&str>) -> Done {
    if place.format() == Format::Csv {
        return Err(Exit::usage("statistics of a corpus are a table or JSON"));
    }
    match paths {
        [only] if is_sweep(only) => of_sweep(place, only, separator),
        _ => of_files(place, paths, separator),
    }
}

/// A sweep file that is wrong is still a sweep file: its mistake is told, its TOML is not measured as text.
fn is_sweep(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "toml")
        && std::fs::read_to_string(path)
            .ok()
            .and_then(|text| text.parse::<toml::Table>().ok())
            .is_some_and(|table| table.contains_key("schema"))
}

fn of_files(place: &Place, paths: &[String], separator: Option<&str>) -> Done {
    let stats = isoloss_corpus::stats(paths, separator).map_err(Exit::usage)?;
    match place.format() {
        Format::Json => print::json(&FilesJson { schema_version: SCHEMA_VERSION, paths, stats }),
        Format::Table | Format::Csv => {
            print::text_block(&table(&stats));
            Ok(())
        }
    }
}

fn of_sweep(place: &Place, file: &str, separator: Option<&str>) -> Done {
    if separator.is_some() {
        return Err(Exit::usage("--separator goes with text files; a sweep says its own under [corpus]"));
    }
    let submit = plan::read(&SweepFile { file: file.into(), set: Vec::new() })?;
    let data = DataDir::of(place)?;
    let planned = plan::estimate(&submit, &data, None, &|_| false, &mut |_| {})?;
    let corpora = &planned.planning.manifests;
    match place.format() {
        Format::Json => print::json(&SweepJson { schema_version: SCHEMA_VERSION, corpora }),
        Format::Table | Format::Csv => {
            let blocks: Vec<String> = corpora.iter().map(manifest).collect();
            print::text_block(&blocks.join("\n"));
            Ok(())
        }
    }
}

fn rows(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("{name:<20} {value}\n")).collect()
}

fn table(stats: &Stats) -> String {
    let zipf = stats.zipf_exponent.map_or("-".to_owned(), |s| format!("{s:.3}"));
    // Codecs read the beginning of a long text only.
    let part =
        if stats.codec_bytes < stats.bytes { format!(" (first {} bytes)", stats.codec_bytes) } else { String::new() };
    rows(&[
        ("documents", stats.documents.to_string()),
        ("bytes", stats.bytes.to_string()),
        ("words", format!("{} of {} types", stats.words, stats.word_types)),
        ("Zipf exponent", zipf),
        ("duplicate documents", format!("{:.2} %", stats.duplicate_documents * 100.0)),
        ("duplicate lines", format!("{:.2} %", stats.duplicate_lines * 100.0)),
        ("order-0 entropy", format!("{:.4} bits/byte", stats.order0)),
        ("gzip -9", format!("{:.4} bits/byte{part}", stats.gzip)),
        ("xz -9e", format!("{:.4} bits/byte{part}", stats.xz)),
        ("zstd -22", format!("{:.4} bits/byte{part}", stats.zstd)),
    ])
}

fn manifest(manifest: &Manifest) -> String {
    let source = match &manifest.spec.source {
        Source::Files { paths, .. } => paths.join(", "),
        Source::Synthetic { preset, seed, .. } => format!("synthetic, {preset:?}, seed {seed}").to_lowercase(),
    };
    rows(&[
        ("corpus", manifest.digest.short()),
        ("source", source),
        ("vocabulary", manifest.vocab.to_string()),
        ("train", part(&manifest.train)),
        ("validation", part(&manifest.validation)),
        ("order-0 entropy", format!("{:.4} bits/byte of the validation text", manifest.baselines.order0)),
        ("gzip -9", format!("{:.4} bits/byte of the validation text", manifest.baselines.gzip)),
        ("xz -9e", format!("{:.4} bits/byte of the validation text", manifest.baselines.xz)),
    ])
}

fn part(part: &Part) -> String {
    let mut text = format!("{} documents, {} bytes, {} tokens", part.documents, part.bytes, part.tokens.get());
    if let Some(bits) = part.true_bits.filter(|_| part.bytes > 0) {
        text.push_str(&format!(", true surprisal {:.4} bits/byte", bits / part.bytes as f64));
    }
    text
}
