//! The chain of log segments that are not known to be synced, walked at open to find where the log ends.

use std::sync::Arc;

use crate::engine::hash_key;
use crate::error::{Error, Result};
use crate::log::header::{HEADER_LEN, Header, LogEnd, Role};
use crate::log::hint::{HintEntry, HintReader};
use crate::log::manifest::{Manifest, SegmentEntry};
use crate::log::record::CRC_LEN;
use crate::log::scan::{Item, Scanner};
use crate::log::segment::file_name;
use crate::recovery::{bytes_beyond, known_header, open, read_header};
use crate::stats::RecoveryInfo;
use crate::storage::{File, Storage, read_exact_at};

/// A segment that belongs to the log.
pub(crate) struct Link {
    pub header: Header,
    pub file: Arc<dyn File>,
    /// Where its frames end.
    pub end: u64,
    /// So many of its bytes are known to be synced.
    pub synced: u64,
    /// There are bytes behind the end that are no part of the log.
    pub torn: bool,
    /// Records before `synced` that cannot be read.
    pub damaged: u64,
    pub last: bool,
    pub hint: Option<HintReader>,
    pub scanned: Vec<HintEntry>,
}

/// The unsealed part of the log.
pub(crate) struct Chain {
    pub links: Vec<Link>,
    /// Segments behind the end of the log, youngest first.
    pub behind: Vec<u64>,
    /// Where the newest segment of the log ends.
    pub end: LogEnd,
}

/// A file that may be part of the chain.
struct Candidate {
    header: Header,
    file: Arc<dyn File>,
    /// What MANIFEST says of it.
    entry: Option<SegmentEntry>,
}

impl Chain {
    /// Walks the chain. `ids` are all segment files there are; `sealed_end` is where the part before it ends;
    /// `hint_of` finds the hint that covers exactly so much of a segment.
    pub(crate) fn walk(
        manifest: &Manifest,
        storage: &dyn Storage,
        ids: &[u64],
        sealed_end: Option<LogEnd>,
        info: &mut RecoveryInfo,
        hint_of: impl Fn((u64, u64), u64) -> Option<HintReader>,
    ) -> Result<Chain> {
        let (candidates, mut behind) = find_candidates(manifest, storage, ids)?;
        let mut links: Vec<Link> = Vec::new();
        let mut end = sealed_end;
        for (i, candidate) in candidates.iter().enumerate() {
            let follows = links.last().is_some_and(|l| l.damaged > 0 && l.header.id == candidate.header.predecessor.id)
                || continues(manifest, &candidate.header, end, links.is_empty())
                || candidate.entry.is_some_and(|e| e.synced_len > 0);
            if !follows {
                behind.push(candidate.header.id);
                continue;
            }
            let link = take(manifest, candidate, &candidates[i + 1..], info, &hint_of)?;
            end = Some(log_end(&link)?);
            links.push(link);
        }
        behind.sort_unstable_by(|a, b| b.cmp(a));
        info.removed_segments = behind.len() as u64;
        for id in &behind {
            if let Some(file) = open(storage, &file_name(*id), false)? {
                info.torn_bytes += bytes_beyond(&file_name(*id), &*file, 0)?.saturating_sub(HEADER_LEN as u64);
            }
        }
        if let Some(link) = links.last_mut() {
            link.last = true;
        }
        let unsynced = links.iter().any(|l| l.end > l.synced || l.torn);
        info.clean &= behind.is_empty() && !unsynced;
        Ok(Chain { links, behind, end: end.unwrap_or_default() })
    }
}

/// The files that may be part of the chain, in the order of their ids, and those that could have been, were
/// their headers not lost.
fn find_candidates(manifest: &Manifest, storage: &dyn Storage, ids: &[u64]) -> Result<(Vec<Candidate>, Vec<u64>)> {
    let (mut candidates, mut lost) = (Vec::new(), Vec::new());
    let unsealed = |id: u64| manifest.segments.iter().find(|e| e.id == id && !e.sealed).copied();
    for entry in manifest.segments.iter().filter(|e| !e.sealed && e.synced_len > 0) {
        if !ids.contains(&entry.id) {
            return Err(Error::corrupt(&file_name(entry.id), 0, "the file is gone"));
        }
    }
    for &id in ids {
        let entry = unsealed(id);
        if entry.is_none() && id < manifest.next_id {
            continue;
        }
        let name = file_name(id);
        let Some(file) = open(storage, &name, false)? else {
            continue;
        };
        let header = match &entry {
            Some(entry) if entry.synced_len > 0 => Some(known_header(&*file, entry)?.0),
            _ => read_header(&name, &*file)?.filter(|h| h.id == id),
        };
        match header {
            Some(header) if header.role == Role::Output => {}
            Some(header) => candidates.push(Candidate { header, file, entry }),
            // A crash between creating a file and writing its header leaves an orphan that holds nothing.
            None if bytes_beyond(&name, &*file, 0)? == 0 => {}
            None => lost.push(id),
        }
    }
    Ok((candidates, lost))
}

/// Whether a segment takes up the log where it ends. `first`: the part before it is sealed, or there is none.
fn continues(manifest: &Manifest, header: &Header, end: Option<LogEnd>, first: bool) -> bool {
    let (predecessor, end) = (header.predecessor, end.unwrap_or_default());
    if predecessor.id == end.id && predecessor.len == end.len && (first || predecessor.crc == end.crc) {
        return true;
    }
    // Its predecessor may have been compacted away; then it had been synced whole.
    let listed = manifest.segments.iter().any(|e| e.id == predecessor.id);
    first && !listed && predecessor.id < manifest.next_id && predecessor.id > end.id
}

