//! Kernel sources with the constants they are compiled for.

/// The prelude comes first in every program.
const PRELUDE: &str = include_str!("prelude.cuh");

/// Some source files and definitions: what is compiled as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub files: Vec<(&'static str, &'static str)>,
    /// As `NAME` or `NAME=value`.
    pub defines: Vec<String>,
}

impl Program {
    /// One text after `before`; compilers name the file and line of an error.
    pub(crate) fn text(&self, before: &str) -> String {
        let files = std::iter::once(&("prelude.cuh", PRELUDE)).chain(&self.files);
        let parts = files.map(|(name, text)| format!("#line 1 \"{name}\"\n{text}\n"));
        std::iter::once(format!("{before}\n")).chain(parts).collect()
    }

    /// Digest of all that the result of a compilation hangs on; `how` names compiler and target.
    pub(crate) fn key(&self, before: &str, how: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [self.text(before), self.defines.join("\n"), how.to_owned()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_hangs_on_sources_definitions_and_target() {
        let program = |text, define: &str| Program { files: vec![("a.cu", text)], defines: vec![define.to_owned()] };
        let key = |text, define, how| program(text, define).key("", how);
        let one = key("x", "HEAD=64", "sm_90");
        assert_eq!(one, key("x", "HEAD=64", "sm_90"));
        for other in [key("y", "HEAD=64", "sm_90"), key("x", "HEAD=32", "sm_90"), key("x", "HEAD=64", "sm_80")] {
            assert_ne!(one, other);
        }
        assert!(program("x", "A").text("first").starts_with("first\n#line 1 \"prelude.cuh\"\n"));
    }
}
