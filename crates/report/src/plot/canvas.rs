//! One plot: a frame with two axes that things are drawn into, and the file around plots.

use std::fmt::Write as _;

use super::axis::Axis;
use super::paint::{FONT, Paint, painted};
use super::{escape, spread, text_width};

/// Text sizes in pixels: readable when a 640-pixel figure is printed one column wide.
const TICK: f64 = 12.5;
const LABEL: f64 = 13.0;
/// Space a label line needs.
const LINE: f64 = 15.0;

/// A label keeps this far from the centres of marks.
const MARK_ROOM: f64 = 6.0;

/// Where a plot's frame stands in its file, labels outside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    /// Whether a point lies inside or nearer than `room`.
    fn reaches(&self, x: f64, y: f64, room: f64) -> bool {
        let (right, bottom) = (self.x + self.width + room, self.y + self.height + room);
        (self.x - room..=right).contains(&x) && (self.y - room..=bottom).contains(&y)
    }
}

/// A place that a text may take: moved from a point by pixels, and ending there or beginning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    pub at: (f64, f64),
    pub shift: (f64, f64),
    pub before: bool,
}

/// Shape of a mark; the second way, beside colour, to tell arms apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Circle,
    Diamond,
    Square,
    Triangle,
    Ring,
}

impl Shape {
    pub fn of(index: usize) -> Self {
        [Self::Circle, Self::Diamond, Self::Square, Self::Triangle][index % 4]
    }
}

/// What a mark tells when it is pointed at, and which run and arm it stands for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tip {
    pub run: Option<String>,
    pub arm: Option<String>,
    /// Lines; the first is the heading.
    pub text: String,
}

struct EndLabel {
    y: f64,
    text: String,
    paint: Paint,
    arm: Option<String>,
}

/// A plot under construction.
pub struct Plot {
    frame: Rect,
    x: Axis,
    y: Axis,
    clip: String,
    /// Lines and bands, clipped to the frame.
    below: String,
    /// Marks and labels.
    above: String,
    ends: Vec<EndLabel>,
}

impl Plot {
    /// `id` must be unique in the page; figures use their file's name.
    pub fn new(id: &str, frame: Rect, x: Axis, y: Axis) -> Self {
        let clip = format!("clip-{id}-{:.0}", frame.x);
        Self { frame, x, y, clip, below: String::new(), above: String::new(), ends: Vec::new() }
    }

    pub fn x_axis(&self) -> &Axis {
        &self.x
    }

    pub fn y_axis(&self) -> &Axis {
        &self.y
    }

    pub fn px(&self, x: f64) -> f64 {
        self.frame.x + self.x.at(x) * self.frame.width
    }

    pub fn py(&self, y: f64) -> f64 {
        self.frame.y + (1.0 - self.y.at(y)) * self.frame.height
    }

