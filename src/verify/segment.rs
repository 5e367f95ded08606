//! Verification of the segments, one after the other.

use std::sync::Arc;

use super::hint::{self, Fingerprint};
use crate::engine::hash_key;
use crate::error::{Error, Result};
use crate::log::header::{HEADER_LEN, Header, LogEnd, Role};
use crate::log::hint::HintEntry;
use crate::log::manifest::SegmentEntry;
use crate::log::record::CRC_LEN;
use crate::log::scan::end_of_data;
use crate::log::segment::file_name;
use crate::progress::Progress;
use crate::recovery::{open, read_header};
use crate::report::Report;
use crate::storage::{File, Storage, read_exact_at};
use crate::survey::{Extent, Found, survey};
use crate::unreadable::Patched;

/// The caller hears of the progress after so many bytes.
const STRIDE: u64 = 1 << 20;
/// Where in a segment the fields about its predecessor are.
const PREDECESSOR_AT: u64 = 32;

/// A segment that is to be verified.
pub(super) struct Part {
    /// What MANIFEST or the store says of it.
    pub entry: SegmentEntry,
    /// Its frames end here.
    pub end: u64,
    /// It should have a hint that covers what is synced of it.
    pub hinted: bool,
}

/// What all segments are verified with.
pub(super) struct Verifier<'a> {
    pub storage: &'a Arc<dyn Storage>,
    pub hash_seed: [u64; 2],
    /// No record of a compaction has a larger timestamp.
    pub newest: i64,
}

/// How a segment of the log was found.
struct LogPart {
    header: Option<Header>,
    end: LogEnd,
    intact: bool,
}

impl Verifier<'_> {
    /// Verifies these segments, which are in the order of their ids.
    pub(super) fn run(&self, parts: &[Part], report: &mut Report, progress: &mut Progress<'_>) -> Result<()> {
        progress.start(parts.iter().map(|part| part.end).fold(0, u64::saturating_add))?;
        let (mut done, mut before) = (0_u64, None);
        for part in parts {
            let found = self.verify(part, report, &mut |at| progress.reach(done.saturating_add(at)))?;
            if let Some(found) = found.filter(|_| part.entry.role == Role::Log) {
                check_order(&file_name(part.entry.id), before.as_ref(), &found, report);
                before = Some(found);
            }
            done = done.saturating_add(part.end);
            progress.reach(done)?;
        }
        Ok(())
    }

    /// Verifies segments of which nothing is known, because there is no MANIFEST.
    pub(super) fn run_alone(&self, ids: &[u64], report: &mut Report, progress: &mut Progress<'_>) -> Result<()> {
        let mut files = 0;
        for id in ids {
            let name = file_name(*id);
            if let Some(file) = open(&**self.storage, &name, false)? {
                files += file.len().map_err(|e| os(&name, &e))?;
            }
        }
        progress.start(files)?;
        for id in ids {
            let name = file_name(*id);
            let Some(file) = open(&**self.storage, &name, false)? else { continue };
            if read_header(&name, &*file)?.is_none_or(|header| header.id != *id) {
                report.problem(&name, 0, "the header is damaged");
            }
            let (end, data_end) = (file.len().map_err(|e| os(&name, &e))?, end_of_data(&name, &*file, 0)?);
            let mut told = 0;
            look_through(&name, &file, Extent { end, data_end }, report, &mut |found| {
                let (Found::Record { offset, .. } | Found::Damage { offset, .. }) = found;
                if offset.saturating_sub(told) >= STRIDE {
                    progress.advance(offset - told)?;
                    told = offset;
                }
                Ok(true)
            })?;
            progress.advance(end.saturating_sub(told))?;
        }
        Ok(())
    }

    /// Verifies a segment and its hint. `None` if it is not there.
    fn verify(
        &self,
        part: &Part,
        report: &mut Report,
        tell: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Option<LogPart>> {
        let (entry, name) = (&part.entry, file_name(part.entry.id));
        let problems = report.totals.problems;
        let Some(file) = open(&**self.storage, &name, false)? else {
            report.damage(&name, 0, entry.synced_len.saturating_sub(HEADER_LEN as u64), "the file is gone");
            return Ok(None);
        };
        let file_len = file.len().map_err(|e| os(&name, &e))?;
        if file_len < entry.synced_len {
            let missing = entry.synced_len - file_len;
            report.damage(&name, file_len, missing, format!("the file ends here, {missing} bytes too early"));
        }
        let header = check_header(&name, &*file, entry, report)?;
        let end = part.end.min(file_len);
        let mut fingerprint = Fingerprint::new(&**self.storage)?;
        let (mut newest, mut told) = (entry.min_timestamp.saturating_sub(1), 0);
        look_through(&name, &file, Extent { end, data_end: end }, report, &mut |found| {
            let (Found::Record { offset, .. } | Found::Damage { offset, .. }) = found;
            if offset.saturating_sub(told) >= STRIDE {
                told = offset;
                tell(offset)?;
            }
            let Found::Record { offset, len, head, .. } = found else { return Ok(true) };
            let timestamp = head.timestamp;
            let in_order = match entry.role {
                Role::Log => timestamp > newest && timestamp < i64::MAX,
                Role::Output => timestamp >= entry.min_timestamp && timestamp <= self.newest,
            };
            if in_order {
                newest = timestamp;
                let (hash, tombstone) = (hash_key(self.hash_seed, head.key).0, head.value_len.is_none());
                fingerprint.add(&HintEntry::new(hash, offset, len, timestamp, tombstone));
            }
            Ok(in_order)
        })?;
        if entry.sealed && end_of_data(&name, &*file, end)? > end {
            report.problem(&name, end, "bytes behind the end of the segment");
        }
        let intact = report.totals.problems == problems;
        if part.hinted && end == entry.synced_len {
            hint::check(self, entry, &name, &*file, intact.then_some(&fingerprint), report)?;
        }
        let mut crc = [0; CRC_LEN];
        if end > HEADER_LEN as u64 {
            let _ = read_exact_at(&*file, &mut crc, end - CRC_LEN as u64);
        }
        let end = LogEnd { id: entry.id, len: part.end, crc: u32::from_le_bytes(crc) };
        Ok(Some(LogPart { header, end, intact }))
    }
}

