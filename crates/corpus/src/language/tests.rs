//! The closed form against golden values, and the sampler against the closed form.

use super::*;

/// `synthetic_language_golden.json`, printed by the language's definition: bits and bytes of a document, E, E without
/// facts and parities, then (bits, bytes) of each kind of sentence.
type Golden = ([f64; 4], [(f64, f64); 6]);

const TINY: Golden = (
    [634.0772300767997, 451.43341754327054, 1.4045863807059042, 1.4790159614464116],
    [
        (55.32569435708779, 36.09528568760333),
        (35.22922411594327, 33.28667630057803),
        (7.083050354006765, 15.0),
        (15.72341560956296, 21.0),
        (72.0, 27.0),
        (72.0, 14.0),
    ],
);
const SMALL: Golden = (
    [761.7694320627675, 475.9760011289137, 1.6004366402003727, 1.6710284345772068],
    [
        (72.16042973124162, 40.533196900219565),
        (44.09291155188989, 33.28667630057803),
        (7.50130011472006, 15.012690551589145),
        (16.349273899064876, 23.0),
        (72.0, 27.0),
        (72.0, 14.0),
    ],
);
const LARGE: Golden = (
    [877.6636928019129, 575.6092911895237, 1.5247559520593903, 1.6109255131821776],
    [
        (85.38912565822237, 48.70895126931949),
        (52.85409444378942, 41.876271676300576),
        (8.20339187942059, 18.00006907829603),
        (20.784366874988926, 29.0),
        (72.0, 27.0),
        (72.0, 14.0),
    ],
);

fn close(got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-9 * want.abs(), "got {got}, want {want}");
}

#[test]
fn entropies_are_the_golden_ones() {
    for (preset, (document, sentences)) in [(Preset::Tiny, TINY), (Preset::Small, SMALL), (Preset::Large, LARGE)] {
        let entropy = Language::new(preset, 1).entropy();
        close(entropy.document.bits, document[0]);
        close(entropy.document.bytes, document[1]);
        close(entropy.bits_per_byte, document[2]);
        close(entropy.bits_per_byte_unlearned, document[3]);
        for (got, (bits, bytes)) in entropy.sentences.iter().zip(sentences) {
            close(got.bits, bits);
            close(got.bytes, bytes);
        }
        close(entropy.order_bits, 0.5560970186012502);
    }
    let tiny = Language::new(Preset::Tiny, 1).entropy();
    close(tiny.fact_bits, 20_480.0);
    close(tiny.parity_bits, 498.00702166557824);
    let large = Language::new(Preset::Large, 1).entropy();
    close(large.fact_bits, 94_371_840.0);
    close(large.parity_bits, 9_348.385809351646);
}

/// Mean and standard error of a sample.
fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

#[test]
fn ten_megabytes_have_the_entropy_of_the_closed_form() {
    for (preset, seed) in [(Preset::Tiny, 7), (Preset::Small, 7)] {
        let language = Language::new(preset, seed);
        let entropy = language.entropy();
        let (mut residuals, mut bits, mut bytes) = (Vec::new(), 0.0, 0);
        let mut content: [[Vec<f64>; 2]; 6] = Default::default();
        let mut index = 0;
        while bytes < 10_000_000 {
            let document = language.document(index);
            index += 1;
            let parts: f64 = document.sentences.iter().map(|s| s.discourse_bits + s.content_bits).sum();
            assert!((document.bits - parts - (language.shape.topics as f64).log2()).abs() < 1e-9);
            bits += document.bits;
            bytes += document.text.len();
            residuals.push(document.bits - entropy.bits_per_byte * document.text.len() as f64);
            for sentence in &document.sentences {
                content[sentence.kind.index()][0].push(sentence.content_bits);
                content[sentence.kind.index()][1].push(sentence.range.len() as f64);
            }
        }
        let (_, residual_error) = mean(&residuals);
        let error = residual_error / (bytes as f64 / index as f64);
        let z = (bits / bytes as f64 - entropy.bits_per_byte) / error;
        assert!(z.abs() < 3.0, "{preset:?}: {z} standard errors from E");
        for (kind, (samples, want)) in content.iter().zip(entropy.sentences).enumerate() {
            for (values, want) in samples.iter().zip([want.bits, want.bytes]) {
                let (got, error) = mean(values);
                // Twelve comparisons a preset: four standard errors keep the chance of a false alarm under 0.1 %.
                assert!((got - want).abs() <= 4.0 * error + 1e-9, "kind {kind}: {got} {want} {error}");
            }
        }
    }
}

#[test]
fn facts_and_parities_are_fixed_by_the_seed_and_documents_by_their_number() {
    let language = Language::new(Preset::Tiny, 3);
    assert_eq!(language.document(11), Language::new(Preset::Tiny, 3).document(11));
    assert_ne!(language.document(11).text, language.document(12).text);
    assert_ne!(language.document(11).text, Language::new(Preset::Tiny, 4).document(11).text);
    let mut stated = std::collections::HashMap::new();
    for index in 0..500 {
        let document = language.document(index);
        for sentence in document.sentences {
            let text = String::from_utf8(document.text[sentence.range].to_vec()).unwrap();
            let words: Vec<&str> = text.trim_end()[1..].split(' ').collect();
            match sentence.kind {
                Kind::Fact => {
                    let value = stated.entry((words[1].to_owned(), words[2].to_owned())).or_insert(words[3].to_owned());
                    assert_eq!(value, words[3]);
                }
                Kind::Parity => {
                    let task = (0..64).find(|&task| language.lexicon.tasks.get(task) == words[0].as_bytes()).unwrap();
                    let (bits, answer) = words[1].split_once('=').unwrap();
                    let ones = language.parities[task].iter().filter(|&&bit| bits.as_bytes()[bit] == b'1').count();
                    assert_eq!(answer, (ones % 2).to_string());
                }
                Kind::Copy => {
                    let (string, again) = words[0].split_once('|').unwrap();
                    assert_eq!(string, again);
                }
                Kind::Unigram | Kind::Grammar | Kind::Noise => {}
            }
        }
    }
    assert!(stated.len() > 200);
}

#[test]
fn a_language_of_fewer_kinds_has_only_those_and_its_own_entropy() {
    let language = Language::with_sentences(Preset::Tiny, "UGKN", 1);
    let entropy = language.entropy().bits_per_byte;
    let (mut bits, mut bytes, mut square) = (0.0, 0.0, 0.0);
    let documents = 20_000;
    for index in 0..documents {
        let document = language.document(index);
        assert!(document.sentences.iter().all(|s| !matches!(s.kind, Kind::Copy | Kind::Parity)));
        let length = document.text.len() as f64;
        bits += document.bits;
        bytes += length;
        square += (document.bits - entropy * length).powi(2);
    }
    let error = square.sqrt() / bytes;
    assert!((bits / bytes - entropy).abs() < 3.0 * error, "{} against {entropy} +- {error}", bits / bytes);
}
