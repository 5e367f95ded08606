//! Opening: from whatever a crash left on disk to a store whose content is a prefix of what was written.
//!
//! MANIFEST names the segments that are sealed: they are taken as they are. What follows is the chain of log
//! segments that were not known to be synced: those that MANIFEST lists unsealed, and younger ones that it does
//! not know yet. The chain is walked in order, each segment must continue the one before it, and it ends at the
//! first tear. What is behind goes: first whole segments, youngest first, made durable, then the torn end.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::append::{Appender, OpenSegment, PageMaker, SegmentFactory};
use crate::chain::{self, Chain, Extent, Link, Order, ScanRules};
use crate::checkpoint;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::fork::Birthplace;
use crate::index::Index;
use crate::load::{self, Source};
use crate::log::header::{HEADER_LEN, Header, HeaderError, LogEnd, Role};
use crate::log::hint::{self, HintReader};
use crate::log::manifest::{self, Manifest, SegmentEntry};
use crate::log::scan::end_of_data;
use crate::log::segment::{FileCache, Segment, State, file_name};
use crate::options::{IoPath, Options, SyncLevel};
use crate::reserve::{self, Reserve};
use crate::stats::RecoveryInfo;
use crate::storage::real::{RealStorage, create_dir, sync_parent};
use crate::storage::{File, Storage, read_exact_at, write_all_at};

/// The file that carries the lock.
pub(crate) const LOCK: &str = "LOCK";

/// Opens the directory of a database, creating it if that is wanted.
pub(crate) fn open_directory(path: &Path, options: &Options) -> Result<Arc<dyn Storage>> {
    let os = |e: std::io::Error| Error::os(format_args!("open {}", path.display()), &e);
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(not_a_database(format!("{} is not a directory", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if !options.create || options.read_only {
                return Err(not_a_database(format!("there is nothing at {}", path.display())));
            }
            match create_dir(path) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(os(e)),
                _ => {}
            }
        }
        Err(e) => return Err(os(e)),
    }
    let storage = RealStorage::open(path).map_err(os)?;
    let manifest = storage.open(manifest::NAME, false);
    if !options.read_only && manifest.is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        // Whoever made the directory may have died before its name was durable.
        sync_parent(path).map_err(os)?;
    }
    Ok(Arc::new(storage))
}

/// Takes the lock of a database, alone or shared with other readers.
pub(crate) fn lock(storage: &dyn Storage, shared: bool) -> Result<()> {
    storage.lock(shared).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => {
            Error::new(Code::Locked, "another handle, in this process or another, has the database open")
        }
        _ => Error::os("lock the database", &e),
    })
}

/// Opens the database that a storage holds, restoring what is there. The lock is held.
pub(crate) fn open_engine(storage: &Arc<dyn Storage>, options: &Options, birthplace: Birthplace) -> Result<Engine> {
    let manifest = match Manifest::read(&**storage)? {
        Some(_) if options.exclusive => return Err(Error::new(Code::Exists, "there is a database already")),
        Some(manifest) => manifest,
        None => {
            admit(&**storage, options)?;
            create(&**storage)?
        }
    };
    let mapped = options.io == IoPath::Auto && storage.reserves_blocks();
    let makes_pages = mapped && options.background && !options.read_only && options.sync != SyncLevel::Always;
    let mut without_hint = HashSet::new();
    let mut before = RecoveryInfo { clean: true, ..RecoveryInfo::default() };
    loop {
        let factory = Arc::new(SegmentFactory {
            storage: Arc::clone(storage),
            cache: Arc::new(FileCache::new(Arc::clone(storage))),
            mapped,
            cannot_reserve: AtomicBool::new(false),
            segment_size: options.segment_size,
            next_id: AtomicU64::new(manifest.next_id),
            reserve: Reserve::default(),
            page_maker: makes_pages.then(Arc::<PageMaker>::default),
        });
        let recovery =
            Recovery { options, manifest: &manifest, factory, index: Index::new()?, without_hint: &without_hint };
        match recovery.run(birthplace, &before)? {
            Outcome::Opened(engine) => return Ok(*engine),
            Outcome::RottenHints(ids, info) => {
                without_hint.extend(ids);
                before = info;
            }
        }
    }
}

/// Refuses what is not a database, before anything is created in it.
pub(crate) fn admit(storage: &dyn Storage, options: &Options) -> Result<()> {
    let names = storage.list().map_err(|e| Error::os("list the directory", &e))?;
    if names.iter().any(|n| n == manifest::NAME) {
        return Ok(());
    }
    if names.iter().any(|n| n == checkpoint::UNFINISHED) {
        return Err(not_a_database("the directory holds a checkpoint that was never finished".to_owned()));
    }
    if names.iter().any(|n| n.ends_with(".log")) {
        return Err(Error::corrupt(manifest::NAME, 0, "there is a log but no manifest"));
    }
    if let Some(foreign) = names.iter().find(|n| *n != LOCK && *n != manifest::TEMP_NAME) {
        return Err(not_a_database(format!("the directory holds other things, such as {foreign}")));
    }
    if options.read_only || !options.create {
        return Err(not_a_database("the directory is empty".to_owned()));
    }
    Ok(())
}

