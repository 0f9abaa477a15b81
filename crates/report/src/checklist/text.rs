//! Which text was learned, and on which the loss was measured.

use isoloss_sweep::corpus::{Source, TokenizerSpec, Transform, Validation};
use isoloss_sweep::{Digest, Manifest};

use super::{Answer, Group, Item, distinct, many, spread, told};
use crate::lab::Lab;
use crate::markdown::plain;

pub(super) fn group(lab: &Lab) -> Group {
    Group {
        title: "Which text",
        items: vec![
            Item { question: "Which corpus, by which digest?", answer: each(lab, corpus) },
            Item { question: "Which tokenizer?", answer: each(lab, tokenizer) },
            Item { question: "Which text is scored, and was it kept from training?", answer: each(lab, validation) },
            Item { question: "How much of it scores a run?", answer: scored(lab) },
            Item { question: "Was any text seen more than once?", answer: repeats(lab) },
            Item { question: "Is the entropy of the scored text known from elsewhere?", answer: entropy(lab) },
        ],
    }
}

/// One sentence a corpus.
fn each(lab: &Lab, of: fn(&Manifest) -> String) -> Answer {
    if lab.manifests.is_empty() {
        return Err("there is no manifest of the corpus beside this fit".to_owned());
    }
    Ok(lab.manifests.iter().map(of).collect::<Vec<_>>().join(" "))
}

fn code(digest: Digest) -> String {
    format!("`{digest}`")
}

fn corpus(manifest: &Manifest) -> String {
    let source = match &manifest.spec.source {
        Source::Files { paths, .. } => format!("Files {}", plain(&paths.join(", "))),
        Source::Synthetic { preset, seed, bytes, .. } => {
            format!(
                "The synthetic language, preset {}, seed {seed}, {bytes} bytes",
                format!("{preset:?}").to_lowercase()
            )
        }
    };
    let changed: Vec<&str> = manifest.spec.transforms.iter().map(change).collect();
    let changed = if changed.is_empty() { "unchanged".to_owned() } else { changed.join(", then ") };
    let (documents, train) = (manifest.train.documents, &manifest.train);
    format!(
        "{source}; to learn from: {documents} documents, {} bytes, {} tokens, {changed}; manifest {}.",
        train.bytes,
        train.tokens.get(),
        code(manifest.digest)
    )
}

fn change(transform: &Transform) -> &'static str {
    match transform {
        Transform::Duplicate { .. } => "a part of the documents repeated",
        Transform::Deduplicate => "repeated documents left out",
        Transform::Shuffle { .. } => "shuffled inside documents",
        Transform::Noise { .. } => "a part of the bytes replaced by noise",
    }
}

fn tokenizer(manifest: &Manifest) -> String {
    let kind = match &manifest.spec.tokenizer {
        TokenizerSpec::Bytes => "One token a byte".to_owned(),
        TokenizerSpec::Bpe { .. } => "Byte-pair encoding, trained on the training part".to_owned(),
        TokenizerSpec::File { path } => format!("The file {}", plain(path)),
    };
    let bytes = manifest.train.bytes as f64 / manifest.train.tokens.as_f64().max(1.0);
    format!(
        "{kind}, {} tokens, {bytes:.2} bytes a token of the training part; {}.",
        manifest.vocab,
        code(manifest.tokenizer)
    )
}

fn validation(manifest: &Manifest) -> String {
    let rule = match &manifest.spec.validation {
        Validation::Fraction(share) => {
            format!("{share} of the text, whole documents by their digest or blocks with gaps")
        }
        Validation::Tail(share) => format!("The last {share} of the text"),
        Validation::Files(paths) => format!("Files {}", plain(&paths.join(", "))),
    };
    let part = &manifest.validation;
    format!("{rule}: {} documents, {} bytes, kept from training.", part.documents, part.bytes)
}

fn scored(lab: &Lab) -> Answer {
    let runs = told(lab)?;
    let bytes =
        spread(runs.iter().filter_map(|run| run.score()).map(|score| score.bytes as f64), |bytes| bytes.to_string());
    Ok(format!("{bytes} bytes, once, after the last step."))
}

fn repeats(lab: &Lab) -> Answer {
    let runs = told(lab)?;
    let epochs = |run: &&crate::lab::LabRun| {
        let finished = run.finished()?;
        Some(finished.tokens.as_f64() / finished.tokens_unique.as_f64()).filter(|epochs| *epochs > 1.0)
    };
    let again: Vec<f64> = runs.iter().filter_map(epochs).collect();
    if again.is_empty() {
        return Ok("No run saw a token of its stream again.".to_owned());
    }
    let most = again.iter().copied().fold(1.0, f64::max);
    Ok(format!("{} of {} saw text again, up to {most:.1} times.", again.len(), many(runs.len(), "run")))
}

fn entropy(lab: &Lab) -> Answer {
    let runs = told(lab)?;
    let bits = |run: &&crate::lab::LabRun| Some(format!("{:.4}", run.score()?.true_bits_per_byte?));
    let known = distinct(runs.iter().filter_map(bits));
    if known.is_empty() {
        return Err("no generator of this text is known".to_owned());
    }
    Ok(format!("Yes, by its generator: {} bits per byte.", known.join(" and ")))
}
