//! Bytes to tokens: files, tokenizers, the synthetic language, splits.