fn not_a_database(what: String) -> Error {
    Error::new(Code::NotADatabase, what)
}

/// Makes an empty database.
fn create(storage: &dyn Storage) -> Result<Manifest> {
    let random = || storage.random().map_err(|e| Error::os("get random bytes", &e));
    let manifest = Manifest {
        generation: 1,
        hash_seed: [random()?, random()?],
        next_id: 1,
        last_timestamp: 0,
        segments: Vec::new(),
    };
    let written = (|| {
        manifest.write_temp(storage)?.sync()?;
        storage.rename(manifest::TEMP_NAME, manifest::NAME)?;
        storage.sync_dir()
    })();
    written.map_err(|e| Error::os("create MANIFEST", &e))?;
    Ok(manifest)
}

enum Outcome {
    Opened(Box<Engine>),
    /// These segments' hints cannot be trusted: start over without them.
    RottenHints(Vec<u64>, RecoveryInfo),
}

struct Recovery<'a> {
    options: &'a Options,
    manifest: &'a Manifest,
    factory: Arc<SegmentFactory>,
    index: Index,
    without_hint: &'a HashSet<u64>,
}

impl Recovery<'_> {
    fn run(self, birthplace: Birthplace, before: &RecoveryInfo) -> Result<Outcome> {
        // What an earlier round has cut away is gone by now.
        let RecoveryInfo { clean, torn_bytes, removed_segments, orphan_files, .. } = *before;
        let mut info = RecoveryInfo { clean, torn_bytes, removed_segments, orphan_files, ..RecoveryInfo::default() };
        let mut sources = Vec::new();
        for entry in self.manifest.segments.iter().filter(|e| e.sealed) {
            sources.push(self.take_sealed(entry, &mut info)?);
        }
        let sealed_end = self.sealed_log_end(&sources);
        let ids = self.files_with(".log")?;
        let chain =
            Chain::walk(self.manifest, &*self.factory.storage, &ids, sealed_end, &mut info, |names, covered| {
                self.hint_of(names, covered)
            })?;
        if let Some(lost) = chain.lost {
            return Err(lost);
        }
        let next_id = ids.iter().map(|id| id.saturating_add(1)).max().unwrap_or(1).max(self.manifest.next_id);
        self.factory.next_id.store(next_id, std::sync::atomic::Ordering::Relaxed);
        if !self.options.read_only {
            self.clean_up(&ids, &chain, &mut info)?;
        }
        let log_end = chain.end;
        let mut appender_parts = Vec::new();
        for link in chain.links {
            sources.push(self.take_link(link, &mut appender_parts)?);
        }
        let (newest, rotten) = load::fill(&self.index, self.manifest.hash_seed, &mut sources, self.options.background)?;
        if !rotten.is_empty() {
            let ids = rotten.iter().map(|&i| sources[i].segment.id()).collect();
            return Ok(Outcome::RottenHints(ids, info));
        }
        info.rejected_hints += self.without_hint.len() as u64;
        let last_timestamp = newest.max(self.manifest.last_timestamp);
        if last_timestamp == i64::MAX {
            return Err(Error::new(Code::Corrupt, "a record has the last possible timestamp"));
        }
        let mut appender = Appender::new(Arc::clone(&self.factory), last_timestamp, log_end);
        self.hand_over(&mut appender, appender_parts);
        let engine = Engine::new(self.options, self.factory, self.index, self.manifest, appender, info, birthplace);
        Ok(Outcome::Opened(Box::new(engine)))
    }

    /// A segment whose every byte is known to be synced.
    fn take_sealed(&self, entry: &SegmentEntry, info: &mut RecoveryInfo) -> Result<Source> {
        let name = file_name(entry.id);
        let file =
            open(&*self.factory.storage, &name, false)?.ok_or_else(|| Error::corrupt(&name, 0, "the file is gone"))?;
        let (header, mut damaged) = known_header(&*file, entry)?;
        let file_len = file.len().map_err(|e| Error::os(format_args!("read {name}"), &e))?;
        let len = entry.synced_len.min(file_len);
        let cut_short = len < entry.synced_len;
        damaged |= cut_short;
        let io = self.factory.io(&*file, len, false);
        let segment = Arc::new(Segment::new(header, io, len, State::Sealed));
        segment.set_synced(entry.synced_len);
        let hint = self.hint_of((entry.id, entry.identity), entry.synced_len);
        segment.set_hinted(hint.is_some());
        let mut scanned = Vec::new();
        if hint.is_none() {
            if cut_short {
                return Err(chain::cut_off(&name, len));
            }
            info.rejected_hints += 1;
            let order = match entry.role {
                Role::Log => Order::Log { floor: entry.min_timestamp.saturating_sub(1) },
                Role::Output => Order::Output { ceiling: self.manifest.last_timestamp },
            };
            let rules = ScanRules { seed: self.manifest.hash_seed, order };
            let (scan, entries) = chain::scan(&name, &file, Extent::complete(len), &rules)?;
            if let Some(lost) = scan.lost {
                return Err(lost);
            }
            info.scanned_bytes += len;
            info.scanned_records += entries.len() as u64;
            info.damaged_records += scan.damaged;
            damaged |= scan.damaged > 0;
            scanned = entries;
        }
        if damaged {
            segment.quarantine();
        }
        let slot = self.index.add_segment(Arc::clone(&segment))?;
        Ok(Source::new(segment, slot, hint, scanned))
    }

    /// Where the newest sealed log segment ends, if there is one: where MANIFEST says, whatever has become of the file.
    fn sealed_log_end(&self, sources: &[Source]) -> Option<LogEnd> {
        let newest = sources.iter().map(|s| &s.segment).filter(|s| s.role() == Role::Log).max_by_key(|s| s.id())?;
        let crc = newest.log_end().map_or(0, |end| end.crc);
        Some(LogEnd { id: newest.id(), len: newest.synced(), crc })
    }

    fn hint_of(&self, segment: (u64, u64), covered: u64) -> Option<HintReader> {
        if self.without_hint.contains(&segment.0) {
            return None;
        }
        let hint = HintReader::open(&self.factory.storage, segment, self.manifest.hash_seed)?;
        (hint.covered() == covered).then_some(hint)
    }

    /// A segment of the chain, torn end apart.
    fn take_link(&self, link: Link, kept: &mut Vec<(OpenSegment, u32)>) -> Result<Source> {
        let name = file_name(link.header.id);
        let mut file = link.file;
        let appendable =
            link.last && link.damaged == 0 && link.end < self.options.segment_size && !self.options.read_only;
        if !self.options.read_only {
            file = open(&*self.factory.storage, &name, true)?
                .ok_or_else(|| Error::corrupt(&name, 0, "the file is gone"))?;
            rewrite(&*file, link.synced, link.end).map_err(|e| Error::os(format_args!("rewrite {name}"), &e))?;
        }
        if appendable {
            let reserved = self.factory.reserve_blocks(&*file, link.end);
            reserved.map_err(|e| Error::os(format_args!("reserve the blocks of {name}"), &e))?;
        }
        let map_len = if appendable { self.options.segment_size } else { link.end };
        let io = self.factory.io(&*file, map_len, appendable);
        let state = if appendable { State::Active } else { State::Rotated };
        let segment = Arc::new(Segment::new(link.header, io, link.end, state));
        segment.set_synced(link.synced);
        segment.set_listed(link.synced);
        segment.set_hinted(link.hint.is_some() && link.end == link.synced);
        if link.damaged > 0 {
            segment.quarantine();
        }
        let slot = self.index.add_segment(Arc::clone(&segment))?;
        kept.push((OpenSegment { segment: Arc::clone(&segment), file }, slot));
        Ok(Source::new(segment, slot, link.hint, link.scanned))
    }

    /// Gives the unsealed segments to the appender.
    fn hand_over(&self, appender: &mut Appender, kept: Vec<(OpenSegment, u32)>) {
        if self.options.read_only {
            return;
        }
        for (open, slot) in kept {
            // What a crash left may not have reached the disk: the first sync is to see to it.
            appender.appended |= (open.segment.len() > open.segment.synced()) as u64;
            if open.segment.state() == State::Active {
                appender.resume(open, slot);
            } else {
                appender.rotated.push(open);
            }
        }
    }

    /// Removes what is behind the end of the log, and what nobody needs.
    fn clean_up(&self, ids: &[u64], chain: &Chain, info: &mut RecoveryInfo) -> Result<()> {
        let storage = &*self.factory.storage;
        // The process that died may not have come to it. What MANIFEST no longer lists must not go before this
        // MANIFEST is durable, and what it does not know yet must not come before.
        storage.sync_dir().map_err(|e| Error::os("sync the directory", &e))?;
        let remove = |name: &str| storage.remove(name).map_err(|e| Error::os(format_args!("remove {name}"), &e));
        for id in &chain.behind {
            remove(&file_name(*id))?;
        }
        if !chain.behind.is_empty() {
            storage.sync_dir().map_err(|e| Error::os("sync the directory", &e))?;
        }
        for link in chain.links.iter().filter(|link| link.torn) {
            let name = file_name(link.header.id);
            let cut = |file: Arc<dyn File>| {
                file.set_len(link.end)?;
                file.sync()
            };
            let file = open(storage, &name, true)?.ok_or_else(|| Error::corrupt(&name, 0, "the file is gone"))?;
            cut(file).map_err(|e| Error::os(format_args!("cut the torn end of {name}"), &e))?;
        }
        if self.files()?.iter().any(|name| name == reserve::NAME) {
            self.factory.reserve.adopt(&*self.factory.storage);
        }
        for name in self.orphans(ids, chain)? {
            remove(&name)?;
            info.orphan_files += 1;
        }
        Ok(())
    }

    /// The files that are no part of the database.
    fn orphans(&self, ids: &[u64], chain: &Chain) -> Result<Vec<String>> {
        let live: HashSet<u64> = (self.manifest.segments.iter().filter(|e| e.sealed).map(|e| e.id))
            .chain(chain.links.iter().map(|l| l.header.id))
            .collect();
        let hints = self.files_with(".hint")?;
        let dead_logs = ids.iter().filter(|id| !live.contains(id) && !chain.behind.contains(id));
        let dead_hints = hints.iter().filter(|id| !live.contains(id));
        Ok(dead_logs.map(|id| file_name(*id)).chain(dead_hints.map(|id| hint::name(*id))).collect())
    }

    fn files(&self) -> Result<Vec<String>> {
        self.factory.storage.list().map_err(|e| Error::os("list the directory", &e))
    }

    /// The ids of the files with such an ending, in ascending order.
    fn files_with(&self, ending: &str) -> Result<Vec<u64>> {
        Ok(numbered(&self.files()?, ending))
    }
}

