//! Which text is kept from training. Duplicates never straddle the split; inside a document a gap lies between the two.

mod blocks;

use std::collections::HashSet;

use isoloss_sweep::corpus::Validation;

use crate::source::Document;
use blocks::{by_block, line_start, without};

/// Fewest bytes of validation text, and the size of a block.
pub(crate) const VALIDATION_BYTES_MIN: usize = 64 << 10;
/// With fewer different documents than this, blocks are kept from training instead of documents.
pub(crate) const DOCUMENTS_MIN: usize = 20;
/// A choice of whole documents may overshoot its target by this factor before blocks (or a cut) are taken instead.
const OVERSHOOT_MAX: usize = 2;

/// Text that cannot be split as asked.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    #[error("validation = {got} is not a fraction between 0 and 1")]
    Fraction { got: f64 },
    #[error(
        "the corpus has {got} bytes of text, too few to split: validation takes {validation}, and training needs as \
         much; add text"
    )]
    TooLittleText { got: usize, validation: usize },
    #[error("all text that is not validation text lies within {gap} bytes of it: add text or use a shorter context")]
    NothingButGap { gap: usize },
    #[error("every training document is also a validation document: name other validation files")]
    NothingToTrainOn,
}

/// Both sides of a split.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) train: Vec<Document>,
    pub(crate) validation: Vec<Document>,
}

/// Splits `documents`; `named` are those of the rule's own files, `gap` the bytes left out beside a cut.
pub(crate) fn split(
    documents: Vec<Document>,
    named: Vec<Document>,
    rule: &Validation,
    gap: usize,
) -> Result<Parts, SplitError> {
    let parts = match *rule {
        Validation::Files(_) => {
            let parts = keep(documents, named);
            if parts.train.is_empty() {
                return Err(SplitError::NothingToTrainOn);
            }
            parts
        }
        Validation::Fraction(fraction) => {
            let target = target(&documents, fraction)?;
            by_document(documents, target).unwrap_or_else(|documents| by_block(documents, target, gap))
        }
        Validation::Tail(fraction) => {
            let target = target(&documents, fraction)?;
            tail(documents, target, gap)
        }
    };
    if parts.train.is_empty() {
        return Err(SplitError::NothingButGap { gap });
    }
    Ok(parts)
}

fn bytes(documents: &[Document]) -> usize {
    documents.iter().map(|document| document.text.len()).sum()
}

/// Bytes that validation should have.
fn target(documents: &[Document], fraction: f64) -> Result<usize, SplitError> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(SplitError::Fraction { got: fraction });
    }
    let got = bytes(documents);
    let validation = VALIDATION_BYTES_MIN.max((fraction * got as f64).ceil() as usize);
    if got < validation + VALIDATION_BYTES_MIN {
        return Err(SplitError::TooLittleText { got, validation });
    }
    Ok(validation)
}

/// Validation is given; what equals one of its documents is left out of training.
fn keep(documents: Vec<Document>, validation: Vec<Document>) -> Parts {
    let kept: HashSet<_> = validation.iter().map(|document| document.digest).collect();
    let train = documents.into_iter().filter(|document| !kept.contains(&document.digest)).collect();
    Parts { train, validation }
}

/// Documents in the order of their digests until `target` bytes are reached; the documents back where there are too
/// few of them or the last one is so large that the split would be out of proportion.
fn by_document(documents: Vec<Document>, target: usize) -> Result<Parts, Vec<Document>> {
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by_key(|&index| (documents[index].digest, index));
    order.dedup_by_key(|&mut index| documents[index].digest);
    if order.len() < DOCUMENTS_MIN {
        return Err(documents);
    }
    let mut kept = 0;
    let chosen: Vec<usize> = order
        .into_iter()
        .take_while(|&index| {
            let wanted = kept < target;
            kept += if wanted { documents[index].text.len() } else { 0 };
            wanted
        })
        .collect();
    if kept > OVERSHOOT_MAX * target {
        return Err(documents);
    }
    let validation = chosen.into_iter().map(|index| documents[index].clone()).collect();
    Ok(keep(documents, validation))
}

/// The end of the stream: whole documents, and the end of one where it alone would overshoot.
fn tail(mut documents: Vec<Document>, target: usize, gap: usize) -> Parts {
    let mut validation = Vec::new();
    let mut kept = 0;
    while kept < target {
        let Some(document) = documents.pop() else { break };
        if kept + document.text.len() <= OVERSHOOT_MAX * target && !documents.is_empty() {
            kept += document.text.len();
            validation.push(document);
            continue;
        }
        let start = line_start(&document.text, document.text.len() - (target - kept));
        validation.push(Document::new(document.text[start..].to_vec(), None));
        kept = target;
        // Copies of this document hold the same end.
        let head = without(&document.text, std::slice::from_ref(&(start..document.text.len())), gap);
        for copy in documents.iter_mut().filter(|copy| copy.digest == document.digest) {
            copy.text.clear();
        }
        documents.retain(|copy| !copy.text.is_empty());
        documents.extend(head);
    }
    validation.reverse();
    keep(documents, validation)
}

#[cfg(test)]
mod tests;
