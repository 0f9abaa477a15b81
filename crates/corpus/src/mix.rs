//! A 64-bit mixing function. Not for secrets: it spreads keys and counters evenly, nothing more.

/// The output function of SplitMix64 (Steele, Lea & Flood 2014), a bijection of 64-bit words.
pub(crate) fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One word that depends on all of `words` and on their order.
pub(crate) fn mix_all(words: &[u64]) -> u64 {
    words.iter().fold(0, |state, &word| mix(state ^ mix(word)))
}
