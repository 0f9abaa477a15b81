//! What simple codecs make of a text: the yardsticks beside a model's bits per byte.

use std::io::{self, Write};

use isoloss_sweep::corpus::Baselines;

/// Level 9 and the extreme flag, which the bindings do not name (`LZMA_PRESET_EXTREME`).
const XZ_9E: u32 = 9 | 1 << 31;
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

fn xz(text: &[u8]) -> io::Result<usize> {
    let mut encoder = liblzma::write::XzEncoder::new(Count(0), XZ_9E);
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
