//! `corpus stats`: a text in numbers. It surveys the text as a sweep would, bytes as tokens.

use isoloss_corpus::{CorpusError, Dataset, Stats};
use isoloss_sweep::CorpusSpec;
use isoloss_sweep::corpus::{Source, TokenizerSpec, Validation};

use crate::args::{Format, Place};
use crate::exit::{Done, Exit};
use crate::place::DataDir;
use crate::print;

/// The survey of a corpus leaves gaps of one context; statistics want the usual one.
const CONTEXT: u32 = 256;

pub(crate) fn run(place: &Place, paths: &[String], separator: Option<&str>) -> Done {
    let spec = CorpusSpec {
        source: Source::Files {
            paths: paths.to_vec(),
            separator: separator.map(str::to_owned),
            field: "text".to_owned(),
        },
        tokenizer: TokenizerSpec::Bytes,
        validation: Validation::Fraction(0.05),
        transforms: Vec::new(),
    };
    let corpora = DataDir::of(place)?.corpora();
    let stats = measure(&spec, &corpora).map_err(Exit::usage)?;
    match place.format() {
        Format::Json => print::json(&stats),
        Format::Table | Format::Csv => {
            print::text_block(&table(&stats));
            Ok(())
        }
    }
}

fn measure(spec: &CorpusSpec, corpora: &std::path::Path) -> Result<Stats, CorpusError> {
    let manifest = isoloss_corpus::survey(spec, CONTEXT, corpora, &mut |_| {})?;
    let dataset = Dataset::open(&corpora.join(manifest.digest.to_string()))?;
    isoloss_corpus::stats(&dataset)
}

fn table(stats: &Stats) -> String {
    let zipf = stats.zipf_exponent.map_or("-".to_owned(), |s| format!("{s:.3}"));
    let mut rows = vec![
        ("documents", stats.documents.to_string()),
        ("bytes", stats.bytes.to_string()),
        ("tokens", stats.tokens.to_string()),
        ("words", format!("{} of {} types", stats.words, stats.word_types)),
        ("Zipf exponent", zipf),
        ("duplicate documents", format!("{:.2} %", stats.duplicate_documents * 100.0)),
        ("duplicate lines", format!("{:.2} %", stats.duplicate_lines * 100.0)),
        ("order-0 entropy", format!("{:.4} bits/byte", stats.order0)),
        ("gzip -9", format!("{:.4} bits/byte", stats.gzip)),
        ("xz -9e", format!("{:.4} bits/byte", stats.xz)),
        ("zstd -22", format!("{:.4} bits/byte", stats.zstd)),
    ];
    if let Some(bits) = stats.true_bits_per_byte {
        rows.push(("true surprisal", format!("{bits:.4} bits/byte")));
    }
    rows.iter().map(|(name, value)| format!("{name:<20} {value}\n")).collect()
}
