//! Verification: reads every byte of a database that counts, and tells what is damaged. Writes nothing.
//!
//! What is damage is decided as opening decides it. What a crash leaves is none: a torn tail that was not synced, files
//! of interrupted work, hints that do not fit (opening ignores those).

mod hint;
mod segment;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::chain::Chain;
use crate::engine::Store;
use crate::error::{Code, Error, Result};
use crate::log::header::{HEADER_LEN, LogEnd, Role};
use crate::log::manifest::{self, Manifest, SegmentEntry};
use crate::log::segment::{Segment, State, file_name};
use crate::options::Options;
use crate::progress::Progress;
use crate::recovery::{self, known_header, lock, numbered, open};
use crate::report::Report;
use crate::stats::RecoveryInfo;
use crate::storage::Storage;
use segment::{Part, Verifier};

/// Verifies the database in a directory, which nobody has open for writing. What is damaged is in the report, whose
/// [`Report::verdict`] is an error then.
pub fn verify(path: &Path, progress: &mut Progress<'_>) -> Result<Report> {
    let options = Options { read_only: true, create: false, ..Options::default() };
    verify_on(&recovery::open_directory(path, &options)?, progress)
}

/// Verifies the database that `storage` holds.
pub(crate) fn verify_on(storage: &Arc<dyn Storage>, progress: &mut Progress<'_>) -> Result<Report> {
    lock(&**storage, true)?;
    let report = verify_locked(storage, progress);
    storage.unlock();
    report
}

impl Store {
    /// Verifies what is stored at the time of the call, beside reads and writes.
    pub fn verify(&self, progress: &mut Progress<'_>) -> Result<Report> {
        self.check_process()?;
        let engine = &self.engine;
        // Held until the end, so that compaction removes none of their files.
        let (segments, parts, newest) = {
            let appender = engine.appender()?;
            let mut segments: Vec<Arc<Segment>> = engine.index.segments().iter().cloned().collect();
            segments.sort_unstable_by_key(|s| s.id());
            let parts: Vec<Part> = segments.iter().map(|s| part_of(s)).collect();
            (segments, parts, appender.last_timestamp)
        };
        let mut report = Report::default();
        if let Err(e) = Manifest::read(&*engine.storage) {
            note_damage(&mut report, manifest::NAME, e)?;
        }
        let verifier = Verifier { storage: &engine.storage, hash_seed: engine.hash_seed, newest };
        let finished = verifier.run(&parts, &mut report, progress);
        drop(segments);
        finished?;
        progress.finish();
        report.fail_if_damaged();
        Ok(report)
    }
}

/// A segment of an open store, as it is now. Under the append lock.
fn part_of(segment: &Segment) -> Part {
    let sealed = segment.state() == State::Sealed;
    let end = segment.len();
    let entry = SegmentEntry {
        id: segment.id(),
        identity: segment.identity(),
        role: segment.role(),
        sealed,
        // What opening has found cut short stays so.
        synced_len: if sealed { end.max(segment.synced()) } else { end },
        min_timestamp: segment.min_timestamp(),
    };
    Part { entry, end, hinted: sealed && segment.hinted() }
}

fn verify_locked(storage: &Arc<dyn Storage>, progress: &mut Progress<'_>) -> Result<Report> {
    let mut report = Report::default();
    let names = storage.list().map_err(|e| Error::os("list the directory", &e))?;
    let found = match Manifest::read(&**storage) {
        Ok(None) => match recovery::admit(&**storage, &Options { read_only: true, ..Options::default() }) {
            Ok(()) => Ok(None),
            Err(e) => Err(e),
        },
        other => other,
    };
    let manifest = match found {
        Ok(manifest) => manifest,
        Err(e) => {
            note_damage(&mut report, manifest::NAME, e)?;
            None
        }
    };
    let parts = match &manifest {
        Some(manifest) => parts_of(manifest, storage, &names, &mut report)?,
        None => Vec::new(),
    };
    let (hash_seed, newest) = manifest.as_ref().map_or(([0; 2], i64::MAX), |m| (m.hash_seed, m.last_timestamp));
    let verifier = Verifier { storage, hash_seed, newest };
    if manifest.is_some() {
        verifier.run(&parts, &mut report, progress)?;
    } else {
        verifier.run_alone(&numbered(&names, ".log"), &mut report, progress)?;
    }
    progress.finish();
    report.fail_if_damaged();
    Ok(report)
}

