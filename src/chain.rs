//! The chain of log segments that are not known to be synced, walked at open to find where the log ends.

use std::sync::Arc;

use crate::engine::hash_key;
use crate::error::{Error, Result};
use crate::log::header::{HEADER_LEN, Header, LogEnd, Role};
use crate::log::hint::{HintEntry, HintReader};
use crate::log::manifest::{Manifest, SegmentEntry};
use crate::log::record::CRC_LEN;
use crate::log::scan::{Damage, Item, Scanner};
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
    /// As in [`Chain`].
    lost: Option<Error>,
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
    /// Something is gone that had been synced, and nobody can tell which keys: a store opened from the rest would have
    /// them absent.
    pub lost: Option<Error>,
}

/// A file that may be part of the chain.
struct Candidate {
    header: Header,
    file: Arc<dyn File>,
    /// What MANIFEST says of it.
    entry: Option<SegmentEntry>,
    /// Its header cannot be read: what stands in `header` is made up.
    header_lost: bool,
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
        let candidates = find_candidates(manifest, storage, ids)?;
        let mut behind = Vec::new();
        let mut links: Vec<Link> = Vec::new();
        let mut lost = None;
        let mut end = sealed_end;
        let mut floor = i64::MIN;
        for (i, candidate) in candidates.iter().enumerate() {
            let predecessor = candidate.header.predecessor;
            let damaged_before = |l: &Link| l.damaged > 0 && (l.header.id, l.end) == (predecessor.id, predecessor.len);
            let follows = links.last().is_some_and(damaged_before)
                || !candidate.header_lost && continues(manifest, &candidate.header, end, links.is_empty())
                || candidate.entry.is_some_and(|e| e.synced_len > 0);
            // A sync mark in it, or in a later one, says that it has been synced, and all before it: if it does not
            // follow, that is not a tear but damage.
            if !follows && !any_mark(&candidates[i..])? {
                behind.push(candidate.header.id);
                continue;
            }
            if !follows {
                let before = end.map_or(0, |end| end.id);
                if !candidate.header_lost || before + 1 != candidate.header.id {
                    let gone = || Error::corrupt(&file_name(candidate.header.id), 0, "what came before it is gone");
                    lost.get_or_insert_with(gone);
                }
                links.iter_mut().next_back().into_iter().for_each(|before| before.damaged += 1);
                info.damaged_records += 1;
            }
            floor = floor.max(least_timestamp(manifest, candidate).saturating_sub(1));
            let mut link = take(manifest, candidate, &candidates[i + 1..], floor, info, &hint_of)?;
            floor = link.scanned.iter().map(|e| e.timestamp).max().unwrap_or(floor).max(floor);
            end = Some(log_end(&link)?);
            lost = lost.or(link.lost.take());
            links.push(link);
        }
        behind.sort_unstable_by(|a, b| b.cmp(a));
        info.removed_segments += behind.len() as u64;
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
        Ok(Chain { links, behind, end: end.unwrap_or_default(), lost })
    }
}

/// The files that may be part of the chain, in the order of their ids.
fn find_candidates(manifest: &Manifest, storage: &dyn Storage, ids: &[u64]) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
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
        let (header, header_lost) = match &entry {
            Some(entry) if entry.synced_len > 0 => known_header(&*file, entry)?,
            _ => match read_header(&name, &*file)?.filter(|h| h.id == id) {
                Some(header) => (header, false),
                None => (Header { id, identity: 0, role: Role::Log, predecessor: LogEnd::default() }, true),
            },
        };
        // A crash between creating a file and writing its header leaves an orphan that holds nothing.
        let expected = entry.is_some_and(|e| e.synced_len > 0);
        if header.role == Role::Log && (expected || !header_lost || bytes_beyond(&name, &*file, 0)? > 0) {
            candidates.push(Candidate { header, file, entry, header_lost });
        }
    }
    Ok(candidates)
}

