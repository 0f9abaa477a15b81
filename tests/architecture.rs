//! The floors and walls of ARCHITECTURE.md, read from cargo's own metadata: any other edge fails.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Every crate with the workspace crates it may name. Dependencies only go down.
const EDGES: &[(&str, &[&str])] = &[
    ("isoloss", &["cli"]),
    ("isoloss-cli", &["coordinator", "corpus", "fit", "report", "sweep", "train", "wire", "worker"]),
    ("isoloss-coordinator", &["corpus", "fit", "report", "store", "sweep", "wire"]),
    ("isoloss-worker", &["corpus", "sweep", "wire"]),
    ("isoloss-report", &["fit", "sweep"]),
    ("isoloss-fit", &["sweep"]),
    ("isoloss-train", &["corpus", "gpu", "sweep"]),
    ("isoloss-store", &["sweep"]),
    ("isoloss-wire", &["sweep"]),
    ("isoloss-corpus", &["sweep"]),
    ("isoloss-gpu", &[]),
    ("isoloss-sweep", &[]),
];

/// Packages that only the named crates may depend on.
const OWNERS: &[(&str, &[&str])] = &[
    ("sled", &["isoloss-store"]),
    ("candle-core", &["isoloss-train"]),
    ("candle-nn", &["isoloss-train"]),
    ("cudarc", &["isoloss-gpu"]),
    ("axum", &["isoloss-coordinator"]),
    ("object_store", &["isoloss-worker"]),
    ("reqwest", &["isoloss-wire"]),
    ("clap", &["isoloss-cli"]),
    ("indicatif", &["isoloss-cli"]),
];

fn normal_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs where cargo test runs");
    metadata
        .packages
        .iter()
        .map(|package| {
            let names = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
            (package.name.to_string(), names.map(|d| d.name.clone()).collect())
        })
        .collect()
}

#[test]
fn workspace_edges_are_the_documented_ones() {
    let allowed: BTreeMap<_, _> = EDGES.iter().copied().collect();
    let mut wrong = Vec::new();
    for (package, dependencies) in normal_dependencies() {
        let Some(may) = allowed.get(package.as_str()) else {
            wrong.push(format!("{package} is not on any floor of ARCHITECTURE.md"));
            continue;
        };
        for dependency in dependencies {
            if let Some(name) = dependency.strip_prefix("isoloss-")
                && !may.contains(&name)
            {
                wrong.push(format!("{package} must not know {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_stay_behind_their_wall() {
    let mut wrong = Vec::new();
    for (package, dependencies) in normal_dependencies() {
        for (library, owners) in OWNERS {
            if dependencies.contains(*library) && !owners.contains(&package.as_str()) {
                wrong.push(format!("{package} names {library}, which belongs to {owners:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn architecture_document_names_every_crate() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md")).unwrap();
    for (package, _) in EDGES.iter().skip(1) {
        let name = package.trim_start_matches("isoloss-");
        assert!(text.contains(&format!("| `{name}` |")), "ARCHITECTURE.md does not describe {name}");
    }
}
