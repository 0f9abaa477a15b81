//! What simple codecs make of a text: the yardsticks beside a model's bits per byte.

use std::io::{self, Write};

use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use liblzma::write::XzEncoder;

use isoloss_sweep::corpus::Baselines;

/// Level 9 and the extreme flag, which the bindings do not name (`LZMA_PRESET_EXTREME`).
const XZ_9E: u32 = 9 | 1 << 31;
/// What xz -9 takes.
const XZ_DICTIONARY_MAX: u32 = 64 << 20;
const XZ_DICTIONARY_MIN: u32 = 64 << 10;
/// The strongest level of zstd.
const ZSTD_MAX: i32 = 22;

/// Order-0 entropy, gzip -9 and xz -9e of `text`, in bits per byte.
pub(crate) fn baselines(text: &[u8]) -> io::Result<Baselines> {
    Ok(Baselines { order0: order0(text), gzip: per_byte(gzip(text)?, text), xz: per_byte(xz(text)?, text) })
}

/// zstd -22 of `text`, in bits per byte.
pub(crate) fn zstd(text: &[u8]) -> io::Result<f64> {
    Ok(per_byte(zstd::bulk::compress(text, ZSTD_MAX)?.len(), text))
}

/// Entropy of the text's own byte histogram, in bits per byte; 0 for no text.
pub(crate) fn order0(text: &[u8]) -> f64 {
    let mut counts = [0u64; 256];
    for &byte in text {
        counts[usize::from(byte)] += 1;
    }
    let total = text.len() as f64;
    let used = counts.into_iter().filter(|&count| count > 0);
    // One value alone gives -0.0, which would be printed with its sign.
    used.map(|count| count as f64 / total).map(|p| -p * p.log2()).sum::<f64>() + 0.0
}

fn per_byte(compressed: usize, text: &[u8]) -> f64 {
    8.0 * compressed as f64 / text.len().max(1) as f64
}

fn gzip(text: &[u8]) -> io::Result<usize> {
    let mut encoder = flate2::write::GzEncoder::new(Count(0), flate2::Compression::best());
    encoder.write_all(text)?;
    Ok(encoder.finish()?.0)
}

/// The encoder takes some ten times its dictionary in memory, and one that holds the whole text finds all there is.
fn xz(text: &[u8]) -> io::Result<usize> {
    let whole = u32::try_from(text.len()).ok().and_then(u32::checked_next_power_of_two).unwrap_or(XZ_DICTIONARY_MAX);
    let mut options = LzmaOptions::new_preset(XZ_9E)?;
    options.dict_size(whole.clamp(XZ_DICTIONARY_MIN, XZ_DICTIONARY_MAX));
    let stream = Stream::new_stream_encoder(Filters::new().lzma2(&options), Check::Crc64)?;
    let mut encoder = XzEncoder::new_stream(Count(0), stream);
    encoder.write_all(text)?;
    Ok(encoder.finish()?.0)
}

/// Counts what is written to it.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of several sizes, on both sides of powers of two: of the synthetic language, and one of few repeats.
    #[test]
    fn a_dictionary_as_large_as_the_text_gives_what_xz_gives() {
        let preset = |text: &[u8]| {
            let mut encoder = XzEncoder::new(Count(0), XZ_9E);
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap().0
        };
        let language = crate::language::Language::new(isoloss_sweep::corpus::Preset::Small, 3);
        let text: Vec<u8> = (0..4000).flat_map(|n| language.document(n).text).take(1_800_000).collect();
        assert_eq!(text.len(), 1_800_000);
        for length in [0, 1, 1000, 65_536, 65_537, 150_000, 1 << 20, (1 << 20) + 1, 1_800_000] {
            assert_eq!(xz(&text[..length]).unwrap(), preset(&text[..length]), "{length}");
        }
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 59) as u8
        })
        .take(600_000)
        .collect();
        let far = [&noise[..], &noise[..]].concat();
        assert_eq!(xz(&far).unwrap(), preset(&far));
        assert!(xz(&far).unwrap() < xz(&noise).unwrap() + 1000, "the second half is one long match");
    }

    #[test]
    fn known_texts_have_known_entropies() {
        assert_eq!(order0(b"abab"), 1.0);
        assert_eq!(order0(b""), 0.0);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(order0(&all), 8.0);
        let baselines = baselines(&b"colourless green ideas ".repeat(500)).unwrap();
        assert!(baselines.gzip < 0.2 && baselines.xz < 0.2 && baselines.order0 > 3.0, "{baselines:?}");
    }
}
