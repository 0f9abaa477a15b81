//! The operator's hands: every command of the one binary.