    fn path(&self, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (at, (x, y)) in points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).enumerate() {
            let verb = if at == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{:.1} {:.1}", self.px(*x), self.py(*y).clamp(-1e4, 1e4));
        }
        path
    }

    /// A line through points in the units of the axes; `dash` as in SVG, empty for solid.
    pub fn line(&mut self, points: &[(f64, f64)], paint: Paint, width: f64, dash: &str, arm: Option<&str>) {
        let path = self.path(points);
        if path.is_empty() {
            return;
        }
        let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
        let arm = attribute("data-arm", arm);
        let paint = painted(None, Some(paint));
        let _ = writeln!(
            self.below,
            "<path d=\"{path}\" {paint} stroke-width=\"{width}\" stroke-linejoin=\"round\" \
             stroke-linecap=\"round\"{dash}{arm}/>"
        );
    }

    /// Many small dots in one path, without anything to tell.
    pub fn dots(&mut self, points: &[(f64, f64)], paint: Paint, size: f64, opacity: f64) {
        let mut path = String::new();
        for (x, y) in points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()) {
            let _ = write!(path, "M{:.1} {:.1}h0", self.px(*x).clamp(-1e4, 1e4), self.py(*y).clamp(-1e4, 1e4));
        }
        let paint = painted(None, Some(paint));
        let _ = writeln!(
            self.below,
            "<path d=\"{path}\" {paint} stroke-width=\"{size}\" stroke-linecap=\"round\" stroke-opacity=\"{opacity:.2}\"/>"
        );
    }

    /// The area between two lines over the same x.
    pub fn band(&mut self, points: &[(f64, f64, f64)], paint: Paint, opacity: f64) {
        let upper = points.iter().map(|(x, _, high)| (*x, *high));
        let lower = points.iter().rev().map(|(x, low, _)| (*x, *low));
        let path = self.path(&upper.chain(lower).collect::<Vec<_>>());
        let _ =
            writeln!(self.below, "<path d=\"{path}Z\" {} fill-opacity=\"{opacity:.2}\"/>", painted(Some(paint), None));
    }

    /// A level across the whole frame.
    pub fn level(&mut self, y: f64, paint: Paint, dash: &str) {
        let (low, high) = (self.x.low(), self.x.high());
        self.line(&[(low, y), (high, y)], paint, 1.6, dash, None);
    }

    /// A mark with what it tells.
    pub fn mark(&mut self, x: f64, y: f64, shape: Shape, paint: Paint, size: f64, tip: &Tip) {
        if !(x.is_finite() && y.is_finite() && (-0.01..=1.01).contains(&self.x.at(x))) {
            return;
        }
        let (px, py, r) = (self.px(x), self.py(y), size);
        let body = outline(shape, px, py, r);
        let (paints, width) = finish_of(shape, paint);
        let title = if tip.text.is_empty() { String::new() } else { format!("<title>{}</title>", escape(&tip.text)) };
        let (run, arm) = (attribute("data-run", tip.run.as_deref()), attribute("data-arm", tip.arm.as_deref()));
        let _ =
            writeln!(self.above, "<g class=\"mark\"{run}{arm}>{title}{body} {paints} stroke-width=\"{width}\"/></g>");
    }

    /// A line between two points over everything else.
    pub fn link(&mut self, from: (f64, f64), to: (f64, f64), paint: Paint, width: f64, arm: Option<&str>) {
        let path = self.path(&[from, to]);
        let arm = attribute("data-arm", arm);
        let paint = painted(None, Some(paint));
        let _ = writeln!(self.above, "<path d=\"{path}\" {paint} stroke-width=\"{width}\"{arm}/>");
    }

    /// A label right of the frame at height `y`; finished plots keep them apart.
    pub fn end_label(&mut self, y: f64, text: &str, paint: Paint, arm: Option<&str>) {
        let y = self.py(y).clamp(self.frame.y, self.frame.y + self.frame.height);
        self.ends.push(EndLabel { y, text: text.to_owned(), paint, arm: arm.map(str::to_owned) });
    }

    /// Text at a point, moved by (dx, dy) pixels; `anchor` is start, middle or end.
    pub fn text(&mut self, at: (f64, f64), shift: (f64, f64), anchor: &str, text: &str, paint: Paint) {
        let (x, y) = (self.px(at.0) + shift.0, self.py(at.1) + shift.1);
        self.above.push_str(&label(x, y, anchor, text, paint, LABEL, true));
    }

    /// Text at the first of the places inside the frame at which it covers no mark, on a patch that cuts it free of lines;
    /// where every place covers marks, at the one with the fewest.
    pub fn patch_text(&mut self, places: &[Place], text: &str, paint: Paint, marks: &[(f64, f64)]) {
        let width = text_width(text, LABEL);
        let marks: Vec<(f64, f64)> = marks.iter().map(|(x, y)| (self.px(*x), self.py(*y))).collect();
        let boxed = |place: &Place| {
            let (x, y) = (self.px(place.at.0) + place.shift.0, self.py(place.at.1) + place.shift.1);
            let left = if place.before { x - width } else { x };
            Rect { x: left - 3.0, y: y - LABEL, width: width + 6.0, height: LABEL + 5.0 }
        };
        let Rect { x, y, width: across, height } = self.frame;
        let inside = |r: &Rect| r.x >= x && r.x + r.width <= x + across && r.y >= y && r.y + r.height <= y + height;
        let covered = |r: &Rect| marks.iter().filter(|(px, py)| r.reaches(*px, *py, MARK_ROOM)).count();
        let Some(best) = places.iter().map(boxed).filter(inside).min_by_key(covered) else {
            return;
        };
        let patch = painted(Some(Paint::Surface), None);
        let _ = writeln!(
            self.above,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\" {patch} fill-opacity=\"0.92\"/>",
            best.x, best.y, best.width, best.height
        );
        self.above.push_str(&label(best.x + 3.0, best.y + LABEL, "start", text, paint, LABEL, false));
    }

    /// Text on a filled area, without the rim that cuts labels free.
    pub fn inner_text(&mut self, at: (f64, f64), text: &str, paint: Paint) {
        let (x, y) = (self.px(at.0), self.py(at.1) + 4.5);
        self.above.push_str(&label(x, y, "middle", text, paint, TICK, false));
    }

    /// Shapes and their names in a row above the frame, flush right.
    pub fn legend(&mut self, entries: &[(Shape, Paint, &str)]) {
        let mut x = self.frame.x + self.frame.width;
        for (shape, paint, name) in entries.iter().rev() {
            x -= text_width(name, LABEL);
            let text = label(x, self.frame.y - 14.0, "start", name, Paint::Ink, LABEL, false);
            let body = outline(*shape, x - 11.0, self.frame.y - 18.5, 4.6);
            let (paints, width) = finish_of(*shape, *paint);
            let _ = writeln!(
                self.above,
                "<g data-arm=\"{}\">{body} {paints} stroke-width=\"{width}\"/>{text}</g>",
                escape(name)
            );
            x -= 30.0;
        }
    }

    /// Frame, axes, ticks and all that was drawn.
    pub fn finish(mut self) -> String {
        let Rect { x, y, width, height } = self.frame;
        let mut out = format!(
            "<g><clipPath id=\"{}\"><rect x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{}\"/></clipPath>\n",
            self.clip,
            y - 2.0,
            height + 4.0
        );
        self.draw_axes(&mut out);
        let _ = write!(out, "<g clip-path=\"url(#{})\">\n{}</g>\n{}", self.clip, self.below, self.above);
        self.draw_ends(&mut out);
        out.push_str("</g>\n");
        out
    }

    fn draw_axes(&self, out: &mut String) {
        let Rect { x, y, width, height } = self.frame;
        let (right, bottom) = (x + width, y + height);
        let grid = painted(None, Some(Paint::Grid));
        for (value, word) in self.y.ticks((height / 60.0) as usize) {
            let py = self.py(value);
            let _ = writeln!(out, "<path d=\"M{x:.1} {py:.1}H{right:.1}\" {grid} stroke-width=\"1\"/>");
            out.push_str(&label(x - 8.0, py + 4.3, "end", &word, Paint::Muted, TICK, false));
        }
        let ink = painted(None, Some(Paint::Muted));
        let _ = writeln!(out, "<path d=\"M{x:.1} {bottom:.1}H{right:.1}\" {ink} stroke-width=\"1\"/>");
        for (value, word) in self.x.ticks((width / 75.0) as usize) {
            let px = self.px(value);
            let _ = writeln!(out, "<path d=\"M{px:.1} {bottom:.1}v5\" {ink} stroke-width=\"1\"/>");
            out.push_str(&label(px, bottom + 19.0, "middle", &word, Paint::Muted, TICK, false));
        }
        out.push_str(&label(x - 44.0, y - 14.0, "start", &self.y.label, Paint::Ink, LABEL, false));
        out.push_str(&label(x + width / 2.0, bottom + 39.0, "middle", &self.x.label, Paint::Ink, LABEL, false));
    }

    fn draw_ends(&mut self, out: &mut String) {
        let wanted: Vec<f64> = self.ends.iter().map(|end| end.y).collect();
        let (low, high) = (self.frame.y - 4.0, self.frame.y + self.frame.height);
        let placed = spread(&wanted, LINE, low, high);
        let right = self.frame.x + self.frame.width;
        for (end, y) in self.ends.iter().zip(placed) {
            let text = label(right + 16.0, y + 4.3, "start", &end.text, end.paint, LABEL, true);
            let stroke = painted(None, Some(end.paint));
            let arm = attribute("data-arm", end.arm.as_deref());
            let _ = writeln!(
                out,
                "<g{arm}><path d=\"M{:.1} {:.1}L{:.1} {y:.1}\" {stroke} stroke-width=\"1\" \
                 stroke-opacity=\"0.6\"/>{text}</g>",
                right + 3.0,
                end.y,
                right + 12.0
            );
        }
    }
}

