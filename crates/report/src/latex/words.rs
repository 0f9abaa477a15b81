//! Texts, names, formulas and numbers as LaTeX. It knows no tables.

/// Significant digits after the first one.
const DECIMALS: i32 = 4;

/// Letters that laws call by their names.
const GREEK: [&str; 12] =
    ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "kappa", "lambda", "mu", "sigma", "omega"];
/// A product with bounds.
const PRODUCT: &str = "prod";
/// Functions that LaTeX knows by name.
const FUNCTIONS: [&str; 3] = ["exp", "ln", "log"];

/// Text that stays text: whatever LaTeX reads as a command is escaped, on one line.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '|' => out.push_str("\\textbar{}"),
            '`' => out.push_str("\\textasciigrave{}"),
            '\u{d7}' => out.push_str("$\\times$"),
            // Two of them would become a dash.
            '-' if out.ends_with('-') => out.push_str("{}-"),
            '{' | '}' | '%' | '&' | '#' | '_' | '$' => out.extend(['\\', letter]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Text behind a `%`: a line break would end the comment.
pub(crate) fn comment(text: &str) -> String {
    let plain = |c: char| if c.is_control() || c == '\u{2028}' || c == '\u{2029}' { ' ' } else { c };
    format!("% {}\n", text.chars().map(plain).collect::<String>())
}

/// A number in math: five significant digits, as `m \times 10^{e}` where it is large or small.
pub(crate) fn number(value: f64) -> String {
    if value.is_nan() {
        return "--".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "$\\infty$" } else { "$-\\infty$" }.to_owned();
    }
    // Rounding comes first: 9.999999 becomes 10.000.
    let text = format!("{value:.*e}", DECIMALS as usize);
    let (lead, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    match exponent {
        _ if value == 0.0 => "$0$".to_owned(),
        -3..=4 => format!("${value:.*}$", (DECIMALS - exponent).max(0) as usize),
        _ => format!("${}\\times 10^{{{exponent}}}$", shorter(lead)),
    }
}

/// Without zeros behind the point: `1.0000` is a number of one digit.
fn shorter(lead: &str) -> &str {
    if lead.contains('.') { lead.trim_end_matches('0').trim_end_matches('.') } else { lead }
}

/// `[low, high]`, or a dash where there is no interval.
pub(crate) fn interval(ends: Option<[f64; 2]>) -> String {
    ends.map_or_else(|| "--".to_owned(), |[low, high]| format!("[{}, {}]", number(low), number(high)))
}

/// A share in per cent.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.2}\\,\\%", 100.0 * share) } else { "--".to_owned() }
}

/// The name of a parameter, to stand inside math: `\alpha`, `c_{1}`.
pub(crate) fn symbol(name: &str) -> String {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let index = &name[stem.len()..];
    let stem = match stem {
        greek if GREEK.contains(&greek) => format!("\\{greek}"),
        // One of several: `di` is the d of factor i.
        two if two.len() == 2 && two.ends_with('i') => format!("{}_i", escape(&two[..1])),
        // The effective number of experts.
        "Eh" => "\\hat{E}".to_owned(),
        letter if letter.chars().count() == 1 => escape(letter),
        word => format!("\\mathrm{{{}}}", escape(word)),
    };
    if index.is_empty() { stem } else { format!("{stem}_{{{index}}}") }
}

/// A law's formula, as records write it, inside math: names become symbols and powers are raised whole.
pub(crate) fn formula(text: &str) -> String {
    pieces(&text.chars().collect::<Vec<char>>())
}

fn pieces(letters: &[char]) -> String {
    let (mut out, mut at) = (String::new(), 0);
    while at < letters.len() {
        let (piece, next) = piece(letters, at);
        out.push_str(&piece);
        at = next;
    }
    out
}

/// One symbol, power or sign.
fn piece(letters: &[char], at: usize) -> (String, usize) {
    match letters[at] {
        '^' => power(letters, at + 1),
        c if c.is_alphabetic() => {
            let length = letters[at..].iter().take_while(|c| c.is_alphanumeric()).count();
            let word: String = letters[at..at + length].iter().collect();
            if word == PRODUCT { product(letters, at + length) } else { (name(&word), at + length) }
        }
        // A space in math is none; it keeps a symbol apart from the letter behind it.
        c @ (' ' | '(' | ')' | '[' | ']' | '+' | '-' | '/' | '=' | ',' | '.' | '\'') => (c.to_string(), at + 1),
        c if c.is_ascii_digit() => (c.to_string(), at + 1),
        c => (format!("\\text{{{}}}", escape(&c.to_string())), at + 1),
    }
}

fn name(word: &str) -> String {
    let stem = word.trim_end_matches(|c: char| c.is_ascii_digit());
    if FUNCTIONS.contains(&stem) {
        let base = &word[stem.len()..];
        return if base.is_empty() { format!("\\{stem}") } else { format!("\\{stem}_{{{base}}}") };
    }
    symbol(word)
}