/// Reads a segment of the chain.
fn take(
    manifest: &Manifest,
    candidate: &Candidate,
    later: &[Candidate],
    info: &mut RecoveryInfo,
    hint_of: impl Fn((u64, u64), u64) -> Option<HintReader>,
) -> Result<Link> {
    let Candidate { header, file, entry } = candidate;
    let name = file_name(header.id);
    let file_len = file.len().map_err(|e| Error::os(format_args!("read {name}"), &e))?;
    let known = entry.map_or(0, |e| e.synced_len);
    let hint = if known > HEADER_LEN as u64 { hint_of((header.id, header.identity), known) } else { None };
    let start = if hint.is_some() { known.min(file_len) } else { HEADER_LEN as u64 };
    let seed = manifest.hash_seed;
    let mut scan = scan(&name, file, start, known, file_len, seed)?;
    let cut_short =
        later.first().is_some_and(|l| l.header.predecessor.id == header.id && l.header.predecessor.len > scan.end);
    if scan.stopped_at_bad || cut_short || bytes_beyond(&name, &**file, scan.end)? > 0 {
        // A sync mark behind the bad place says that it had been synced: then it is no tear but rot.
        let synced = synced_by_marks(&name, file, scan.end, file_len, later)?;
        if synced > scan.end {
            scan = self::scan(&name, file, start, synced, file_len, seed)?;
        }
    }
    info.scanned_bytes += scan.end.saturating_sub(start);
    info.scanned_records += scan.entries.len() as u64;
    info.damaged_records += scan.damaged;
    let mut damaged = scan.damaged;
    if file_len < known {
        info.damaged_records += 1;
        damaged += 1;
    }
    let garbage = bytes_beyond(&name, &**file, scan.end)?;
    info.torn_bytes += garbage;
    Ok(Link {
        header: *header,
        file: Arc::clone(file),
        end: scan.end,
        synced: known,
        torn: garbage > 0,
        damaged,
        last: false,
        hint,
        scanned: scan.entries,
    })
}

/// How much of a segment has been synced, as later sync marks tell; 0 if there is none.
fn synced_by_marks(name: &str, file: &Arc<dyn File>, from: u64, file_len: u64, later: &[Candidate]) -> Result<u64> {
    let mut synced = Scanner::new(name, Arc::clone(file), from, file_len)?.last_mark()?;
    for candidate in later {
        let name = file_name(candidate.header.id);
        let len = candidate.file.len().map_err(|e| Error::os(format_args!("read {name}"), &e))?;
        let mut scanner = Scanner::new(&name, Arc::clone(&candidate.file), HEADER_LEN as u64, len)?;
        if scanner.last_mark()? > 0 {
            synced = synced.max(later[0].header.predecessor.len.min(file_len));
        }
    }
    Ok(synced)
}

/// What a scan found.
pub(crate) struct Scan {
    pub entries: Vec<HintEntry>,
    /// Where the frames end.
    pub end: u64,
    /// Bad places before what was known to be synced.
    pub damaged: u64,
    stopped_at_bad: bool,
}

/// Reads the records of a segment from `start` on. Bad places before `known` are passed over, the first behind it
/// is the end.
pub(crate) fn scan(
    name: &str,
    file: &Arc<dyn File>,
    start: u64,
    known: u64,
    file_len: u64,
    seed: [u64; 2],
) -> Result<Scan> {
    let mut scanner = Scanner::new(name, Arc::clone(file), start, file_len)?;
    let mut scan = Scan { entries: Vec::new(), end: start, damaged: 0, stopped_at_bad: false };
    let mut newest = i64::MIN;
    loop {
        let (at, bad) = match scanner.next()? {
            Item::Record { offset, len, head } => {
                let (hash, tombstone) = (hash_key(seed, head.key).0, head.value_len.is_none());
                newest = newest.max(head.timestamp);
                scan.entries.push(HintEntry { hash, offset, len, timestamp: head.timestamp, tombstone });
                continue;
            }
            Item::Mark(_) => continue,
            Item::End => (scanner.at(), false),
            Item::Bad(_) => (scanner.at(), true),
        };
        if at >= known.min(file_len) {
            scan.end = scanner.good_end();
            scan.entries.retain(|e| e.offset < scan.end);
            scan.stopped_at_bad = bad;
            return Ok(scan);
        }
        scan.damaged += 1;
        if let Some((len, key)) = scanner.skip_bad()? {
            // Whatever key this was, reading it is to say that its record is damaged, not that it is absent. Its
            // timestamp may be damaged too, but its place in the log tells which records are older.
            let hash = hash_key(seed, &key).0;
            let timestamp = newest.saturating_add(1);
            scan.entries.push(HintEntry { hash, offset: at, len, timestamp, tombstone: false });
        }
    }
}

/// What the next segment's header is to say of this one.
fn log_end(link: &Link) -> Result<LogEnd> {
    let mut crc = [0; CRC_LEN];
    if link.end > HEADER_LEN as u64 {
        let read = read_exact_at(&*link.file, &mut crc, link.end - CRC_LEN as u64);
        read.map_err(|e| Error::os(format_args!("read {}", file_name(link.header.id)), &e))?;
    }
    Ok(LogEnd { id: link.header.id, len: link.end, crc: u32::from_le_bytes(crc) })
}
