//! Surveys at the wall: build, reuse, rebuild elsewhere, open, refuse.

use isoloss_sweep::corpus::{Preset, Transform, Unit};

use super::*;
use crate::{Dataset, DatasetError};

fn spec(source: Source) -> CorpusSpec {
    CorpusSpec {
        source,
        tokenizer: TokenizerSpec::Bytes,
        validation: Validation::Fraction(0.1),
        transforms: Vec::new(),
    }
}

fn tiny(bytes: u64) -> CorpusSpec {
    spec(Source::Synthetic { preset: Preset::Tiny, sentences: None, seed: 1, bytes })
}

fn files(path: &Path) -> CorpusSpec {
    let paths = vec![path.to_str().unwrap().to_owned()];
    spec(Source::Files { paths, separator: Some("====".to_owned()), field: "text".to_owned() })
}

fn quiet(spec: &CorpusSpec, dir: &Path) -> Result<Manifest, CorpusError> {
    survey(spec, 64, dir, &mut |_| {})
}

/// Documents of the synthetic language in a file.
fn write_text(path: &Path, documents: u64) {
    let language = crate::language::Language::new(Preset::Tiny, 5);
    let texts: Vec<Vec<u8>> = (0..documents).map(|index| language.document(index).text).collect();
    std::fs::write(path, texts.join(&b"====\n"[..])).unwrap();
}

#[test]
fn a_synthetic_corpus_is_surveyed_opened_and_reused() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = quiet(&tiny(1_000_000), dir.path()).unwrap();
    let dataset = Dataset::open(&dir.path().join(manifest.digest.to_string())).unwrap();
    dataset.verify().unwrap();
    assert_eq!(dataset.manifest(), &manifest);
    assert!(manifest.train.bytes + manifest.validation.bytes >= 1_000_000);
    assert_eq!(manifest.train.tokens.get(), manifest.train.bytes + manifest.train.documents);
    let entropy = manifest.validation.true_bits.unwrap() / manifest.validation.bytes as f64;
    assert!((1.3..1.5).contains(&entropy), "{entropy}");
    assert!(manifest.baselines.xz < manifest.baselines.gzip && manifest.baselines.gzip < manifest.baselines.order0);
    let scoring = dataset.scoring(32, 32 << 10);
    assert!(scoring.bytes() <= 32 << 10 && scoring.bytes() > 30_000);
    assert!(scoring.true_bits().is_some());
    assert_eq!(scoring.bytes(), dataset.scoring(64, 32 << 10).bytes());
    let mut stages = Vec::new();
    let again = survey(&tiny(1_000_000), 64, dir.path(), &mut |progress| {
        stages.push(progress.stage);
    })
    .unwrap();
    assert_eq!((again, stages), (manifest, Vec::new()));
}

#[test]
fn identity_is_the_content_and_nothing_else() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_text(&one.path().join("a.txt"), 600);
    write_text(&two.path().join("b.txt"), 600);
    let first = quiet(&files(&one.path().join("*.txt")), one.path()).unwrap();
    let second = quiet(&files(&two.path().join("b.txt")), one.path()).unwrap();
    assert_eq!(first.digest, second.digest);
    assert_ne!(first.spec, second.spec);
    let changes: [fn(&mut CorpusSpec); 4] = [
        |spec| spec.validation = Validation::Fraction(0.3),
        |spec| spec.validation = Validation::Tail(0.3),
        |spec| spec.tokenizer = TokenizerSpec::Bpe { vocab: 300 },
        |spec| spec.transforms = vec![Transform::Shuffle { unit: Unit::Words }],
    ];
    for change in changes {
        let mut other = files(&one.path().join("a.txt"));
        change(&mut other);
        assert_ne!(quiet(&other, one.path()).unwrap().digest, first.digest);
    }
    // A changed file is read again, however soon it changed.
    write_text(&two.path().join("b.txt"), 601);
    assert_ne!(quiet(&files(&two.path().join("b.txt")), one.path()).unwrap().digest, first.digest);
}

#[test]
fn both_streams_hold_the_text_and_transforms_touch_training_alone() {
    let dir = tempfile::tempdir().unwrap();
    write_text(&dir.path().join("a.txt"), 500);
    let mut spec = files(&dir.path().join("a.txt"));
    spec.tokenizer = TokenizerSpec::Bpe { vocab: 400 };
    let plain = quiet(&spec, dir.path()).unwrap();
    spec.transforms = vec![Transform::Duplicate { fraction: 1.0, copies: 2 }];
    let doubled = quiet(&spec, dir.path()).unwrap();
    let open = |manifest: &Manifest| Dataset::open(&dir.path().join(manifest.digest.to_string())).unwrap();
    let (plain, doubled) = (open(&plain), open(&doubled));
    let texts = |dataset: &Dataset, stream| dataset.texts(stream).collect::<Vec<_>>();
    assert_eq!(texts(&plain, plain.validation()), texts(&doubled, doubled.validation()));
    let mut all = [texts(&plain, plain.train()), texts(&plain, plain.validation())].concat();
    let mut want: Vec<Vec<u8>> = Reader { separator: Some("===="), field: "" }
        .read(&dir.path().join("a.txt"))
        .unwrap()
        .into_iter()
        .map(|document| document.text)
        .collect();
    all.sort();
    want.sort();
    assert_eq!(all, want);
    assert_eq!(doubled.manifest().train.bytes, 2 * plain.manifest().train.bytes);
    assert!(plain.manifest().train.tokens.get() < plain.manifest().train.bytes * 3 / 4);
}