fn attribute(name: &str, value: Option<&str>) -> String {
    value.map(|value| format!(" {name}=\"{}\"", escape(value))).unwrap_or_default()
}

/// The open element of a shape, without its paint.
fn outline(shape: Shape, x: f64, y: f64, r: f64) -> String {
    match shape {
        Shape::Circle | Shape::Ring => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\""),
        Shape::Diamond => polygon(x, y, r * 1.3, &[(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]),
        Shape::Square => polygon(x, y, r * 0.95, &[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]),
        Shape::Triangle => polygon(x, y, r * 1.2, &[(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)]),
    }
}

/// A rim of the page's colour keeps overlapping marks countable; a ring is all rim.
fn finish_of(shape: Shape, paint: Paint) -> (String, f64) {
    match shape {
        Shape::Ring => (painted(Some(Paint::Surface), Some(paint)), 2.0),
        Shape::Circle | Shape::Diamond | Shape::Square | Shape::Triangle => {
            (painted(Some(paint), Some(Paint::Surface)), 1.2)
        }
    }
}

fn polygon(x: f64, y: f64, r: f64, corners: &[(f64, f64)]) -> String {
    let points: Vec<String> = corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx * r, y + dy * r)).collect();
    format!("<polygon points=\"{}\"", points.join(" "))
}

/// A text; with `halo` it is cut free of what lies under it.
pub(super) fn label(x: f64, y: f64, anchor: &str, text: &str, paint: Paint, size: f64, halo: bool) -> String {
    let cut = if halo { " stroke-width=\"3.5\" stroke-linejoin=\"round\" paint-order=\"stroke\"" } else { "" };
    let paints = painted(Some(paint), halo.then_some(Paint::Surface));
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" {paints}{cut}>{}</text>\n",
        escape(text)
    )
}

/// A whole SVG file around plots; `alt` is what the figure shows, in words.
pub fn document(width: f64, height: f64, alt: &str, plots: &[String]) -> String {
    let body: String = plots.concat();
    let (title, surface) = (escape(alt), painted(Some(Paint::Surface), None));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"{FONT}\" role=\"img\" aria-label=\"{title}\">\n\
         <rect width=\"{width}\" height=\"{height}\" {surface}/>\n{body}</svg>\n"
    )
}

/// The space that labels right of a frame need.
pub fn label_room<'a>(labels: impl Iterator<Item = &'a str>) -> f64 {
    20.0 + labels.map(|text| text_width(text, LABEL)).fold(0.0, f64::max)
}