/// Walks over a segment and notes what is there. `visit` may object to records.
fn look_through(
    name: &str,
    file: &Arc<dyn File>,
    extent: Extent,
    report: &mut Report,
    visit: &mut dyn FnMut(Found<'_>) -> Result<bool>,
) -> Result<()> {
    let patched = Arc::new(Patched::new(Arc::clone(file)));
    let readable: Arc<dyn File> = Arc::<Patched>::clone(&patched);
    let batches = survey(name, &readable, extent, &mut |found| match found {
        Found::Damage { offset, len, what } => {
            report.damage(name, offset, len, what);
            visit(found)
        }
        Found::Record { head, .. } => {
            let accepted = visit(found)?;
            report.totals.records += accepted as u64;
            report.totals.tombstones += (accepted && head.value_len.is_none()) as u64;
            Ok(accepted)
        }
    })?;
    report.totals.segments += 1;
    report.totals.bytes += extent.end;
    report.totals.batches += batches;
    if let Some((offset, what)) = patched.unreadable() {
        report.problem(name, offset, what);
    }
    Ok(())
}

/// Checks the header against what is known of the segment; `None` if it is damaged.
fn check_header(name: &str, file: &dyn File, entry: &SegmentEntry, report: &mut Report) -> Result<Option<Header>> {
    let Some(header) = read_header(name, file)? else {
        report.problem(name, 0, "the header is damaged");
        return Ok(None);
    };
    if (header.id, header.identity, header.role) != (entry.id, entry.identity, entry.role) {
        report.problem(name, 0, "this is another segment than the manifest lists");
        return Ok(None);
    }
    Ok(Some(header))
}

/// Checks that a segment of the log continues the one before it. One between them may have been compacted away.
fn check_order(name: &str, before: Option<&LogPart>, found: &LogPart, report: &mut Report) {
    let Some(header) = &found.header else { return };
    let (said, id) = (header.predecessor, header.id);
    let fits = match before {
        _ if said.id >= id => false,
        Some(before) if said.id == before.end.id => said == before.end || !before.intact,
        Some(before) => said.id > before.end.id,
        None => true,
    };
    if !fits {
        let what = match before {
            Some(before) if said.id == before.end.id => {
                format!("segment {} ended at {}, this is the continuation of {}", said.id, before.end.len, said.len)
            }
            _ => format!("this is not the continuation of segment {}", said.id),
        };
        report.problem(name, PREDECESSOR_AT, what);
    }
}

fn os(name: &str, e: &std::io::Error) -> Error {
    Error::os(format_args!("read {name}"), e)
}
