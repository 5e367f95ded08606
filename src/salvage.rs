//! Salvage: copies what can be read out of a damaged database into a new one.
//!
//! All records are looked at, wherever they are: behind damaged places too, which are searched byte by byte. Of each key
//! the newest record counts, by its timestamp, so that it does not matter what MANIFEST, headers and hints say, or
//! whether they are there. The new database gets the values that are the newest of their keys, and nothing else.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use siphasher::sip128::SipHasher13;

use crate::batch::Batch;
use crate::engine::Store;
use crate::error::{Code, Error, Result};
use crate::log::header::{HEADER_LEN, Role};
use crate::log::manifest::{self, Manifest, SegmentEntry};
use crate::log::record::{self, CRC_LEN, Head};
use crate::log::scan::{Item, Scanner, end_of_data};
use crate::log::segment::file_name;
use crate::options::Options;
use crate::progress::Progress;
use crate::recovery::{self, lock, numbered, read_header};
use crate::report::Report;
use crate::storage::real::remove_with_files;
use crate::storage::{File, Storage};
use crate::survey::{Extent, Found, survey};
use crate::unreadable::Patched;
use crate::window::Window;

/// The caller hears of the progress after so many bytes.
const STRIDE: u64 = 1 << 20;

/// Copies what can be read of the database at `path` into a new one at `new_path`, where nothing may be yet. The report
/// says what could not be read.
pub fn salvage(path: &Path, new_path: &Path, progress: &mut Progress<'_>) -> Result<Report> {
    let options = Options { read_only: true, create: false, ..Options::default() };
    let source = recovery::open_directory(path, &options)?;
    check_target(path, new_path)?;
    lock(&*source, true)?;
    let began = Cell::new(false);
    let create = || {
        began.set(true);
        let options = Options { exclusive: true, background: false, ..Options::default() };
        Store::open(new_path, &options)
    };
    let report = salvage_with(&source, create, progress);
    source.unlock();
    report.inspect_err(|e| {
        // Nothing is left of what was begun, unless somebody else was there first.
        if began.get() && !matches!(e.code(), Code::Exists | Code::Locked | Code::NotADatabase) {
            let _ = remove_with_files(new_path);
        }
    })
}

/// The new database must not be in the old one, and nothing may be in its place.
fn check_target(path: &Path, new_path: &Path) -> Result<()> {
    let exists = || Error::new(Code::Exists, format!("there is something at {}", new_path.display()));
    match std::fs::symlink_metadata(new_path) {
        Ok(_) => return Err(exists()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::os(format_args!("look at {}", new_path.display()), &e)),
    }
    let parent = new_path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = |path: &Path| {
        std::fs::canonicalize(path).map_err(|e| Error::os(format_args!("look at {}", path.display()), &e))
    };
    if real(parent)?.starts_with(real(path)?) {
        return Err(Error::new(Code::Invalid, "the new database would be inside the old one"));
    }
    Ok(())
}

/// As [`salvage`], from a storage whose lock is held, to the store that `create` makes.
pub(crate) fn salvage_with(
    source: &Arc<dyn Storage>,
    create: impl FnOnce() -> Result<Store>,
    progress: &mut Progress<'_>,
) -> Result<Report> {
    let mut report = Report::default();
    let logs = find_logs(&**source, &mut report)?;
    let all: u64 = logs.iter().map(|log| log.extent.end).fold(0, u64::saturating_add);
    // What has been found is read once more to be copied; that it is everything is as good a guess as any.
    progress.start(all.saturating_mul(2))?;
    let mut newest = Newest::new(&**source)?;
    let (mut done, mut last_timestamp) = (0_u64, i64::MIN);
    for (number, log) in logs.iter().enumerate() {
        newest.take(&**source, number as u32, log, &mut last_timestamp, &mut report, &mut |at| {
            progress.reach(done.saturating_add(at))
        })?;
        done = done.saturating_add(log.extent.end);
    }
    let target = create()?;
    copy(&**source, &logs, newest.into_values()?, &target, &mut report, progress)?;
    target.sync()?;
    target.close()?;
    progress.finish();
    Ok(report)
}

/// A file of the log.
struct Log {
    name: String,
    extent: Extent,
    /// `None`: unknown. Then nothing is known of the order of its records.
    role: Option<Role>,
    /// The timestamp of the record that the header is followed by.
    first: Option<i64>,
    /// No record of it has a larger timestamp.
    ceiling: i64,
}

impl Log {
    /// Opened for one pass only: there may be more of them than a process may have descriptors.
    fn open(&self, source: &dyn Storage) -> Result<Arc<Patched>> {
        let file = source.open(&self.name, false);
        Ok(Arc::new(Patched::new(file.map_err(|e| Error::os(format_args!("open {}", self.name), &e))?)))
    }
}

