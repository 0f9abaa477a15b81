//! What tells the runs of a grid apart beside size and tokens: the axis values that vary, for a column of a table. It
//! reads labels; it knows no keys but those that tables show anyway.

use std::collections::{BTreeMap, BTreeSet};

/// Axis name to value, as the plan has it.
pub type Point = BTreeMap<String, String>;

/// Every table has columns for what these keys decide.
const SHOWN: [&str; 6] = ["params", "width", "layers", "tokens", "tokens_per_param", "flops"];

/// `seed=2 learning_rate=0.01` for each point, by the keys that vary between points of one arm, size and budget; all
/// empty where nothing does.
pub fn differences(points: &[(&str, &Point)]) -> Vec<String> {
    // What moves with the size alone, as a zipped learning rate does, tells no two rows apart.
    let mut alike: BTreeMap<(&str, Vec<Option<&String>>), Vec<&Point>> = BTreeMap::new();
    for (arm, point) in points {
        alike.entry((arm, SHOWN.map(|key| point.get(key)).to_vec())).or_default().push(point);
    }
    let keys: BTreeSet<&String> = points.iter().flat_map(|(_, point)| point.keys()).collect();
    let varies = |key: &str| {
        alike.values().any(|group| group.iter().map(|point| point.get(key)).collect::<BTreeSet<_>>().len() > 1)
    };
    let told: Vec<&String> = keys.into_iter().filter(|key| varies(key)).collect();
    let word = |point: &Point, key: &String| point.get(key).map(|value| format!("{key}={value}"));
    let line = |point| told.iter().filter_map(|key| word(point, key)).collect::<Vec<_>>().join(" ");
    points.iter().map(|(_, point)| line(*point)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(pairs: &[(&str, &str)]) -> Point {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_varies_beyond_size_and_tokens_is_told() {
        let points = [
            point(&[("params", "2000"), ("learning_rate", "0.01"), ("tied", "true")]),
            point(&[("params", "2000"), ("learning_rate", "0.003"), ("tied", "true")]),
            point(&[("params", "2000"), ("learning_rate", "0.003"), ("tied", "true"), ("seed", "2")]),
        ];
        let list: Vec<(&str, &Point)> = points.iter().map(|point| ("dense", point)).collect();
        assert_eq!(differences(&list), ["learning_rate=0.01", "learning_rate=0.003", "learning_rate=0.003 seed=2"]);
        let plain = [
            point(&[("params", "1000"), ("learning_rate", "0.01")]),
            point(&[("params", "2000"), ("learning_rate", "0.003")]),
        ];
        let list: Vec<(&str, &Point)> = plain.iter().map(|point| ("dense", point)).collect();
        assert_eq!(differences(&list), ["", ""]);
    }

    #[test]
    fn an_axis_with_one_value_in_one_arm_is_told_by_the_arm() {
        let points = [point(&[]), point(&[("experts", "8")])];
        assert_eq!(differences(&[("dense", &points[0]), ("moe", &points[1])]), ["", ""]);
    }
}
