//! Colours: one palette for categories, one ramp for quantities, both readable with every common colour blindness.

/// Figures use the reader's own sans-serif.
pub const FONT: &str = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif";
/// Steps of the ramp.
pub const RAMP_LEVELS: usize = 12;

/// What a thing is painted as; the colour follows from the page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Paint {
    Ink,
    /// Axis text and secondary labels.
    Muted,
    Grid,
    /// The page itself, to cut labels free of lines.
    Surface,
    /// The true entropy.
    Truth,
    /// What the law says where no run has been.
    Law,
    /// A category, by position.
    Arm(usize),
    /// A quantity between 0 and 1.
    Ramp(f64),
}

/// Categories: Okabe and Ito's colours (jfly.uni-koeln.de/color, 2008), light and dark page.
const ARMS: [(&str, &str); 6] = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff9e4a"),
    ("#008a66", "#2fc79a"),
    ("#a8437f", "#e49ac4"),
    ("#8a6d00", "#e6c229"),
    ("#444b54", "#b8c0ca"),
];

/// Lightness rises or falls evenly along these anchors, so that order survives grey printing.
const RAMP_LIGHT: [[f64; 3]; 5] =
    [[217.0, 142.0, 36.0], [205.0, 84.0, 58.0], [160.0, 44.0, 94.0], [96.0, 28.0, 110.0], [38.0, 18.0, 84.0]];
const RAMP_DARK: [[f64; 3]; 5] =
    [[122.0, 92.0, 222.0], [186.0, 92.0, 200.0], [236.0, 108.0, 130.0], [250.0, 164.0, 88.0], [250.0, 226.0, 140.0]];

fn mix(anchors: &[[f64; 3]; 5], level: usize) -> String {
    let at = level as f64 / (RAMP_LEVELS - 1) as f64 * 4.0;
    let low = (at.floor() as usize).min(3);
    let part = at - low as f64;
    let channel = |c: usize| (anchors[low][c] * (1.0 - part) + anchors[low + 1][c] * part).round() as u8;
    format!("#{:02x}{:02x}{:02x}", channel(0), channel(1), channel(2))
}

fn level(share: f64) -> usize {
    (share.clamp(0.0, 1.0) * (RAMP_LEVELS - 1) as f64).round() as usize
}

impl Paint {
    /// The name of its CSS variable.
    pub fn name(self) -> String {
        match self {
            Self::Ink => "ink".to_owned(),
            Self::Muted => "muted".to_owned(),
            Self::Grid => "grid".to_owned(),
            Self::Surface => "surface".to_owned(),
            Self::Truth => "truth".to_owned(),
            Self::Law => "law".to_owned(),
            Self::Arm(index) => format!("arm{}", index % ARMS.len()),
            Self::Ramp(share) => format!("r{}", level(share)),
        }
    }

    fn pair(self) -> (String, String) {
        let fixed = |light: &str, dark: &str| (light.to_owned(), dark.to_owned());
        match self {
            Self::Ink => fixed("#16191d", "#e8eaed"),
            Self::Muted => fixed("#5d6670", "#9aa4af"),
            Self::Grid => fixed("#e6e8eb", "#2b3138"),
            Self::Surface => fixed("#ffffff", "#14171b"),
            Self::Truth => fixed("#007a52", "#3ddc97"),
            Self::Law => fixed("#3b4450", "#c3cad2"),
            Self::Arm(index) => {
                let (light, dark) = ARMS[index % ARMS.len()];
                fixed(light, dark)
            }
            Self::Ramp(share) => (mix(&RAMP_LIGHT, level(share)), mix(&RAMP_DARK, level(share))),
        }
    }

    fn all() -> Vec<Self> {
        let mut all = vec![Self::Ink, Self::Muted, Self::Grid, Self::Surface, Self::Truth, Self::Law];
        all.extend((0..ARMS.len()).map(Self::Arm));
        all.extend((0..RAMP_LEVELS).map(|step| Self::Ramp(step as f64 / (RAMP_LEVELS - 1) as f64)));
        all
    }
}

/// Attributes and classes of an element; what has no paint is not painted.
pub(crate) fn painted(fill: Option<Paint>, stroke: Option<Paint>) -> String {
    let colour = |paint: Option<Paint>| paint.map_or_else(|| "none".to_owned(), |p| p.pair().0);
    let class = |mark: char, paint: Option<Paint>| paint.map(|p| format!("{mark}-{}", p.name()));
    let classes: Vec<String> = [class('f', fill), class('s', stroke)].into_iter().flatten().collect();
    let stroked = stroke.map(|_| format!(" stroke=\"{}\"", colour(stroke))).unwrap_or_default();
    format!("fill=\"{}\"{stroked} class=\"{}\"", colour(fill), classes.join(" "))
}

/// The palette as a style sheet: variables for light and dark, and the classes that use them.
pub fn css_variables() -> String {
    let list = |dark: bool| -> String {
        let value = |p: &Paint| if dark { p.pair().1 } else { p.pair().0 };
        Paint::all().iter().map(|p| format!("--{}:{};", p.name(), value(p))).collect()
    };
    let rule = |p: &Paint| {
        let name = p.name();
        format!(".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}")
    };
    let classes: String = Paint::all().iter().map(rule).collect();
    let (light, dark) = (list(false), list(true));
    format!(
        ":root{{color-scheme:light;{light}}}\n\
         @media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n\
         :root[data-theme=dark]{{color-scheme:dark;{dark}}}\n\
         @media print{{:root:root:root{{color-scheme:light;{light}}}}}\n{classes}\n"
    )
}
