//! Records as the journal holds them: JSON whose first key says which record it is.
//!
//! Serde reads a tagged enum by first building a tree of the whole text, some ten times its size. The two records that
//! are large, an admission and an outcome, are read without it: a store of 100,000 runs opens in half the time, and
//! without a peak of memory.

use std::sync::Arc;

use isoloss_sweep::{Outcome, RunId};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Admission, Record};

#[derive(Deserialize)]
struct Admitted {
    #[serde(rename = "record")]
    _record: IgnoredAny,
    admission: Admission,
}

#[derive(Deserialize)]
struct Settled {
    #[serde(rename = "record")]
    _record: IgnoredAny,
    run_id: RunId,
    attempt: u64,
    worker: String,
    outcome: Box<Outcome>,
}

impl Record {
    /// The record that a payload of the journal holds.
    pub fn decode(payload: &[u8]) -> Result<Self, serde_json::Error> {
        if payload.starts_with(br#"{"record":"admitted","#) {
            let Admitted { admission, .. } = serde_json::from_slice(payload)?;
            return Ok(Self::Admitted { admission: Arc::new(admission) });
        }
        if payload.starts_with(br#"{"record":"settled","#) {
            let Settled { run_id, attempt, worker, outcome, .. } = serde_json::from_slice(payload)?;
            return Ok(Self::Settled { run_id, attempt, worker, outcome });
        }
        serde_json::from_slice(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_short_way_reads_what_the_long_way_reads() {
        let planned = sample::planned(1);
        let run_id = planned.run_id;
        let admission = Arc::new(sample::admission("one", [planned]));
        let settled =
            |outcome| Record::Settled { run_id, attempt: 3, worker: "w".to_owned(), outcome: Box::new(outcome) };
        let records = [
            Record::Admitted { admission },
            settled(sample::finished(0.1 + 0.2)),
            settled(sample::diverged()),
            settled(sample::failed(true)),
            Record::Retried { runs: vec![run_id] },
        ];
        for record in records {
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(Record::decode(text.as_bytes()).unwrap(), record);
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
            // The tag may stand anywhere, as in a journal that another program wrote.
            let moved: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(Record::decode(moved.to_string().as_bytes()).unwrap(), record);
        }
        assert!(Record::decode(br#"{"record":"settled","run_id":3}"#).is_err());
    }
}
