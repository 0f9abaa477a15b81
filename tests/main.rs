//! Integration tests: the built binary, driven as a person would.