/// No record of this segment has a smaller timestamp.
fn least_timestamp(manifest: &Manifest, candidate: &Candidate) -> i64 {
    let listed = candidate.entry.map(|e| e.min_timestamp).filter(|&least| least < i64::MAX);
    listed.unwrap_or(manifest.last_timestamp.saturating_add(1))
}

/// Whether there is a sync mark in any of these segments.
fn any_mark(candidates: &[Candidate]) -> Result<bool> {
    for candidate in candidates {
        let name = file_name(candidate.header.id);
        let len = candidate.file.len().map_err(|e| Error::os(format_args!("read {name}"), &e))?;
        if Scanner::new(&name, Arc::clone(&candidate.file), HEADER_LEN as u64, len)?.last_mark()? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
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
    floor: i64,
    info: &mut RecoveryInfo,
    hint_of: impl Fn((u64, u64), u64) -> Option<HintReader>,
) -> Result<Link> {
    let Candidate { header, file, entry, header_lost } = candidate;
    let name = file_name(header.id);
    let file_len = file.len().map_err(|e| Error::os(format_args!("read {name}"), &e))?;
    let known = entry.map_or(0, |e| e.synced_len);
    let hint = if known > HEADER_LEN as u64 { hint_of((header.id, header.identity), known) } else { None };
    let start = if hint.is_some() { known.min(file_len) } else { HEADER_LEN as u64 };
    let rules = ScanRules { seed: manifest.hash_seed, order: Order::Log { floor } };
    let (mut scan, mut scanned) = scan(&name, file, Extent { start, known, file_len }, &rules)?;
    let cut_short =
        later.first().is_some_and(|l| l.header.predecessor.id == header.id && l.header.predecessor.len > scan.end);
    if scan.stopped_at_bad || cut_short || bytes_beyond(&name, &**file, scan.end)? > 0 {
        // A sync mark behind the bad place says that it had been synced: then it is no tear but rot.
        let synced = synced_by_marks(&name, file, scan.end, file_len, later)?;
        if synced > scan.end {
            (scan, scanned) = self::scan(&name, file, Extent { start, known: synced, file_len }, &rules)?;
        }
    }
    info.scanned_bytes += scan.end.saturating_sub(start);
    info.scanned_records += scanned.len() as u64;
    info.damaged_records += scan.damaged;
    let mut damaged = scan.damaged + *header_lost as u64;
    let mut lost = scan.lost;
    if file_len < known {
        if hint.is_none() {
            lost.get_or_insert_with(|| cut_off(&name, file_len));
        }
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
        lost,
        hint,
        scanned,
    })
}

/// The error of a synced segment whose end is gone. A hint could still tell which keys were there, so that reading those
/// would be the error.
pub(crate) fn cut_off(name: &str, file_len: u64) -> Error {
    Error::corrupt(name, file_len, "the rest of the file is gone, and no hint tells which keys were there")
}

/// How much of a segment has been synced, as later sync marks tell; 0 if there is none.
fn synced_by_marks(name: &str, file: &Arc<dyn File>, from: u64, file_len: u64, later: &[Candidate]) -> Result<u64> {
    let own = Scanner::new(name, Arc::clone(file), from, file_len)?.last_mark()?;
    if later.is_empty() || !any_mark(later)? {
        return Ok(own);
    }
    let successor = &later[0];
    let whole = if successor.header_lost { file_len } else { successor.header.predecessor.len.min(file_len) };
    Ok(own.max(whole))
}

/// What a scan found.
pub(crate) struct Scan {
    /// Where the frames end.
    pub end: u64,
    /// Bad places before what was known to be synced.
    pub damaged: u64,
    /// As in [`Chain`]: at one of those places.
    pub lost: Option<Error>,
    stopped_at_bad: bool,
}

/// What of a segment is read.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    start: u64,
    /// What is before this is known to be synced.
    known: u64,
    file_len: u64,
}

