//! Exactness for any bytes, determinism, and refusals.

use rand::{Rng, SeedableRng};

use super::*;

const TEXT: &[u8] = "the cat sat on the mat; the rat ate the oat. Die Größe zählt, 的确如此.\n".as_bytes();

fn trained() -> Tokenizer {
    let texts = vec![TEXT; 50];
    Tokenizer::train(300, texts.into_iter()).unwrap()
}

#[test]
fn any_bytes_come_back() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut cases: Vec<Vec<u8>> = (0..50).map(|len| (0..len * 7).map(|_| rng.random()).collect()).collect();
    cases.push(TEXT.repeat(3000));
    cases.push(b"before <|endoftext|> after \0 nul".to_vec());
    cases.push([TEXT, &[0xff, 0xe7, 0x9a], TEXT].concat());
    for tokenizer in [Tokenizer::bytes(), trained()] {
        for case in &cases {
            let mut tokens = Vec::new();
            tokenizer.encode(case, &mut tokens).unwrap();
            assert_eq!(&tokenizer.decode(&tokens), case);
            let spelled: usize = tokens.iter().map(|&token| tokenizer.token_bytes(token).len()).sum();
            assert_eq!(spelled, case.len());
            assert!(tokens.iter().all(|&token| token < tokenizer.vocab()));
            if tokenizer.vocab() > 256 {
                assert!(!tokens.contains(&tokenizer.boundary()), "text is never a boundary");
            }
        }
    }
}

#[test]
fn training_is_deterministic_and_its_json_loads() {
    let tokenizer = trained();
    assert_eq!(tokenizer.digest(), trained().digest());
    assert_eq!(tokenizer.vocab(), 300);
    let loaded = Tokenizer::load(&TokenizerSpec::Bpe { vocab: 300 }, tokenizer.json()).unwrap();
    let mut tokens = [Vec::new(), Vec::new()];
    tokenizer.encode(TEXT, &mut tokens[0]).unwrap();
    loaded.encode(TEXT, &mut tokens[1]).unwrap();
    assert_eq!(tokens[0], tokens[1]);
    assert!(tokens[0].len() < TEXT.len() / 2);
}

#[test]
fn unfit_tokenizers_are_refused() {
    let load = |json: &str| {
        let spec = TokenizerSpec::File { path: String::new() };
        Tokenizer::load(&spec, json.as_bytes()).unwrap_err().to_string()
    };
    assert!(load("{}").contains("not a tokenizer.json"));
    let json = String::from_utf8(Tokenizer::bytes().json().to_vec()).unwrap();
    assert!(load(&json).contains("boundary"));
    assert!(load(&json.replacen(r#""a":97,"#, "", 1)).contains("0x61"));
    assert!(Tokenizer::train(256, std::iter::empty()).unwrap_err().to_string().contains("257"));
}

#[test]
fn a_tokenizer_that_changes_the_text_is_caught() {
    let json = String::from_utf8(trained().json().to_vec()).unwrap();
    let changed = json.replace(r#""normalizer":null"#, r#""normalizer":{"type":"Lowercase"}"#);
    assert_ne!(json, changed);
    let tokenizer = Tokenizer::load(&TokenizerSpec::File { path: String::new() }, changed.as_bytes()).unwrap();
    let error = tokenizer.encode(b"then He ate", &mut Vec::new()).unwrap_err();
    assert!(matches!(error, TokenizerError::Lossy { .. }), "{error}");
}
