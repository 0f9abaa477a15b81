//! Losses that are no numbers. JSON has no word for them, yet Python's `json.dumps` prints `NaN` and `Infinity`, and other
//! writers put `null` in their place. Whichever it is, the loss is gone: the run has diverged. It reads nothing else of a
//! line.

use serde_json::Value;

/// What is printed where JSON wants a number. The longer one stands before its own end.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// A loss that is no number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    /// Where in the line it stands.
    key: &'static str,
    /// As it was written.
    value: String,
    pub(super) step: u64,
    is_last_word: bool,
}

impl Lost {
    /// The first loss of a line that is no number. A finished outcome that leaves its steps out has made all `steps`.
    pub(super) fn find(line: &Value, steps: u64) -> Option<Self> {
        let result = &line["result"];
        let (place, keys, step) = match line["event"].as_str()? {
            "progress" => (line, &["loss_nats"][..], line["step"].as_u64()),
            "eval" => (line, &["loss_nats", "bits_per_byte"][..], line["step"].as_u64()),
            "outcome" if result["outcome"] == "finished" => {
                (result, &["score.loss_nats", "score.bits_per_byte", "train_loss_nats"][..], result["steps"].as_u64())
            }
            _ => return None,
        };
        let lost = |key: &&'static str| {
            let value = key.split('.').try_fold(place, |value, part| value.get(part))?;
            // An outcome may leave it out: the worker counts it itself.
            let is_left_out = *key == "score.bits_per_byte" && value.is_null();
            Some((*key, no_number(value).filter(|_| !is_left_out)?))
        };
        let (key, value) = keys.iter().find_map(lost)?;
        Some(Self { key, value, step: step.unwrap_or(steps), is_last_word: line["event"] == "outcome" })
    }

    /// Whether it stood in an outcome, after which the trainer ends by itself.
    pub(super) fn is_last_word(&self) -> bool {
        self.is_last_word
    }

    /// Why the run diverged.
    pub(super) fn reason(&self) -> String {
        format!("the trainer told {} {} at step {}", self.key, self.value, self.step)
    }

    /// What whoever wrote the trainer should know.
    pub(super) fn hint(&self) -> String {
        format!(
            "{}, which counts as divergence; JSON has no such number, a trainer that notices ends with the outcome \
             {{\"outcome\":\"diverged\",\"step\":{},\"reason\":\"...\"}}",
            self.reason(),
            self.step
        )
    }
}

/// Takes the points with a loss that is no number out of the curve of an outcome.
pub(super) fn clear_curve(line: &mut Value) {
    let is_lost = |key: &str, point: &Value| point.get(key).and_then(no_number).is_some();
    if let Some(Value::Array(points)) = line.pointer_mut("/result/curve") {
        points.retain(|point| !["loss_nats", "bits_per_byte", "train_loss_nats"].iter().any(|key| is_lost(key, point)));
    }
}

fn no_number(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("null".to_owned()),
        Value::String(word) => {
            let bare = word.trim_start_matches(['-', '+']).to_ascii_lowercase();
            matches!(bare.as_str(), "nan" | "inf" | "infinity").then(|| word.clone())
        }
        _ => None,
    }
}

/// The text with quotes around what is no number outside its strings: then it is JSON.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = WORDS.iter().find(|word| rest.starts_with(**word));
        let length = match word {
            Some(word) => word.len(),
            None if first == '"' => string_bytes(rest),
            None => first.len_utf8(),
        };
        let mark = if word.is_some() { "\"" } else { "" };
        quoted.extend([mark, &rest[..length], mark]);
        rest = &rest[length..];
    }
    quoted
}

/// Bytes of the string that the text begins with, both quotes included.
fn string_bytes(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Option<(String, u64)> {
        let lost = Lost::find(&serde_json::from_str(&quoted(text)).unwrap(), 99)?;
        Some((format!("{} {}", lost.key, lost.value), lost.step))
    }

    #[test]
    fn what_is_no_number_is_found_as_it_was_written() {
        let found = |text: &str, word: &str, step| assert_eq!(find(text), Some((word.to_owned(), step)), "{text}");
        found(r#"{"event":"progress","step":4,"loss_nats":NaN}"#, "loss_nats NaN", 4);
        found(r#"{"event":"progress","step":4,"loss_nats": -Infinity, "x":"\"NaN"}"#, "loss_nats -Infinity", 4);
        found(r#"{"event":"progress","step":4,"loss_nats":null}"#, "loss_nats null", 4);
        found(r#"{"event":"eval","step":5,"loss_nats":1.5,"bits_per_byte":"inf"}"#, "bits_per_byte inf", 5);
        let outcome = |result: &str| format!(r#"{{"event":"outcome","result":{{"outcome":"finished",{result}}}}}"#);
        found(&outcome(r#""score":{"loss_nats":Infinity}"#), "score.loss_nats Infinity", 99);
        found(&outcome(r#""steps":7,"train_loss_nats":NaN"#), "train_loss_nats NaN", 7);
        assert_eq!(find(&outcome(r#""score":{"loss_nats":1,"bits_per_byte":null}"#)), None, "it is left out");
        assert_eq!(find(r#"{"event":"progress","step":4,"loss_nats":2.5,"tokens_per_second":NaN}"#), None);
        assert_eq!(find(r#"{"event":"progress","step":4}"#), None);
    }

    #[test]
    fn strings_stay_as_they_are() {
        for text in [r#"{"a":"NaN \"Infinity\" é"}"#, r#"["\\", 1, "NaN"]"#, r#""not closed NaN"#, "[-1.5e3]"] {
            assert_eq!(quoted(text), text);
        }
        assert_eq!(quoted("[NaN,-Infinity,Infinity]"), r#"["NaN","-Infinity","Infinity"]"#);
    }
}
