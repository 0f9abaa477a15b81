//! A sweep of many small runs.

use std::fmt::Write;

/// Ten configurations under each of `seeds` seeds, of which no other sweep has any.
pub(crate) fn toml(number: usize, seeds: usize) -> String {
    let mut list = String::new();
    for seed in number * seeds..(number + 1) * seeds {
        write!(list, "{},", seed + 1).expect("a string takes all");
    }
    format!(
        r#"schema = 1
name = "scale-{number}"

[corpus]
source = "synthetic"
preset = "tiny"
bytes = "600kB"

[model]
context = 64

[axes]
params = ["4k", "6k", "9k", "13k", "20k"]
tokens = ["20k", "40k"]
seed = [{list}]
"#
    )
}
