//! What a corpus's text is like: entropy, codecs, Zipf's law of its words, duplicates. Figures for people; nothing is
//! trained on them.

use std::collections::{HashMap, HashSet};
use std::io;

use isoloss_sweep::Digest;
use serde::Serialize;

use crate::CorpusError;
use crate::baseline::{baselines, zstd};
use crate::source::{self, Reader};

/// Codecs see this much of the text, from its start: xz -9e and zstd -22 take about a second per MiB.
const CODEC_BYTES_MAX: usize = 8 << 20;

/// Figures over a whole text as it is read: nothing is split, transformed or left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Bits per byte of the byte histogram.
    pub order0: f64,
    /// Bytes, from the start of the text, that the codecs were measured on.
    pub codec_bytes: u64,
    /// Bits per byte of gzip -9.
    pub gzip: f64,
    /// Bits per byte of xz -9e.
    pub xz: f64,
    /// Bits per byte of zstd -22.
    pub zstd: f64,
    pub words: u64,
    pub word_types: u64,
    /// Exponent s of p(rank) ~ rank^-s over all word types, by maximum likelihood; none with fewer than two types.
    pub zipf_exponent: Option<f64>,
    /// Documents equal to an earlier one, over documents.
    pub duplicate_documents: f64,
    /// Lines equal to an earlier one, over lines; blank ones are not counted.
    pub duplicate_lines: f64,
}

/// Measures the files that `paths` name, in their order. A text may be as short as it likes.
pub fn stats(paths: &[String], separator: Option<&str>) -> Result<Stats, CorpusError> {
    let files = source::resolve(paths)?;
    let documents = source::read(Reader { separator, field: "text" }, &files, &mut |_| {})?;
    let texts: Vec<Vec<u8>> = documents.into_iter().map(|document| document.text).collect();
    measure(&texts).map_err(CorpusError::Codec)
}

fn measure(texts: &[Vec<u8>]) -> io::Result<Stats> {
    let text = texts.concat();
    let measured = &text[..text.len().min(CODEC_BYTES_MAX)];
    let codecs = baselines(measured)?;
    let words = Words::of(&text);
    Ok(Stats {
        documents: texts.len() as u64,
        bytes: text.len() as u64,
        order0: crate::baseline::order0(&text),
        codec_bytes: measured.len() as u64,
        gzip: codecs.gzip,
        xz: codecs.xz,
        zstd: zstd(measured)?,
        words: words.total,
        word_types: words.counts.len() as u64,
        zipf_exponent: words.zipf_exponent(),
        duplicate_documents: repeated(texts.iter().map(Vec::as_slice)),
        duplicate_lines: repeated(text.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty())),
    })
}

/// The share of items that equal an earlier one.
fn repeated<'a>(items: impl Iterator<Item = &'a [u8]>) -> f64 {
    let mut seen = HashSet::new();
    let (mut all, mut again) = (0u64, 0u64);
    for item in items {
        all += 1;
        again += u64::from(!seen.insert(Digest::of(item)));
    }
    again as f64 / all.max(1) as f64
}

/// How often each word occurs, most frequent first.
struct Words {
    total: u64,
    counts: Vec<u64>,
}

impl Words {
    /// Words are runs of letters, digits and underscores, in lower case; what is not UTF-8 separates them.
    fn of(text: &[u8]) -> Self {
        let mut counts: HashMap<String, u64> = HashMap::new();
        for chunk in text.utf8_chunks() {
            for word in chunk.valid().split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
            {
                *counts.entry(word.to_lowercase()).or_default() += 1;
            }
        }
        let mut counts: Vec<u64> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        Self { total: counts.iter().sum(), counts }
    }

    /// The likelihood of ranks 1..=n is greatest where the model's mean log rank is the observed one; the model's
    /// falls with s, so bisection finds it.
    fn zipf_exponent(&self) -> Option<f64> {
        if self.counts.len() < 2 {
            return None;
        }
        let logs: Vec<f64> = (1..=self.counts.len()).map(|rank| (rank as f64).ln()).collect();
        let observed: f64 =
            self.counts.iter().zip(&logs).map(|(&count, log)| count as f64 * log).sum::<f64>() / self.total as f64;
        let expected = |exponent: f64| {
            let (mut mass, mut sum) = (0.0, 0.0);
            for log in &logs {
                let weight = (-exponent * log).exp();
                mass += weight;
                sum += weight * log;
            }
            sum / mass
        };
        // Counts are sorted, so the estimate is not negative; 64 halvings exhaust a double.
        let (mut low, mut high) = (0.0, 20.0);
        for _ in 0..64 {
            let middle = 0.5 * (low + high);
            if expected(middle) > observed {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_zipf_exponent_is_found() {
        for planted in [0.7, 1.0, 1.3] {
            let counts: Vec<u64> = (1..=5_000u32).map(|rank| (1e9 * f64::from(rank).powf(-planted)) as u64).collect();
            let words = Words { total: counts.iter().sum(), counts };
            let found = words.zipf_exponent().unwrap();
            assert!((found - planted).abs() < 1e-3, "{found} {planted}");
        }
        assert_eq!(Words::of(b"one ONE one").zipf_exponent(), None);
    }

    #[test]
    fn a_file_is_measured_whole_however_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small.txt");
        std::fs::write(&path, "a line\na line\n---\nanother\n").unwrap();
        let paths = [path.to_str().unwrap().to_owned()];
        let whole = stats(&paths, None).unwrap();
        assert_eq!((whole.documents, whole.bytes, whole.words, whole.duplicate_lines), (1, 26, 5, 0.25));
        assert_eq!(stats(&paths, Some("---")).unwrap().documents, 2);
        assert!(stats(&["/dev/null".to_owned()], None).is_err(), "a device is not a text");
    }

    #[test]
    fn words_and_repeats_are_counted_by_their_definitions() {
        let words = Words::of("The cat, the CAT_1; Größe größe\u{2014}x \u{0}y".as_bytes());
        assert_eq!((words.total, words.counts), (8, vec![2, 2, 1, 1, 1, 1]));
        let lines: [&[u8]; 4] = [b"a", b"b", b"a", b"a"];
        assert_eq!(repeated(lines.into_iter()), 0.5);
        assert_eq!(repeated(std::iter::empty()), 0.0);
    }
}