/// The files to be read, in the order of their ids.
fn find_logs(source: &dyn Storage, report: &mut Report) -> Result<Vec<Log>> {
    let manifest = read_manifest(source)?.unwrap_or_else(|e| {
        report.problem(manifest::NAME, 0, format!("{e}: files that it no longer listed cannot be told from others"));
        None
    });
    let entries: HashMap<u64, &SegmentEntry> = manifest.iter().flat_map(|m| &m.segments).map(|e| (e.id, e)).collect();
    let names = source.list().map_err(|e| Error::os("list the directory", &e))?;
    let mut ids = numbered(&names, ".log");
    ids.extend(entries.keys());
    ids.sort_unstable();
    ids.dedup();
    let mut logs = Vec::new();
    for id in ids {
        let entry = entries.get(&id).copied();
        // What MANIFEST has dropped may be older than a deletion that is gone by now.
        if entry.is_some() || manifest.as_ref().is_none_or(|m| id >= m.next_id) {
            logs.extend(find_log(source, id, entry, manifest.as_ref(), report)?);
        }
    }
    let mut ceiling = i64::MAX;
    for log in logs.iter_mut().rev().filter(|log| log.role == Some(Role::Log)) {
        log.ceiling = log.ceiling.min(ceiling);
        ceiling = ceiling.min(log.first.map_or(i64::MAX, |first| first.saturating_sub(1)));
    }
    Ok(logs)
}

/// The manifest, or what is wrong with it.
fn read_manifest(source: &dyn Storage) -> Result<Result<Option<Manifest>>> {
    match Manifest::read(source) {
        Ok(Some(manifest)) => Ok(Ok(Some(manifest))),
        Ok(None) => match recovery::admit(source, &Options { read_only: true, ..Options::default() }) {
            Err(e) if e.code() == Code::NotADatabase => Err(e),
            _ => Ok(Err(Error::corrupt(manifest::NAME, 0, "the file is gone"))),
        },
        Err(e) if matches!(e.code(), Code::Corrupt | Code::Io) => Ok(Err(e)),
        Err(e) => Err(e),
    }
}

/// A file of the log, if it is one and can be opened.
fn find_log(
    source: &dyn Storage,
    id: u64,
    entry: Option<&SegmentEntry>,
    manifest: Option<&Manifest>,
    report: &mut Report,
) -> Result<Option<Log>> {
    let name = file_name(id);
    let synced = entry.map_or(0, |entry| entry.synced_len);
    let frames = synced.saturating_sub(HEADER_LEN as u64);
    let file = match source.open(&name, false) {
        Ok(file) => Arc::new(Patched::new(file)),
        Err(e) => {
            if entry.is_none() || frames > 0 {
                report.damage(&name, 0, frames, format!("the file cannot be opened: {e}"));
            }
            return Ok(None);
        }
    };
    let header = read_header(&name, &*file)?;
    let (end, data_end) =
        (file.len().map_err(|e| Error::os(format_args!("read {name}"), &e))?, end_of_data(&name, &*file, 0)?);
    let role = entry.map(|entry| entry.role).or(header.map(|header| header.role));
    if entry.is_none() && (data_end == 0 || manifest.is_some() && role == Some(Role::Output)) {
        // Nothing, or a compaction that was not finished: what it copied is still where it was.
        return Ok(None);
    }
    if entry.zip(header).is_some_and(|(e, h)| (e.id, e.identity, e.role) != (h.id, h.identity, h.role)) {
        report.damage(&name, 0, frames, "this is another segment than the manifest lists");
        return Ok(None);
    }
    if header.is_none_or(|header| header.id != id) {
        report.problem(&name, 0, "the header is damaged");
    }
    if end < synced {
        report.damage(&name, end, synced - end, format!("the file ends here, {} bytes too early", synced - end));
    }
    let sealed = entry.is_some_and(|entry| entry.sealed);
    let ceiling = manifest.filter(|_| sealed).map_or(i64::MAX, |m| m.last_timestamp);
    let first = first_timestamp(&name, file, end)?;
    Ok(Some(Log { name, extent: Extent { end, data_end: data_end.max(synced.min(end)) }, role, first, ceiling }))
}

/// The timestamp of the record that the header is followed by.
fn first_timestamp(name: &str, file: Arc<dyn File>, end: u64) -> Result<Option<i64>> {
    match Scanner::new(name, file, HEADER_LEN as u64, end)?.next()? {
        Item::Record { head, .. } => Ok(Some(head.timestamp)),
        _ => Ok(None),
    }
}

/// The newest record of a key.
struct Record {
    timestamp: i64,
    offset: u64,
    len: u64,
    log: u32,
    tombstone: bool,
}

