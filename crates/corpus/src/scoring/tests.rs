//! Every text token once, boundaries never, with enough history, for all contexts the same bytes.

use super::*;

/// Documents of these lengths over distinct tokens; boundary 0; each token is two bytes.
fn stream(lengths: &[u64], bits: Option<f64>) -> Stream {
    let mut stream = Stream::new(u32::MAX);
    let mut token = 1;
    for &length in lengths {
        stream.tokens.extend(&[0]);
        stream.tokens.extend(&(token..token + length as u32).collect::<Vec<_>>());
        token += length as u32;
        stream.documents.push(Span { tokens: length + 1, bytes: 2 * length, true_bits: bits });
    }
    stream
}

/// Tokens that count, with the history each has in its window.
fn counted(scoring: &Scoring) -> Vec<(u32, usize)> {
    let context = scoring.context();
    let mut all = Vec::new();
    for window in 0..scoring.windows() {
        let tokens = scoring.tokens(window, 1);
        for (place, &counts) in scoring.counted(window, 1).iter().enumerate() {
            if counts {
                all.push((tokens[place + 1], place + 1));
            }
        }
        assert_eq!(tokens.len(), context + 1);
    }
    all
}

#[test]
fn each_text_token_counts_once_with_half_a_context_of_history() {
    let stream = stream(&[5, 1, 40, 3, 77], None);
    for context in [1, 2, 3, 7, 8, 16, 64, 200] {
        let scoring = Scoring::new(&stream, context, u64::MAX, |_| 2);
        let counted = counted(&scoring);
        let tokens: Vec<u32> = counted.iter().map(|&(token, _)| token).collect();
        assert!(tokens.iter().copied().eq(1..=126), "context {context}");
        for (index, &(_, history)) in counted.iter().enumerate() {
            assert!(history >= context as usize / 2 || history > index, "context {context}");
        }
        assert_eq!((scoring.tokens_scored(), scoring.bytes()), (126, 252));
        assert_eq!(scoring.true_bits(), None);
    }
}

#[test]
fn the_limit_cuts_at_a_token_or_keeps_known_surprisal_whole() {
    let lengths = [5, 1, 40];
    for context in [4, 9] {
        let cut = Scoring::new(&stream(&lengths, None), context, 33, |_| 2);
        assert_eq!((cut.tokens_scored(), cut.bytes()), (16, 32));
        let whole = Scoring::new(&stream(&lengths, Some(9.0)), context, 33, |_| 2);
        assert_eq!((whole.bytes(), whole.true_bits()), (12, Some(18.0)));
        assert_eq!(counted(&whole).len(), 6);
        let first = Scoring::new(&stream(&lengths, Some(9.0)), context, 3, |_| 2);
        assert_eq!((first.bytes(), first.true_bits()), (10, Some(9.0)));
    }
    // A document that starts exactly at the limit adds nothing.
    let exact = Scoring::new(&stream(&lengths, None), 4, 12, |_| 2);
    assert_eq!((exact.bytes(), exact.tokens(exact.windows() - 1, 1)), (12, &[3, 4, 5, 0, 6][..]));
}

#[test]
fn sums_and_units_are_those_of_the_definition() {
    let scoring = Scoring::new(&stream(&[6, 6], Some(3.0)), 4, u64::MAX, |_| 2);
    let losses = vec![2.0; scoring.windows() * 4];
    let nats = scoring.nats(0, &losses);
    assert_eq!(nats, 24.0);
    let split = scoring.nats(0, &losses[..8]) + scoring.nats(2, &losses[8..]);
    assert_eq!(split, nats);
    let score = scoring.score(nats);
    assert_eq!(score.loss_nats, 2.0);
    assert!((score.bits_per_byte - 24.0 / (LN_2 * 24.0)).abs() < 1e-12);
    assert_eq!(score.true_bits_per_byte, Some(0.25));
}
