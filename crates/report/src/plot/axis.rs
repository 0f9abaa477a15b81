//! An axis: a range, its scale, where its ticks stand and how they are written. Pixels are the canvas's matter.

use isoloss_sweep::count::si;

/// How values map to positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
}

/// How ticks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    Plain,
    /// 50k, 1.6M.
    Count,
    /// Powers of ten.
    Power,
    /// With a sign and a per cent sign, from ratios.
    Percent,
    /// No ticks: rows have names of their own.
    Silent,
}

/// One axis of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
    words: Words,
    /// Ticks wanted however small the plot.
    least: usize,
    pub(crate) label: String,
}

impl Axis {
    fn new(low: f64, high: f64, scale: Scale, words: Words, label: &str) -> Self {
        assert!(low.is_finite() && high.is_finite(), "axis {label}: range {low} to {high} is not finite");
        assert!(scale == Scale::Linear || low > 0.0, "axis {label}: a log axis cannot start at {low}");
        let (low, high) = if low < high { (low, high) } else { widen(low, scale) };
        Self { low, high, scale, words, least: 0, label: label.to_owned() }
    }

    pub fn linear(low: f64, high: f64, label: &str) -> Self {
        Self::new(low, high, Scale::Linear, Words::Plain, label)
    }

    pub fn log(low: f64, high: f64, label: &str) -> Self {
        Self::new(low, high, Scale::Log, Words::Plain, label)
    }

    /// Ticks as 50k, 1.6M.
    pub fn counts(mut self) -> Self {
        self.words = Words::Count;
        self
    }

    /// Ticks as powers of ten.
    pub fn powers(mut self) -> Self {
        self.words = Words::Power;
        self
    }

    /// Ticks as signed per cents of a ratio.
    pub fn percents(mut self) -> Self {
        self.words = Words::Percent;
        self
    }

    /// At least about so many ticks, for small plots.
    pub fn ticked(mut self, least: usize) -> Self {
        self.least = least;
        self
    }

    /// No ticks and no grid.
    pub fn silent(mut self) -> Self {
        self.words = Words::Silent;
        self
    }

    /// More room at both ends, as shares of the span.
    pub fn padded(mut self, before: f64, after: f64) -> Self {
        let (low, high) = (self.inner(self.low), self.inner(self.high));
        let span = high - low;
        self.low = self.outer(low - before * span);
        self.high = self.outer(high + after * span);
        self
    }

    pub fn low(&self) -> f64 {
        self.low
    }

    pub fn high(&self) -> f64 {
        self.high
    }

    fn inner(&self, value: f64) -> f64 {
        if self.scale == Scale::Log { value.ln() } else { value }
    }

    fn outer(&self, value: f64) -> f64 {
        if self.scale == Scale::Log { value.exp() } else { value }
    }

    /// Position between 0 and 1 inside the range; values off a log axis lie far below it.
    pub fn at(&self, value: f64) -> f64 {
        if self.scale == Scale::Log && value <= 0.0 {
            return -1e3;
        }
        (self.inner(value) - self.inner(self.low)) / (self.inner(self.high) - self.inner(self.low))
    }

    /// `count` values evenly spaced on the axis, both ends included.
    pub fn samples(&self, count: usize) -> impl Iterator<Item = f64> + '_ {
        let (low, high) = (self.inner(self.low), self.inner(self.high));
        (0..=count).map(move |i| self.outer(low + (high - low) * i as f64 / count as f64))
    }

    /// Values and words of the ticks; about `wanted` of them.
    pub(crate) fn ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        if self.words == Words::Silent {
            return Vec::new();
        }
        let wanted = wanted.max(self.least);
        let values = match self.scale {
            Scale::Linear => even(self.low, self.high, wanted),
            // Powers of ten are long words and need more room.
            Scale::Log => logarithmic(self.low, self.high, wanted, self.words != Words::Power),
        };
        let step = values.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
        values.into_iter().map(|value| (value, self.word(value, step))).collect()
    }

    fn word(&self, value: f64, step: f64) -> String {
        match self.words {
            Words::Count => short_si(value),
            Words::Power => power(value),
            Words::Percent => {
                let digits = decimals(step * 100.0);
                let sign = if value > step / 2.0 { "+" } else { "" };
                minus(&format!("{sign}{:.digits$} %", value * 100.0))
            }
            Words::Plain | Words::Silent => minus(&format!("{value:.*}", decimals(step))),
        }
    }
}

fn widen(value: f64, scale: Scale) -> (f64, f64) {
    match scale {
        Scale::Log => (value / 2.0, value * 2.0),
        Scale::Linear => (value - 0.5, value + 0.5),
    }
}

/// Decimals that tell neighbours apart which lie `step` apart.
fn decimals(step: f64) -> usize {
    if step.is_finite() && step > 0.0 { (-(step * 1.0001).log10().floor()).clamp(0.0, 6.0) as usize } else { 2 }
}

fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
}

/// `50k`, `1.6M`: no digits that say nothing.
pub(crate) fn short_si(value: f64) -> String {
    let text = si(value);
    let split = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    if digits.contains('.') { format!("{}{suffix}", digits.trim_end_matches('0').trim_end_matches('.')) } else { text }
}

/// `10¹²`, `2·10¹²`.
pub(crate) fn power(value: f64) -> String {
    let mut exponent = value.log10().floor();
    let mut lead = value / 10_f64.powf(exponent);
    if lead > 9.95 {
        (exponent, lead) = (exponent + 1.0, 1.0);
    }
    let raise = |c: char| match c {
        '-' => '\u{207b}',
        '1' => '\u{b9}',
        '2' => '\u{b2}',
        '3' => '\u{b3}',
        c => char::from_u32(0x2070 + c.to_digit(10).unwrap_or(0)).unwrap_or(c),
    };
    let raised: String = format!("{exponent:.0}").chars().map(raise).collect();
    if (lead - 1.0).abs() < 0.05 {
        format!("10{raised}")
    } else {
        format!("{}\u{b7}10{raised}", format!("{lead:.1}").trim_end_matches(".0"))
    }
}

/// Round values at steps of 1, 2 or 5 times a power of ten.
fn even(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let raw = (high - low) / wanted.max(1) as f64;
    let base = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * base).find(|s| *s >= raw * 0.7).unwrap_or(10.0 * base);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// The richest of powers of ten (or each third), with 1-2-5 or with 1-3 that does not crowd; even steps on short ranges.
fn logarithmic(low: f64, high: f64, wanted: usize, dense: bool) -> Vec<f64> {
    let decades = (high / low).log10();
    if decades < 0.6 {
        return even(low, high, wanted).into_iter().filter(|v| *v > 0.0).collect();
    }
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let inside = |leads: &[f64], every: i32| -> Vec<f64> {
        let powers = (first..=last).filter(|e| e.rem_euclid(every) == 0);
        let all = powers.flat_map(|e| leads.iter().map(move |lead| lead * 10_f64.powi(e)));
        all.filter(|v| *v >= low * 0.9999 && *v <= high * 1.0001).collect()
    };
    let choices: [(&[f64], i32); 7] = [
        (&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0], 1),
        (&[1.0, 2.0, 5.0], 1),
        (&[1.0, 3.0], 1),
        (&[1.0], 1),
        (&[1.0], 2),
        (&[1.0], 3),
        (&[1.0], 6),
    ];
    let fits = |ticks: &Vec<f64>| ticks.len() <= wanted + 2;
    choices.iter().skip(usize::from(!dense)).map(|(leads, every)| inside(leads, *every)).find(fits).unwrap_or_default()
}
