//! The batch's positions by token, so that the embedding's gradient is summed in a fixed order without atomics.

use super::room::SEGMENT;

/// Ends the list of segments.
const NONE: u32 = u32::MAX;

/// Positions sorted by (token, position), cut into segments of at most [`SEGMENT`].
#[derive(Debug, Default, PartialEq)]
pub(super) struct Order {
    pub(super) order: Vec<u32>,
    /// (token, begin, end) of each segment, filled up with `NONE` to the most there can be.
    pub(super) segments: Vec<u32>,
    /// First segment of each token, and the end.
    pub(super) first: Vec<u32>,
}

impl Order {
    /// Of these tokens, all below `vocab`; `most` segments are made room for.
    pub(super) fn of(tokens: &[u32], vocab: usize, most: usize) -> Self {
        let mut next = vec![0u32; vocab + 1];
        for &token in tokens {
            next[token as usize + 1] += 1;
        }
        let (mut segments, mut first) = (Vec::with_capacity(3 * most), Vec::with_capacity(vocab + 1));
        for token in 0..vocab {
            first.push(segments.len() as u32 / 3);
            next[token + 1] += next[token];
            let (begin, end) = (next[token], next[token + 1]);
            for begin in (begin..end).step_by(SEGMENT) {
                segments.extend([token as u32, begin, end.min(begin + SEGMENT as u32)]);
            }
        }
        first.push(segments.len() as u32 / 3);
        segments.resize(3 * most, NONE);
        let mut order = vec![0; tokens.len()];
        for (position, &token) in tokens.iter().enumerate() {
            let slot = &mut next[token as usize];
            order[*slot as usize] = position as u32;
            *slot += 1;
        }
        Self { order, segments, first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_by_token_and_in_order_and_long_lists_are_cut() {
        let mut tokens = vec![2u32; 150];
        tokens[7] = 0;
        tokens[9] = 3;
        let order = Order::of(&tokens, 4, 8);
        assert_eq!(order.first, [0, 1, 1, 4, 5]);
        assert_eq!(order.segments[..15], [0, 0, 1, 2, 1, 65, 2, 65, 129, 2, 129, 149, 3, 149, 150]);
        assert!(order.segments[15..].iter().all(|&word| word == NONE) && order.segments.len() == 24);
        assert_eq!((order.order[0], order.order[1], order.order[149]), (7, 0, 9));
        assert!(order.order[1..149].is_sorted());
    }

    #[test]
    fn there_are_never_more_segments_than_room_was_made_for() {
        // Worst: every token of the vocabulary once, and the rest all alike.
        let (vocab, rows) = (50usize, 50 + 640usize);
        let tokens: Vec<u32> = (0..rows as u32).map(|i| if i < 50 { i } else { 3 }).collect();
        let most = vocab + rows.div_ceil(SEGMENT);
        let order = Order::of(&tokens, vocab, most);
        assert_eq!(order.segments.len(), 3 * most);
        assert!(*order.first.last().unwrap() as usize <= most);
    }
}
