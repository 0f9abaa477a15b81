//! Which files a submission may name. Whoever may submit could otherwise have the coordinator read any file that its user
//! can read, and learn of it from the messages, the statistics or the corpus itself.

use std::path::{Component, Path, PathBuf};

use isoloss_sweep::corpus::{CorpusSpec, Source, TokenizerSpec, Validation};

/// Where the files of a corpus may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Anywhere: whoever asks reads the same files without the coordinator.
    Everything,
    /// Below one of these folders, links followed.
    Below(Vec<PathBuf>),
}

/// A path that leads elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outside {
    pub(super) keys: &'static [&'static str],
    /// As written in the sweep file.
    pub(super) word: String,
}

impl Reach {
    /// Where relative paths begin: the submitter's folder, where that is within reach, else the first that is.
    pub(super) fn base<'a>(&'a self, asked: &'a Path) -> &'a Path {
        match self {
            Self::Below(roots) if !self.spans(asked) => roots.first().map_or(asked, PathBuf::as_path),
            Self::Everything | Self::Below(_) => asked,
        }
    }

    /// The first path of a corpus that is out of reach. Nothing outside is so much as looked at.
    pub(super) fn outside(&self, corpus: &CorpusSpec, base: &Path) -> Option<Outside> {
        let Self::Below(roots) = self else { return None };
        let true_roots: Vec<PathBuf> = roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
        let inside = |word: &String| {
            let pattern = base.join(word);
            self.spans(&pattern) && pattern.to_str().is_some_and(|pattern| stays(pattern, &true_roots))
        };
        let find = |keys, words: &[String]| {
            words.iter().find(|word| !inside(word)).map(|word| Outside { keys, word: word.clone() })
        };
        let of_source = match &corpus.source {
            Source::Files { paths, .. } => find(&["paths", "source"], paths),
            Source::Synthetic { .. } => None,
        };
        let of_tokenizer = || match &corpus.tokenizer {
            TokenizerSpec::File { path } => find(&["tokenizer", "source"], std::slice::from_ref(path)),
            TokenizerSpec::Bytes | TokenizerSpec::Bpe { .. } => None,
        };
        let of_validation = || match &corpus.validation {
            Validation::Files(paths) => find(&["validation", "source"], paths),
            Validation::Fraction(_) | Validation::Tail(_) => None,
        };
        of_source.or_else(of_tokenizer).or_else(of_validation)
    }

    /// Whether a single file may be read. Nothing outside is so much as looked at.
    pub(super) fn reads(&self, path: &Path) -> bool {
        let Self::Below(roots) = self else { return true };
        let roots: Vec<PathBuf> = roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
        let inside = |path: PathBuf| roots.iter().any(|root| path.starts_with(root));
        self.spans(path) && path.canonicalize().map_or(true, inside)
    }

    /// By its words alone: under a root and never up again.
    fn spans(&self, path: &Path) -> bool {
        match self {
            Self::Everything => true,
            Self::Below(roots) => {
                let climbs = path.components().any(|part| part == Component::ParentDir);
                !climbs && roots.iter().any(|root| path.starts_with(root))
            }
        }
    }
}

/// Whether all files that the pattern stands for lie under a root when links are followed. A pattern without files is
/// the survey's to refuse.
fn stays(pattern: &str, roots: &[PathBuf]) -> bool {
    let files = isoloss_corpus::files(&[pattern.to_owned()]).unwrap_or_default();
    files.iter().all(|file| file.canonicalize().is_ok_and(|file| roots.iter().any(|root| file.starts_with(root))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(paths: &[&str]) -> CorpusSpec {
        CorpusSpec {
            source: Source::Files {
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
                separator: None,
                field: "text".to_owned(),
            },
            tokenizer: TokenizerSpec::Bytes,
            validation: Validation::Tail(0.1),
            transforms: Vec::new(),
        }
    }

    #[test]
    fn only_what_lies_below_a_root_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (root, secret) = (dir.path().join("texts"), dir.path().join("secret.txt"));
        std::fs::create_dir_all(root.join("deep")).unwrap();
        std::fs::write(root.join("deep/a.txt"), "a").unwrap();
        std::fs::write(&secret, "s").unwrap();
        std::os::unix::fs::symlink(&secret, root.join("link.txt")).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("up")).unwrap();
        let reach = Reach::Below(vec![root.clone()]);
        let cwd = PathBuf::from("/home/somebody");
        let base = reach.base(&cwd);
        assert_eq!(base, root);
        let outside = |word: &str| reach.outside(&corpus(&["deep/a.txt", word]), base).map(|outside| outside.word);
        for inside in ["deep/a.txt", "deep/*.txt", "deep/none.txt", root.join("deep/a.txt").to_str().unwrap()] {
            assert_eq!(outside(inside), None, "{inside}");
        }
        let absolute = secret.to_str().unwrap();
        for word in [absolute, "../secret.txt", "deep/../../secret.txt", "link.txt", "*.txt", "up/secret.txt", "/etc/*"]
        {
            assert_eq!(outside(word).as_deref(), Some(word));
        }
        let mut tokenizer = corpus(&["deep/a.txt"]);
        tokenizer.tokenizer = TokenizerSpec::File { path: absolute.to_owned() };
        assert_eq!(reach.outside(&tokenizer, base).unwrap().keys[0], "tokenizer");
        let mut validation = corpus(&["deep/a.txt"]);
        validation.validation = Validation::Files(vec!["link.txt".to_owned()]);
        assert_eq!(reach.outside(&validation, base).unwrap().keys[0], "validation");
        assert!(reach.reads(&root.join("deep/a.txt")) && reach.reads(&root.join("deep/none.txt")));
        for path in [secret.clone(), root.join("link.txt"), root.join("up/secret.txt"), root.join("../secret.txt")] {
            assert!(!reach.reads(&path), "{}", path.display());
        }
        assert_eq!(Reach::Everything.outside(&corpus(&[absolute]), &cwd), None);
        assert!(Reach::Below(Vec::new()).outside(&corpus(&["a.txt"]), &cwd).is_some());
    }
}
