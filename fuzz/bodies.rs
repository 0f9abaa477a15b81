//! What is fuzzed: each function takes any bytes and panics when something that must hold does not. `tests/fuzzing.rs` runs
//! them for a bounded time on the stable compiler, the targets here under libFuzzer for as long as one likes.

use std::io;

use isoloss_store::disk::Disk;
use isoloss_store::journal::{FILE, Journal};
use isoloss_wire::api;
use isoloss_wire::child::{FromChild, ToChild};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The parser of sweep files: any text is a sweep or an error that can be shown, and the same one each time.
pub(crate) fn sweep(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match isoloss_sweep::spec::parse("fuzz.toml", text, &[]) {
        Ok(spec) => drop(spec.corpora()),
        Err(error) => {
            let again = isoloss_sweep::spec::parse("fuzz.toml", text, &[]).expect_err("it was wrong before");
            assert_eq!(error.to_string(), again.to_string());
        }
    }
}

/// Messages: what is understood is written as what is understood as the same.
pub(crate) fn wire(data: &[u8]) {
    round::<api::Submit>(data);
    round::<api::Choose>(data);
    round::<api::Register>(data);
    round::<api::Acquire>(data);
    round::<api::Acquired>(data);
    round::<api::Renew>(data);
    round::<api::Settle>(data);
    round::<api::Runs>(data);
    round::<api::Results>(data);
    round::<api::Problem>(data);
    round::<api::Event>(data);
    round::<ToChild>(data);
    round::<FromChild>(data);
}

fn round<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(data) else { return };
    let written = serde_json::to_vec(&message).expect("a message is plain data");
    let again: T = serde_json::from_slice(&written).expect("what was written is understood");
    assert_eq!(message, again);
}

/// A journal of any bytes: the good frames lie one behind the other within the file, each reads back as it was scanned, and
/// a second look sees the same. Gives what was served.
pub(crate) fn journal(data: &[u8]) -> Vec<Vec<u8>> {
    let Ok(journal) = Journal::existing(Box::new(Memory(data.to_vec()))) else { return Vec::new() };
    let mut served = Vec::new();
    let mut places = Vec::new();
    let scan = journal.scan(&mut |entry| {
        served.push(entry.payload.to_vec());
        places.push(entry.place);
    });
    let Ok(scan) = scan else { return served };
    assert!(scan.tip.end <= data.len() as u64);
    let mut last = 0;
    for (place, payload) in places.iter().zip(&served) {
        assert!(place.offset >= last && place.offset + payload.len() as u64 <= scan.tip.end);
        last = place.offset + payload.len() as u64;
        assert_eq!(&journal.read(*place).expect("a good frame is read again"), payload);
    }
    if let Some(damage) = scan.damage {
        assert!(damage.offset >= last && damage.offset < data.len() as u64);
    }
    let again = journal.scan(&mut |_| {}).expect("the same bytes");
    assert_eq!((again.tip, again.damage), (scan.tip, scan.damage));
    served
}

/// One file in memory that nobody writes.
struct Memory(Vec<u8>);

impl Disk for Memory {
    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        Ok((name == FILE).then_some(self.0.len() as u64))
    }

    fn read(&self, _: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let part = start.checked_add(length).and_then(|end| self.0.get(start..end));
        part.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn append(&mut self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&mut self, _: &str, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rewrite(&mut self, _: &str, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }
}
