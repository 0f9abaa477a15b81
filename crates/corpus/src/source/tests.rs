//! What files hold, and what is said of files that hold something else.

use std::io::Write;
use std::path::Path;

use super::*;

fn write(dir: &Path, name: &str, bytes: &[u8]) -> String {
    std::fs::write(dir.join(name), bytes).unwrap();
    dir.join(name).to_str().unwrap().to_owned()
}

fn texts(reader: Reader<'_>, path: &str) -> Vec<Vec<u8>> {
    reader.read(Path::new(path)).unwrap().into_iter().map(|document| document.text).collect()
}

const PLAIN: Reader<'static> = Reader { separator: None, field: "text" };
const SEPARATED: Reader<'static> = Reader { separator: Some("<|endoftext|>"), field: "text" };

#[test]
fn compressed_and_plain_files_hold_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let content = b"one\n<|endoftext|>\ntwo \xff\xfe\r\n<|endoftext|>\r\n<|endoftext|>\nthree";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(content).unwrap();
    let paths = [
        write(dir.path(), "a.txt", content),
        write(dir.path(), "a.txt.gz", &gzip.finish().unwrap()),
        write(dir.path(), "a.zst", &zstd::bulk::compress(content, 1).unwrap()),
    ];
    for path in &paths {
        assert_eq!(texts(PLAIN, path), [content.to_vec()]);
        let want = [b"one\n".to_vec(), b"two \xff\xfe\r\n".to_vec(), b"three".to_vec()];
        assert_eq!(texts(SEPARATED, path), want);
    }
    let pattern = dir.path().join("*").to_str().unwrap().to_owned();
    let all = resolve(&[pattern, paths[0].clone()]).unwrap();
    assert_eq!(all, paths.map(PathBuf::from));
}

#[test]
fn json_lines_give_a_document_each_and_wrong_ones_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "a.jsonl", b"{\"text\": \"one\\n\"}\n\n{\"id\": 3, \"text\": \"zw\xc3\xb6lf\"}\n");
    assert_eq!(texts(PLAIN, &path), [b"one\n".to_vec(), "zwölf".as_bytes().to_vec()]);
    let cases: [(&[u8], &str); 4] = [
        (b"{\"text\": \"a\"}\n{\"text\": 1}\n", "line 2: \"text\" is not a string but a number"),
        (b"\n{\"body\": \"a\"}\n", "line 2: no key \"text\""),
        (b"[1]\n", "line 1: not an object but an array"),
        (b"{\"text\": \"a\"}\n{\"text\"\n", "line 2: not JSON"),
    ];
    for (content, want) in cases {
        let path = write(dir.path(), "b.jsonl", content);
        let error = PLAIN.read(Path::new(&path)).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains("b.jsonl"), "{error}");
    }
}

#[test]
fn paths_that_lead_nowhere_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    write(dir.path(), "a.parquet", b"PAR1");
    let said = |pattern: String| resolve(&[pattern]).unwrap_err().to_string();
    assert!(said(at("none.txt")).contains("no file"));
    assert!(said(at("*.none")).contains("matches no file"));
    assert!(said(at("[")).contains("is not a glob"));
    assert!(said(at("")).contains("is a folder"));
    assert!(said(at("*.parquet")).contains("jsonl"));
    assert!(matches!(resolve(&[]), Err(SourceError::NoPaths)));
    let torn = write(dir.path(), "torn.gz", b"not gzip");
    assert!(PLAIN.read(Path::new(&torn)).unwrap_err().to_string().contains("torn.gz"));
}

#[test]
fn a_path_is_found_under_other_roots_by_its_longest_end() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("b/novels")).unwrap();
    write(&dir.path().join("b/novels"), "x.txt", b"x");
    write(dir.path(), "x.txt", b"other");
    let roots = [dir.path().join("empty"), dir.path().join("b"), dir.path().to_owned()];
    let moved = relocate("/data/novels/*.txt", &roots);
    assert_eq!(moved, dir.path().join("b/novels/*.txt").to_str().unwrap());
    assert_eq!(relocate("/data/none/y.txt", &roots), "/data/none/y.txt");
}