impl Extent {
    /// All of a segment of this length that takes no more appends.
    pub(crate) fn complete(len: u64) -> Extent {
        Extent { start: HEADER_LEN as u64, known: len, file_len: len }
    }
}

/// What is known of the records of a segment before they are read.
pub(crate) struct ScanRules {
    /// The key of the hash.
    pub seed: [u64; 2],
    pub order: Order,
}

/// The order of a segment's timestamps.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    /// Each is larger than the one before it, and the first is larger than this.
    Log { floor: i64 },
    /// Any order, none larger than this: the output of a compaction.
    Output { ceiling: i64 },
}

/// Reads the records of a segment and lists them. Bad places before what is known to be synced are passed over, if it can be
/// told what was there; the first behind it is the end.
pub(crate) fn scan(
    name: &str,
    file: &Arc<dyn File>,
    extent: Extent,
    rules: &ScanRules,
) -> Result<(Scan, Vec<HintEntry>)> {
    let mut entries = Vec::new();
    let scan = visit(name, file, extent, rules, &mut |entry| {
        entries.try_reserve(1).map_err(|_| Error::no_memory("a scan"))?;
        entries.push(entry);
        Ok(())
    })?;
    entries.retain(|e| e.offset() < scan.end);
    Ok((scan, entries))
}

/// As `scan`, but shows the entries instead of listing them, also those behind the end that it finds at last.
pub(crate) fn visit(
    name: &str,
    file: &Arc<dyn File>,
    Extent { start, known, file_len }: Extent,
    rules: &ScanRules,
    show: &mut dyn FnMut(HintEntry) -> Result<()>,
) -> Result<Scan> {
    let mut scanner = Scanner::new(name, Arc::clone(file), start, file_len)?;
    let mut scan = Scan { end: start, damaged: 0, lost: None, stopped_at_bad: false };
    let mut newest = match rules.order {
        Order::Log { floor } => floor,
        Order::Output { ceiling } => ceiling.saturating_sub(1),
    };
    loop {
        let good_end = scanner.good_end();
        let (at, bad, out_of_order) = match scanner.next()? {
            Item::Record { offset, len, head } => {
                let in_order = match rules.order {
                    Order::Log { .. } => head.timestamp > newest,
                    Order::Output { ceiling } => head.timestamp <= ceiling,
                };
                if in_order {
                    if let Order::Log { .. } = rules.order {
                        newest = head.timestamp;
                    }
                    let (hash, tombstone) = (hash_key(rules.seed, head.key).0, head.value_len.is_none());
                    show(HintEntry::new(hash, offset, len, head.timestamp, tombstone))?;
                    continue;
                }
                // It only looks like one: part of a value, say, found after the frames before it were lost.
                (offset, true, true)
            }
            Item::Mark(_) => continue,
            Item::End => (scanner.at(), false, false),
            Item::Bad(_) => (scanner.at(), true, false),
        };
        if at >= known.min(file_len) {
            scan.end = if out_of_order { good_end.min(at) } else { scanner.good_end() };
            scan.stopped_at_bad = bad;
            return Ok(scan);
        }
        scan.damaged += 1;
        let damage = match out_of_order {
            false => scanner.skip_bad()?,
            true => scanner.reject(at).map(|()| Damage::Lost)?,
        };
        match damage {
            Damage::Record { len, key } => {
                // Whatever key this was, reading it is to say that its record is damaged, not that it is absent. Its
                // timestamp may be damaged too, but its place in the log tells which records are older.
                let hash = hash_key(rules.seed, &key).0;
                newest = newest.saturating_add(1);
                show(HintEntry::new(hash, at, len, newest, false))?;
            }
            Damage::Frame => {}
            Damage::Lost => {
                let what = "damaged so that nobody can tell which keys were stored here";
                scan.lost.get_or_insert_with(|| Error::corrupt(name, at, what));
            }
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