/// Puts an error that says that something is damaged into the report. All others are passed on.
fn note_damage(report: &mut Report, file: &str, error: Error) -> Result<()> {
    if error.code() != Code::Corrupt {
        return Err(error);
    }
    report.problem(file, 0, error.message());
    Ok(())
}

/// The segments that make up a database, as opening would find them, in the order of their ids.
fn parts_of(
    manifest: &Manifest,
    storage: &Arc<dyn Storage>,
    names: &[String],
    report: &mut Report,
) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut listed = HashSet::new();
    let mut gone_ids = HashSet::new();
    for entry in &manifest.segments {
        if !listed.insert(entry.id) || entry.id >= manifest.next_id {
            report.problem(manifest::NAME, 0, format!("segment {} is listed as it cannot be", entry.id));
        }
        // Opening gives up if one is gone that the chain needs; here the others are to be looked at all the same.
        let gone = entry.synced_len > 0 && !is_there(&**storage, entry)?;
        if entry.sealed || gone {
            parts.push(Part { entry: *entry, end: entry.synced_len, hinted: !gone });
        }
        if gone {
            gone_ids.insert(entry.id);
        }
    }
    let mut usable = manifest.clone();
    usable.segments.retain(|e| e.sealed || !gone_ids.contains(&e.id));
    let newest_sealed = manifest.segments.iter().filter(|e| e.sealed && e.role == Role::Log).max_by_key(|e| e.id);
    let sealed_end = newest_sealed.map(|e| LogEnd { id: e.id, len: e.synced_len, crc: 0 });
    let mut info = RecoveryInfo::default();
    let chain = Chain::walk(&usable, &**storage, &numbered(names, ".log"), sealed_end, &mut info, |_, _| None)?;
    report.totals.torn_bytes = info.torn_bytes;
    let mut least = i64::MIN;
    for link in &chain.links {
        let (id, identity, role) = (link.header.id, link.header.identity, link.header.role);
        let listed = manifest.segments.iter().find(|e| e.id == id).map(|e| e.min_timestamp).filter(|&t| t < i64::MAX);
        least = least.max(listed.unwrap_or(manifest.last_timestamp.saturating_add(1)));
        let entry = SegmentEntry { id, identity, role, sealed: false, synced_len: link.synced, min_timestamp: least };
        let whole = link.synced > HEADER_LEN as u64 && link.end == link.synced;
        parts.push(Part { entry, end: link.end, hinted: whole });
        least = link.scanned.iter().map(|e| e.timestamp.saturating_add(1)).fold(least, i64::max);
    }
    parts.sort_by_key(|part| part.entry.id);
    let known: HashSet<u64> = parts.iter().map(|p| p.entry.id).chain(chain.behind.iter().copied()).collect();
    report.totals.orphan_files = names.iter().filter(|name| is_orphan(name, &known)).count() as u64;
    Ok(parts)
}

/// Whether a segment that MANIFEST lists can be recognized.
fn is_there(storage: &dyn Storage, entry: &SegmentEntry) -> Result<bool> {
    let Some(file) = open(storage, &file_name(entry.id), false)? else { return Ok(false) };
    match known_header(&*file, entry) {
        Err(e) if e.code() == Code::Corrupt => Ok(false),
        other => other.map(|_| true),
    }
}

/// Whether a file is left over by interrupted work.
fn is_orphan(name: &String, known: &HashSet<u64>) -> bool {
    let unknown = |ending| numbered(std::slice::from_ref(name), ending).iter().any(|id| !known.contains(id));
    name == manifest::TEMP_NAME || unknown(".log") || unknown(".hint")
}
