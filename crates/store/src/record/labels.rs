//! Axis values and the like of one run. There are as many of these as runs: they are kept as one short text and not as a
//! tree of strings, which takes ten times the memory. They stand in the journal; the ledger has no use for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names and values; stored and written as a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Box<str>);

impl Labels {
    /// The names with their values.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        if self.0.is_empty() {
            return BTreeMap::new();
        }
        serde_json::from_str(&self.0).expect("labels are made from a map")
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        if map.is_empty() {
            return Self::default();
        }
        Self(serde_json::to_string(&map).expect("a map of strings is JSON").into())
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_map().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_written_as_a_map_and_read_back() {
        let pairs = [("size", "1e6"), ("odd", "\0 \"\u{e9}\"\n")];
        let map: BTreeMap<String, String> = pairs.map(|(name, value)| (name.into(), value.into())).into();
        let labels = Labels::from(map.clone());
        let text = serde_json::to_string(&labels).unwrap();
        assert_eq!(text, serde_json::to_string(&map).unwrap());
        assert_eq!(serde_json::from_str::<Labels>(&text).unwrap(), labels);
        assert_eq!(labels.to_map(), map);
        assert_eq!(serde_json::to_string(&Labels::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Labels>("{}").unwrap(), Labels::default());
    }
}