/// The ids of the names with such an ending, in ascending order.
pub(crate) fn numbered(names: &[String], ending: &str) -> Vec<u64> {
    let id = |name: &String| {
        let digits = name.strip_suffix(ending)?;
        let id = digits.parse().ok()?;
        (format!("{id:010}") == digits).then_some(id)
    };
    let mut ids: Vec<u64> = names.iter().filter_map(id).collect();
    ids.sort_unstable();
    ids
}

/// Writes the bytes of a file between two offsets once more. After a sync that failed, the system may take pages for
/// written that are not; what has been read here must be what the next sync makes durable.
fn rewrite(file: &dyn File, mut from: u64, to: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; (to.saturating_sub(from)).min(1 << 20) as usize];
    while from < to {
        let piece = &mut buffer[..(to - from).min(1 << 20) as usize];
        read_exact_at(file, piece, from)?;
        write_all_at(file, piece, from)?;
        from += piece.len() as u64;
    }
    Ok(())
}

/// Opens a file that may not exist.
pub(crate) fn open(storage: &dyn Storage, name: &str, write: bool) -> Result<Option<Arc<dyn File>>> {
    match storage.open(name, write) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::os(format_args!("open {name}"), &e)),
    }
}

/// Reads a segment's header; `None` if it is torn or rotten.
pub(crate) fn read_header(name: &str, file: &dyn File) -> Result<Option<Header>> {
    let mut bytes = [0; HEADER_LEN];
    match read_exact_at(file, &mut bytes, 0) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other.map_err(|e| Error::os(format_args!("read {name}"), &e))?,
    }
    match Header::decode(&bytes) {
        Ok(header) => Ok(Some(header)),
        Err(HeaderError::Damaged) => Ok(None),
        Err(HeaderError::Unknown(what)) => Err(Error::new(Code::Format, format!("{name}: {what}"))),
    }
}

/// The header of a segment that MANIFEST lists, and whether it is damaged: then MANIFEST has to do.
pub(crate) fn known_header(file: &dyn File, entry: &SegmentEntry) -> Result<(Header, bool)> {
    let name = file_name(entry.id);
    let expected = Header { id: entry.id, identity: entry.identity, role: entry.role, predecessor: LogEnd::default() };
    match read_header(&name, file)? {
        None => Ok((expected, true)),
        Some(header) if Header { predecessor: LogEnd::default(), ..header } == expected => Ok((header, false)),
        Some(_) => Err(Error::corrupt(&name, 0, "this is another segment than the manifest lists")),
    }
}

/// The bytes that a segment holds beyond `end`, padding of zeros apart.
pub(crate) fn bytes_beyond(name: &str, file: &dyn File, end: u64) -> Result<u64> {
    Ok(end_of_data(name, file, end)? - end)
}