/// The newest record of each key.
struct Newest {
    /// Two keys have the same hash of 128 bits if somebody breaks the keyed hash, and else never.
    seed: [u64; 2],
    records: HashMap<u128, Record>,
}

impl Newest {
    fn new(storage: &dyn Storage) -> Result<Newest> {
        let random = || storage.random().map_err(|e| Error::os("get random bytes", &e));
        Ok(Newest { seed: [random()?, random()?], records: HashMap::new() })
    }

    /// Reads a file of the log. `last_timestamp` is that of the last record of the log before it.
    fn take(
        &mut self,
        source: &dyn Storage,
        number: u32,
        log: &Log,
        last_timestamp: &mut i64,
        report: &mut Report,
        tell: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let patched = log.open(source)?;
        let file: Arc<dyn File> = Arc::<Patched>::clone(&patched);
        let mut told = 0;
        let batches = survey(&log.name, &file, log.extent, &mut |found| {
            let (Found::Record { offset, .. } | Found::Damage { offset, .. }) = found;
            if offset.saturating_sub(told) >= STRIDE {
                told = offset;
                tell(offset)?;
            }
            match found {
                Found::Damage { offset, len, what } => {
                    report.damage(&log.name, offset, len, what);
                    Ok(true)
                }
                Found::Record { offset, len, head, followed } => {
                    // What is found by searching may be part of a damaged value that looks like a record.
                    let in_log = log.role == Some(Role::Log);
                    if !followed && (head.timestamp > log.ceiling || in_log && head.timestamp <= *last_timestamp) {
                        return Ok(false);
                    }
                    if in_log {
                        *last_timestamp = head.timestamp.max(*last_timestamp);
                    }
                    let tombstone = head.value_len.is_none();
                    report.totals.records += 1;
                    report.totals.tombstones += tombstone as u64;
                    self.add(head.key, Record { timestamp: head.timestamp, offset, len, log: number, tombstone })?;
                    Ok(true)
                }
            }
        })?;
        report.totals.segments += 1;
        report.totals.bytes += log.extent.end;
        report.totals.batches += batches;
        if let Some((offset, what)) = patched.unreadable() {
            report.problem(&log.name, offset, what);
        }
        tell(log.extent.end)
    }

    fn add(&mut self, key: &[u8], record: Record) -> Result<()> {
        self.records.try_reserve(1).map_err(|_| Error::no_memory("the keys of the database"))?;
        match self.records.entry(SipHasher13::new_with_keys(self.seed[0], self.seed[1]).hash(key).as_u128()) {
            Entry::Vacant(place) => drop(place.insert(record)),
            Entry::Occupied(mut known) if known.get().timestamp < record.timestamp => drop(known.insert(record)),
            Entry::Occupied(_) => {}
        }
        Ok(())
    }

    /// The records of values, in the order in which they are on disk.
    fn into_values(self) -> Result<Vec<Record>> {
        let mut values = Vec::new();
        let count = self.records.values().filter(|record| !record.tombstone).count();
        values.try_reserve_exact(count).map_err(|_| Error::no_memory("the keys of the database"))?;
        values.extend(self.records.into_values().filter(|record| !record.tombstone));
        values.sort_unstable_by_key(|record| (record.log, record.offset));
        Ok(values)
    }
}

/// Stores these records in the new database.
fn copy(
    source: &dyn Storage,
    logs: &[Log],
    values: Vec<Record>,
    target: &Store,
    report: &mut Report,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let mut open: Option<(u32, Window)> = None;
    let (mut batch, mut copied) = (Batch::new(), 0);
    for record in values {
        let log = &logs[record.log as usize];
        let window = match &mut open {
            Some((number, window)) if *number == record.log => window,
            _ => &mut open.insert((record.log, Window::new(&log.name, log.open(source)?)?)).1,
        };
        let frame = window.peek(record.offset, record.len)?;
        let head = Head::parse(frame, record.len).filter(|_| record::crc_matches(frame));
        let value = head.and_then(|head| Some((head.key, frame.get(head.value_at()..frame.len() - CRC_LEN)?)));
        match value {
            // A value of several gigabytes would not fit into a batch.
            Some((key, value)) if value.len() as u64 > STRIDE => target.set(key, value)?,
            Some((key, value)) => batch.set(key, value)?,
            None => {
                // It could be read a moment ago.
                report.damage(&log.name, record.offset, record.len, "the record cannot be read any more");
                continue;
            }
        }
        report.totals.written_records += 1;
        copied += record.len;
        if copied >= STRIDE {
            target.write(&batch)?;
            batch.clear();
            progress.advance(copied)?;
            copied = 0;
        }
    }
    target.write(&batch)?;
    Ok(())
}
