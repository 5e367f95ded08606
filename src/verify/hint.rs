//! Verification of a hint: opening believes it, so it must say of its segment exactly what the segment says itself.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::segment::Verifier;
use crate::MAX_KEY_LEN;
use crate::engine::hash_key;
use crate::error::{Error, Result};
use crate::log::hint::{self, HintEntry, HintReader};
use crate::log::manifest::SegmentEntry;
use crate::log::record::Head;
use crate::report::Report;
use crate::storage::{File, Storage, read_exact_at};

/// What a set of entries comes to, in whatever order. The hash is keyed, so that no two sets can be made that come to
/// the same.
#[derive(Clone)]
pub(super) struct Fingerprint {
    keys: [u64; 2],
    count: u64,
    sum: u64,
}

impl Fingerprint {
    pub(super) fn new(storage: &dyn Storage) -> Result<Fingerprint> {
        let random = || storage.random().map_err(|e| Error::os("get random bytes", &e));
        Ok(Fingerprint { keys: [random()?, random()?], count: 0, sum: 0 })
    }

    pub(super) fn add(&mut self, entry: &HintEntry) {
        let mut hasher = SipHasher13::new_with_keys(self.keys[0], self.keys[1]);
        for number in [entry.hash, entry.offset(), entry.len, entry.timestamp as u64, entry.tombstone() as u64] {
            hasher.write(&number.to_le_bytes());
        }
        self.count += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }
}

/// Checks the hint of a segment whose records come to `expected`; `None` if the segment is damaged, so that a hint that
/// is right may say more.
pub(super) fn check(
    verifier: &Verifier<'_>,
    entry: &SegmentEntry,
    segment: &str,
    file: &dyn File,
    expected: Option<&Fingerprint>,
    report: &mut Report,
) -> Result<()> {
    let open = || HintReader::open(verifier.storage, (entry.id, entry.identity), verifier.hash_seed);
    let covers = |hint: &HintReader| hint.covered() == entry.synced_len;
    let Some(mut reader) = open().filter(covers) else {
        report.totals.unusable_hints += 1;
        return Ok(());
    };
    let mut actual = expected.cloned().unwrap_or(Fingerprint { keys: [0; 2], count: 0, sum: 0 });
    (actual.count, actual.sum) = (0, 0);
    let (mut last, mut unsorted) = (None, None);
    while let Ok(Some(entry)) = reader.peek() {
        if last.is_some_and(|last| last > (entry.hash, entry.timestamp)) {
            unsorted.get_or_insert(actual.count);
        }
        last = Some((entry.hash, entry.timestamp));
        actual.add(&entry);
        reader.advance();
    }
    if !reader.finish().unwrap_or(false) {
        report.totals.unusable_hints += 1;
        return Ok(());
    }
    let name = hint::name(entry.id);
    if let Some(number) = unsorted {
        report.problem(&name, hint::offset_of(number), "the entries are not in order");
    }
    if expected.is_some_and(|expected| (expected.count, expected.sum) != (actual.count, actual.sum)) {
        let wrong = open().filter(covers).and_then(|reader| first_wrong(verifier, reader, file));
        match wrong {
            Some(number) => {
                report.problem(&name, hint::offset_of(number), format!("the entry is not what {segment} says"));
            }
            None => report.problem(&name, 0, format!("it lacks a record of {segment}, or has one twice")),
        }
    }
    Ok(())
}

/// The number of the first entry that is wrong by itself.
fn first_wrong(verifier: &Verifier<'_>, mut reader: HintReader, file: &dyn File) -> Option<u64> {
    let mut number = 0;
    while let Ok(Some(entry)) = reader.peek() {
        let mut bytes = vec![0; entry.len.min(Head::max_len(MAX_KEY_LEN) as u64) as usize];
        let head = read_exact_at(file, &mut bytes, entry.offset()).ok().and_then(|()| Head::parse(&bytes, entry.len));
        let right = head.is_some_and(|head| {
            hash_key(verifier.hash_seed, head.key).0 == entry.hash
                && (head.timestamp, head.value_len.is_none()) == (entry.timestamp, entry.tombstone())
        });
        if !right {
            return Some(number);
        }
        reader.advance();
        number += 1;
    }
    None
}
