//! Numbers as people write them: counts `"20M"`, durations `"10min"`, sizes `"80GiB"`. No knowledge of keys.

/// A number with an optional decimal suffix: `20M`, `2e7`, `1.5k`. `B` and `G` are both 1e9.
pub fn parse_number(text: &str) -> Option<f64> {
    scaled(text, &[("", 1.0), ("k", 1e3), ("K", 1e3), ("M", 1e6), ("B", 1e9), ("G", 1e9), ("T", 1e12), ("P", 1e15)])
}

/// Seconds of `90s`, `10min`, `2h`, `1d`.
pub fn parse_seconds(text: &str) -> Option<f64> {
    scaled(text, &[("ms", 1e-3), ("s", 1.0), ("sec", 1.0), ("m", 60.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)])
}

/// Bytes of `512`, `64KiB`, `80GiB`, `1.5MB`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 10] = [
        ("", 1.0),
        ("B", 1.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
    ];
    scaled(text, &UNITS).and_then(whole)
}

/// Bytes for people, to three digits: `512 B`, `1.50 GiB`, `900 TiB`.
pub fn bytes_words(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in UNITS {
        // Below, rounding would show four digits.
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    let digits = match value {
        _ if unit == "B" || value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

/// The integer that `value` is, if it is one below 2^63 and not negative.
pub(crate) fn whole(value: f64) -> Option<u64> {
    let near = value.round();
    // Decimal fractions such as 0.3M are not exact in binary.
    ((value - near).abs() <= 1e-9 * near.abs().max(1.0) && (0.0..9.2e18).contains(&near)).then_some(near as u64)
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.trim();
    // An exponent's `e` belongs to the number, so the suffix is sought from the longest number down.
    let (number, unit) = (1..=text.len())
        .rev()
        .filter(|at| text.is_char_boundary(*at))
        .find_map(|at| Some((number_of(&text[..at])?, text[at..].trim())))?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number * factor)
}

fn number_of(text: &str) -> Option<f64> {
    // `f64::from_str` also takes "inf", "nan" and a leading plus; none of them is a quantity.
    let starts = text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.');
    let plain: String = text.trim_end().chars().filter(|c| *c != '_').collect();
    starts.then(|| plain.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_people_write_them() {
        assert_eq!(parse_number("20M"), Some(2e7));
        assert_eq!(parse_number("2e7"), Some(2e7));
        assert_eq!(parse_number("1_000"), Some(1e3));
        assert_eq!(parse_number("-3"), Some(-3.0));
        assert_eq!(parse_number("20Mi"), None);
        assert_eq!(parse_number("inf"), None);
        assert_eq!(parse_number(""), None);
        assert_eq!(parse_seconds("10min"), Some(600.0));
        assert_eq!(parse_seconds("10"), None);
        assert_eq!(parse_bytes("80GiB"), Some(80 << 30));
        assert_eq!(parse_bytes("256 KiB"), Some(256 << 10));
        let words = [0, 512, 1000, 3 << 29, 10 << 20, 989_560_464_998_400, u64::MAX].map(bytes_words);
        assert_eq!(words, ["0 B", "512 B", "0.98 KiB", "1.50 GiB", "10.0 MiB", "900 TiB", "16.0 EiB"]);
        assert_eq!(whole(0.3e6), Some(300_000));
        assert_eq!(whole(0.5), None);
    }
}
