//! A small plotting module: axes with honest ticks, lines, bands, marks, labels that stand beside what they name. It
//! writes SVG and knows nothing of runs or laws.
//!
//! Every element carries its light colour as a presentation attribute, so that a file stands alone in a paper, and a
//! class, so that a page may repaint it for the dark (style sheets win over presentation attributes).

mod axis;
mod canvas;
mod paint;
mod spread;

pub use axis::Axis;
pub(crate) use axis::{power, short_si};
pub use canvas::{Place, Plot, Rect, Shape, Tip, document, label_room};
pub use paint::{FONT, Paint, RAMP_LEVELS, css_variables};
pub(crate) use spread::spread;

/// Text made safe inside SVG and HTML, attributes included.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are not XML, even escaped.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Estimated width of a text in pixels; labels keep clear of each other by it.
pub fn text_width(text: &str, size: f64) -> f64 {
    let narrow = |c: char| matches!(c, 'i' | 'l' | 'j' | 't' | 'f' | 'I' | '.' | ',' | ':' | ' ' | '\'' | '|');
    text.chars().map(|c| if narrow(c) { 0.32 } else { 0.58 }).sum::<f64>() * size
}

#[cfg(test)]
mod tests;
