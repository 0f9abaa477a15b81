//! The split is sound: nothing that is scored is trained on, nothing but gaps is lost.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const GAP: usize = 256;
/// Random text this long does not repeat by chance.
const WITNESS: usize = 24;

/// Random lines, as many bytes as asked for.
fn novel(bytes: usize, seed: u64) -> Document {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut text: Vec<u8> = (0..bytes).map(|_| rng.random_range(b'a'..=b'z')).collect();
    text.iter_mut().skip(60).step_by(61).for_each(|byte| *byte = b'\n');
    Document::new(text, None)
}

/// Panics where a stretch of validation text is also training text; gives the bytes of both sides.
fn check(parts: &Parts) -> (usize, usize) {
    let mut trained = HashSet::new();
    for document in &parts.train {
        trained.extend(document.text.windows(WITNESS));
    }
    for document in &parts.validation {
        assert!(document.text.windows(WITNESS).all(|stretch| !trained.contains(stretch)));
        assert!(!document.text.is_empty());
    }
    (bytes(&parts.train), bytes(&parts.validation))
}

#[test]
fn a_single_novel_is_split_by_blocks_with_gaps() {
    let text = novel(1_000_000, 1);
    let parts = split(vec![text.clone()], Vec::new(), &Validation::Fraction(0.2), GAP).unwrap();
    let (train, validation) = check(&parts);
    assert!((200_000..300_000).contains(&validation));
    let lost = text.text.len() - train - validation;
    assert!(lost > 0 && lost <= parts.validation.len() * 2 * GAP);
    // Each side of every cut is at least a gap away from the other side.
    let find = |part: &[u8]| text.text.windows(WITNESS).position(|window| window == &part[..WITNESS]).unwrap();
    for kept in &parts.validation {
        let start = find(&kept.text);
        for trained in &parts.train {
            let from = find(&trained.text);
            let apart = from >= start + kept.text.len() + GAP || from + trained.text.len() + GAP <= start;
            assert!(apart, "{from} {start}");
        }
    }
    assert!(parts.validation.iter().all(|document| document.text.ends_with(b"\n") || document.text.len() < 65_536));
}

#[test]
fn twelve_novels_are_split_by_blocks_and_repeats_of_them_too() {
    let mut novels: Vec<Document> = (0..12).map(|seed| novel(150_000, seed)).collect();
    novels.push(novels[3].clone());
    let parts = split(novels, Vec::new(), &Validation::Fraction(0.3), GAP).unwrap();
    let (_, validation) = check(&parts);
    assert!((585_000..700_000).contains(&validation), "{validation}");
    let different: HashSet<_> = parts.validation.iter().map(|document| document.digest).collect();
    assert_eq!(different.len(), parts.validation.len(), "equal blocks are scored once");
}

#[test]
fn many_documents_are_split_whole_by_content() {
    let mut documents: Vec<Document> = (0..400).map(|seed| novel(3_000, seed)).collect();
    documents.extend(documents.clone().into_iter().take(200));
    let total = bytes(&documents);
    let parts = split(documents.clone(), Vec::new(), &Validation::Fraction(0.1), GAP).unwrap();
    let (_, validation) = check(&parts);
    assert!(validation >= total / 10 && validation < total / 10 + 3_000);
    assert!(parts.validation.is_sorted_by_key(|document| document.digest));
    // The choice does not depend on the order of the documents.
    documents.reverse();
    let again = split(documents, Vec::new(), &Validation::Fraction(0.1), GAP).unwrap();
    assert_eq!(parts.validation, again.validation);
    // A larger fraction keeps what a smaller one kept.
    let more = split(
        parts.train.into_iter().chain(parts.validation.clone()).collect(),
        Vec::new(),
        &Validation::Fraction(0.3),
        GAP,
    )
    .unwrap();
    assert_eq!(more.validation[..parts.validation.len()], parts.validation);
}

#[test]
fn one_giant_among_many_does_not_become_the_validation_text() {
    let mut documents: Vec<Document> = (0..30).map(|seed| novel(2_000, seed)).collect();
    documents.push(novel(2_000_000, 99));
    let parts = split(documents, Vec::new(), &Validation::Fraction(0.05), GAP).unwrap();
    let (train, validation) = check(&parts);
    assert!(validation < 200_000 && train > 1_800_000, "{train} {validation}");
}

