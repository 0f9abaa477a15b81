//! Transforms keep what they say they keep, and are the same each time.

use isoloss_sweep::corpus::Preset;

use super::*;
use crate::source::synthetic;

fn texts(documents: &[Document]) -> Vec<&[u8]> {
    documents.iter().map(|document| document.text.as_slice()).collect()
}

fn plain(texts: &[&str]) -> Vec<Document> {
    texts.iter().map(|text| Document::new(text.as_bytes().to_vec(), None)).collect()
}

#[test]
fn duplicates_are_exact_strewn_and_removed_again() {
    let documents = synthetic(Preset::Tiny, None, 1, 200_000);
    let count = documents.len();
    let transforms = [Transform::Duplicate { fraction: 0.25, copies: 4 }];
    let more = apply(documents.clone(), &transforms, true).unwrap();
    assert_eq!(more, apply(documents.clone(), &transforms, true).unwrap());
    let chosen = (0.25 * count as f64).round() as usize;
    assert_eq!(more.len(), count + 3 * chosen);
    let copies = |document: &Document| more.iter().filter(|other| other.digest == document.digest).count();
    let four = documents.iter().filter(|document| copies(document) == 4).count();
    let once = documents.iter().filter(|document| copies(document) == 1).count();
    assert_eq!((four, once), (chosen, count - chosen));
    let neighbours = more.windows(2).filter(|pair| pair[0].digest == pair[1].digest).count();
    assert!(neighbours < more.len() / 50, "{neighbours}");
    // Copies may stand before their original, so only the set of documents comes back.
    let mut back = apply(more, &[Transform::Deduplicate], true).unwrap();
    let mut want = documents;
    back.sort_by_key(|document| document.digest);
    want.sort_by_key(|document| document.digest);
    assert_eq!(back, want);
}

#[test]
fn shuffled_lines_keep_header_and_sentences() {
    let documents = synthetic(Preset::Tiny, None, 1, 20_000);
    let shuffled = apply(documents.clone(), &[Transform::Shuffle { unit: Unit::Sentences }], true).unwrap();
    assert_ne!(texts(&documents), texts(&shuffled));
    for (before, after) in documents.iter().zip(&shuffled) {
        assert_eq!(before.text[..3], after.text[..3]);
        assert!(after.text.ends_with(b"\n\n"));
        assert_eq!(after.true_bits, None);
        let sorted = |text: &[u8]| {
            let mut lines: Vec<Vec<u8>> = text.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&before.text), sorted(&after.text));
    }
}

#[test]
fn natural_sentences_and_words_move_and_spaces_stay() {
    let text = "One. Two?  Three!\n\nA title\n\n\"Mr. Four,\" he said. 五。六！ End";
    let found: Vec<&str> = sentences(text.as_bytes()).into_iter().map(|range| &text[range]).collect();
    assert_eq!(found, ["One.", "Two?", "Three!", "A title", "\"Mr.", "Four,\" he said.", "五。", "六！", "End"]);
    let shuffled = apply(plain(&["a bb  ccc\ndddd e f g h"]), &[Transform::Shuffle { unit: Unit::Words }], false);
    let shuffled = String::from_utf8(shuffled.unwrap()[0].text.clone()).unwrap();
    let mut words: Vec<&str> = shuffled.split_whitespace().collect();
    words.sort_unstable();
    assert_eq!(words, ["a", "bb", "ccc", "dddd", "e", "f", "g", "h"]);
    let separators: String = shuffled.chars().filter(|c| c.is_whitespace()).collect();
    assert_eq!(separators, "   \n    ");
}

#[test]
fn noise_replaces_the_asked_share_and_nothing_at_zero() {
    let documents = plain(&[&"\u{1}".repeat(100_000)]);
    let noisy = apply(documents.clone(), &[Transform::Noise { fraction: 0.05 }], false).unwrap();
    let changed = noisy[0].text.iter().filter(|&&byte| byte != 1).count();
    // Five standard deviations of a binomial: 345.
    assert!(changed.abs_diff(5_000) < 345, "{changed}");
    assert!(noisy[0].text.iter().all(|&byte| byte == 1 || (b' '..=b'~').contains(&byte)));
    let same = apply(documents.clone(), &[Transform::Noise { fraction: 0.0 }], false).unwrap();
    assert_eq!(texts(&same), texts(&documents));
}

#[test]
fn wrong_numbers_are_refused() {
    let refused = |transform| apply(Vec::new(), &[transform], false).unwrap_err().to_string();
    assert!(refused(Transform::Noise { fraction: 1.5 }).contains("1.5"));
    assert!(refused(Transform::Duplicate { fraction: -0.1, copies: 2 }).contains("-0.1"));
    assert!(refused(Transform::Duplicate { fraction: 0.1, copies: 0 }).contains("copies = 0"));
}