#[test]
fn a_worker_rebuilds_under_its_own_roots_or_installs_what_it_fetched() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(there.path().join("data")).unwrap();
    std::fs::create_dir(here.path().join("data")).unwrap();
    write_text(&here.path().join("data/a.txt"), 500);
    write_text(&there.path().join("data/a.txt"), 500);
    let manifest = quiet(&files(&here.path().join("data/a.txt")), here.path()).unwrap();
    std::fs::remove_file(here.path().join("data/a.txt")).unwrap();
    let corpora = there.path().join("corpora");
    let roots = [there.path().to_owned()];
    let folder = rebuild(&manifest, &roots, &corpora, &mut |_| {}).unwrap();
    assert_eq!(Dataset::open(&folder).unwrap().manifest().digest, manifest.digest);
    write_text(&there.path().join("data/a.txt"), 501);
    let fresh = there.path().join("fresh");
    let differs = rebuild(&manifest, &roots, &fresh, &mut |_| {}).unwrap_err();
    assert!(matches!(differs, CorpusError::Differs { .. }), "{differs}");

    let read = |name: &str| std::fs::read(here.path().join(manifest.digest.to_string()).join(name)).unwrap();
    let mut fetched: Vec<(String, Vec<u8>)> =
        manifest.artifacts.iter().map(|artifact| (artifact.name.clone(), read(&artifact.name))).collect();
    let folder = install(&manifest, &fetched, &fresh).unwrap();
    Dataset::open(&folder).unwrap().verify().unwrap();
    fetched[0].1[7] ^= 1;
    let refused = install(&manifest, &fetched, &there.path().join("other"));
    assert!(matches!(refused, Err(CorpusError::NotThese { .. })));
}

#[test]
fn a_manifest_that_was_rewritten_with_its_files_is_another_corpus() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = quiet(&tiny(300_000), dir.path()).unwrap();
    let folder = dir.path().join(manifest.digest.to_string());
    let said = || crate::prove(&folder, manifest.digest).map_err(|error| error.to_string());
    assert_eq!(said().unwrap(), manifest);
    let write = |manifest: &Manifest| {
        std::fs::write(folder.join("manifest.json"), serde_json::to_vec(manifest).unwrap()).unwrap();
    };
    for name in ["train.tokens", "validation.tokens", "train.documents", "validation.documents", "tokenizer.json"] {
        let path = folder.join(name);
        let sound = std::fs::read(&path).unwrap();
        let mut bytes = sound.clone();
        bytes[8] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(said().unwrap_err().contains("the manifest says"), "{name}");
        let mut forged = manifest.clone();
        let artifact = forged.artifacts.iter_mut().find(|artifact| artifact.name == name).unwrap();
        artifact.digest = isoloss_sweep::Digest::of(&bytes);
        write(&forged);
        let error = said().unwrap_err();
        assert!(
            ["holds corpus", "other counts", "another tokenizer"].iter().any(|word| error.contains(word)),
            "{error}"
        );
        if name == "tokenizer.json" {
            forged.tokenizer = isoloss_sweep::Digest::of(&bytes);
            write(&forged);
            assert!(said().unwrap_err().contains("holds corpus"));
        }
        std::fs::write(&path, sound).unwrap();
        write(&manifest);
    }
    let changes: [fn(&mut Manifest); 5] = [
        |forged| forged.vocab += 1,
        |forged| forged.train.bytes += 1,
        |forged| forged.validation.true_bits = forged.validation.true_bits.map(|bits| bits * 2.0),
        |forged| drop(forged.artifacts.remove(1)),
        |forged| forged.digest = isoloss_sweep::Digest::of(b"another"),
    ];
    for change in changes {
        let mut forged = manifest.clone();
        change(&mut forged);
        write(&forged);
        said().unwrap_err();
    }
    write(&manifest);
    assert!(crate::prove(&folder, isoloss_sweep::Digest::of(b"another")).is_err());
    said().unwrap();
}

#[test]
fn a_damaged_folder_is_named_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = quiet(&tiny(300_000), dir.path()).unwrap();
    let folder = dir.path().join(manifest.digest.to_string());
    let tokens = folder.join("train.tokens");
    let mut bytes = std::fs::read(&tokens).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&tokens, &bytes).unwrap();
    let dataset = Dataset::open(&folder).unwrap();
    assert!(matches!(dataset.verify(), Err(DatasetError::Content { .. })));
    std::fs::write(&tokens, &bytes[1..]).unwrap();
    let error = Dataset::open(&folder).unwrap_err().to_string();
    assert!(error.contains("train.tokens") && error.contains("survey"), "{error}");
    assert_eq!(quiet(&tiny(300_000), dir.path()).unwrap(), manifest);
    Dataset::open(&folder).unwrap().verify().unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("draft")), "{left:?}");
}

#[test]
fn text_that_is_not_there_or_too_little_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let said = |spec: &CorpusSpec| quiet(spec, dir.path()).unwrap_err().to_string();
    assert!(said(&files(&dir.path().join("none.txt"))).contains("none.txt"));
    std::fs::write(dir.path().join("empty.txt"), b"").unwrap();
    assert!(said(&files(&dir.path().join("empty.txt"))).contains("no text"));
    assert!(said(&tiny(50_000)).contains("too few to split"));
    let mut spec = tiny(300_000);
    spec.tokenizer = TokenizerSpec::File { path: "none.json".to_owned() };
    assert!(said(&spec).contains("none.json"));
}