/// The bounds behind `prod`, as in `prod_i=1..3`.
fn product(letters: &[char], at: usize) -> (String, usize) {
    let length = letters[at..].iter().take_while(|c| !c.is_whitespace()).count();
    let bounds: String = letters[at..at + length].iter().collect();
    match bounds.strip_prefix('_').and_then(|bounds| bounds.split_once("..")) {
        Some((from, to)) => (format!("\\prod_{{{}}}^{{{}}}", formula(from), formula(to)), at + length),
        None => ("\\prod".to_owned(), at),
    }
}

/// What stands behind a `^`: a sign and one symbol, or all between brackets.
fn power(letters: &[char], at: usize) -> (String, usize) {
    let signed = letters.get(at) == Some(&'-');
    let start = at + usize::from(signed);
    let (inside, next) = match letters.get(start) {
        Some('(') => bracketed(letters, start),
        Some(c) if c.is_ascii_digit() => {
            let length = letters[start..].iter().take_while(|c| c.is_ascii_digit()).count();
            (letters[start..start + length].iter().collect(), start + length)
        }
        Some(_) => piece(letters, start),
        None => (String::new(), start),
    };
    (format!("^{{{}{inside}}}", if signed { "-" } else { "" }), next)
}

/// From the bracket at `at` to the one that closes it, without the two.
fn bracketed(letters: &[char], at: usize) -> (String, usize) {
    let mut depth = 0_usize;
    let closes = letters[at..].iter().position(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let end = closes.map_or(letters.len(), |length| at + length);
    (pieces(&letters[at + 1..end]), (end + 1).min(letters.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_latex_reads_as_a_command_is_text() {
        assert_eq!(escape("moe_8 50% R&D #1 $x {y}"), "moe\\_8 50\\% R\\&D \\#1 \\$x \\{y\\}");
        assert_eq!(
            escape("a\\b~c^d<e>|f`"),
            "a\\textbackslash{}b\\textasciitilde{}c\\textasciicircum{}d\\textless{}e\\textgreater{}\\textbar{}f\\textasciigrave{}"
        );
        assert_eq!(escape("--seed\n8\u{d7}"), "-{}-seed 8$\\times$");
        assert_eq!(comment("a\n\\end{document}\r"), "% a \\end{document} \n");
    }

    #[test]
    fn numbers_keep_five_digits_and_large_ones_are_powers_of_ten() {
        for (value, text) in [
            (1.949_96, "$1.9500$"),
            (0.381_234_5, "$0.38123$"),
            (9.999_999, "$10.000$"),
            (442.164, "$442.16$"),
            (99_999.7, "$1\\times 10^{5}$"),
            (-12_345.678, "$-12346$"),
            (1e14, "$1\\times 10^{14}$"),
            (1.234_56e21, "$1.2346\\times 10^{21}$"),
            (2.5e-7, "$2.5\\times 10^{-7}$"),
            (0.0, "$0$"),
            (f64::INFINITY, "$\\infty$"),
            (f64::NAN, "--"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
        assert_eq!(interval(Some([0.5, f64::INFINITY])), "[$0.50000$, $\\infty$]");
        assert_eq!((interval(None), percent(0.004_12)), ("--".to_owned(), "0.41\\,\\%".to_owned()));
    }

    #[test]
    fn formulas_become_symbols_with_whole_powers() {
        for (text, tex) in [
            ("E + A N^-alpha + B D^-beta", "E + A N^{-\\alpha} + B D^{-\\beta}"),
            ("[(A N^-alpha)^(1/q) + (B D^-beta)^(1/q)]^q", "[(A N^{-\\alpha})^{1/q} + (B D^{-\\beta})^{1/q}]^{q}"),
            ("exp(B N^b + Q) D^(-exp(A N^a + E))", "\\exp(B N^{b} + Q) D^{-\\exp(A N^{a} + E)}"),
            ("10^(a log10 N + d1)", "10^{a \\log_{10} N + d_{1}}"),
            ("a Eh^delta N^(alpha + gamma ln Eh)", "a \\hat{E}^{\\delta} N^{\\alpha + \\gamma \\ln \\hat{E}}"),
            ("A N'^-alpha, x_y", "A N'^{-\\alpha}, x\\text{\\_}y"),
            ("prod_i=1..3 (C/di)^(-ci fi)", "\\prod_{i=1}^{3} (C/d_i)^{-c_i f_i}"),
            ("a^", "a^{}"),
            ("a^(b", "a^{b}"),
        ] {
            assert_eq!(formula(text), tex);
        }
        assert_eq!(
            (symbol("kappa"), symbol("f12"), symbol("E_max")),
            ("\\kappa".into(), "f_{12}".into(), "\\mathrm{E\\_max}".into())
        );
    }

    #[test]
    fn formulas_of_all_laws_close_their_braces() {
        let laws = isoloss_fit::LAWS.iter().map(|law| law.formula);
        for text in laws.chain(isoloss_fit::forms().map(|form| form.formula)) {
            let tex = formula(text);
            assert_eq!(tex.matches('{').count(), tex.matches('}').count(), "{tex}");
            assert!(!tex.contains('$') && !tex.contains("^(") && !tex.contains("\\text{"), "{text} gives {tex}");
        }
    }
}