#[test]
fn the_tail_is_the_end_of_the_stream() {
    let documents = vec![novel(300_000, 1), novel(400_000, 2), novel(300_000, 1), novel(300_000, 3)];
    let parts = split(documents.clone(), Vec::new(), &Validation::Tail(0.4), GAP).unwrap();
    let (_, validation) = check(&parts);
    assert!(validation >= 520_000, "{validation}");
    assert!(documents[3].text.ends_with(&parts.validation.last().unwrap().text[1_000..]));
    let one = split(vec![documents[1].clone()], Vec::new(), &Validation::Tail(0.25), GAP).unwrap();
    let (train, validation) = check(&one);
    assert!((99_000..=100_000).contains(&validation));
    assert!(documents[1].text.starts_with(&one.train[0].text) && train + validation + GAP <= 400_000);
}

#[test]
fn named_documents_leave_training() {
    let documents: Vec<Document> = (0..3).map(|seed| novel(1_000, seed)).collect();
    let rule = Validation::Files(Vec::new());
    let parts = split(documents.clone(), vec![documents[1].clone()], &rule, GAP).unwrap();
    check(&parts);
    assert_eq!(parts.train, [documents[0].clone(), documents[2].clone()]);
    let error = split(documents.clone(), documents, &rule, GAP).unwrap_err();
    assert!(matches!(error, SplitError::NothingToTrainOn));
}

#[test]
fn text_that_cannot_be_split_is_refused() {
    let small = split(vec![novel(100_000, 1)], Vec::new(), &Validation::Fraction(0.1), GAP);
    assert!(small.unwrap_err().to_string().contains("100000 bytes"));
    for fraction in [0.0, 1.0, -0.1, f64::NAN] {
        let wrong = split(vec![novel(500_000, 1)], Vec::new(), &Validation::Tail(fraction), GAP);
        assert!(matches!(wrong, Err(SplitError::Fraction { .. })));
    }
    let gaps = split(vec![novel(140_000, 1)], Vec::new(), &Validation::Fraction(0.1), 100_000);
    assert!(matches!(gaps, Err(SplitError::NothingButGap { gap: 100_000 })));
}

#[test]
fn cuts_do_not_split_characters() {
    let text = "größe的".repeat(40_000);
    let parts = split(vec![Document::new(text.into_bytes(), None)], Vec::new(), &Validation::Fraction(0.1), 100);
    for document in parts.as_ref().unwrap().train.iter().chain(&parts.as_ref().unwrap().validation) {
        assert!(std::str::from_utf8(&document.text).is_ok());
    }
}

#[test]
fn real_novels_are_split_soundly_one_alone_and_all_in_one_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/novels_en.txt");
    let reader = crate::source::Reader { separator: Some("<|endoftext|>"), field: "text" };
    let Ok(novels) = reader.read(std::path::Path::new(path)) else {
        eprintln!("skipped: {path} is not there");
        return;
    };
    assert!((2..DOCUMENTS_MIN).contains(&novels.len()));
    for documents in [novels[..1].to_vec(), novels] {
        let total = bytes(&documents);
        let parts = split(documents, Vec::new(), &Validation::Fraction(0.05), GAP).unwrap();
        let (train, validation) = (bytes(&parts.train), bytes(&parts.validation));
        assert!(validation >= VALIDATION_BYTES_MIN.max(total / 20) && train > total * 8 / 10);
        // Long lines are the authors' own, bar a few refrains.
        let lines = |part: &[Document]| -> Vec<Vec<u8>> {
            let lines = part.iter().flat_map(|document| document.text.split(|&byte| byte == b'\n'));
            lines.filter(|line| line.len() > 50).map(<[u8]>::to_vec).collect()
        };
        let trained: HashSet<Vec<u8>> = lines(&parts.train).into_iter().collect();
        let scored = lines(&parts.validation);
        let shared = scored.iter().filter(|line| trained.contains(*line)).count();
        assert!(shared * 500 <= scored.len(), "{shared} of {}", scored.len());
    }
}
