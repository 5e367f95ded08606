//! Checkpoints: the store as it is at one moment, as a database of its own, made beside reads and writes.
//!
//! The bytes of a sealed segment never change again, so the checkpoint shares its file: a hard link. Where there is none
//! to be had, between file systems, it is copied, or linked to an older checkpoint that has it. What is not sealed is
//! always copied, as a segment with an identity of its own: the store goes on appending to its file, and after a crash
//! may even cut it.
//!
//! The checkpoint lists all segments as sealed. It appends to a segment of its own, so nothing that either side does
//! later reaches the other.
//!
//! It is a database once MANIFEST has its name, which is the last thing to happen. Until then the directory is marked
//! by the name that MANIFEST has before.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::chain::{self, Extent, Order, ScanRules};
use crate::engine::{Engine, Store, manifest_entry};
use crate::error::{Code, Error, Result};
use crate::log::header::{HEADER_LEN, Header};
use crate::log::hint;
use crate::log::manifest::{self, Manifest, SegmentEntry};
use crate::log::segment::{Segment, file_name};
use crate::log::spill::Spill;
use crate::progress::Progress;
use crate::recovery::{LOCK, known_header};
use crate::storage::real::{RealStorage, create_dir, remove_dir};
use crate::storage::{Storage, read_exact_at, write_all_at};

/// The name of the manifest while the checkpoint is being made.
pub(crate) const UNFINISHED: &str = "CHECKPOINT";
/// Files are copied in pieces of this.
const PIECE: u64 = 1 << 20;

impl Store {
    /// Makes a checkpoint of the store in the directory `path`, which must not exist.
    pub fn checkpoint(&self, path: &Path) -> Result<()> {
        self.checkpoint_with(path, None, &mut Progress::new(&mut |_, _| true))
    }

    /// As `checkpoint`, sharing files with the older checkpoint `base`, and telling how far it has come.
    pub fn checkpoint_with(&self, path: &Path, base: Option<&Path>, progress: &mut Progress<'_>) -> Result<()> {
        self.check_process()?;
        let named = |path: &Path, e: Error| Error::new(e.code(), format!("{}: {}", path.display(), e.message()));
        let open = |path: &Path| -> Result<Arc<dyn Storage>> {
            Ok(Arc::new(RealStorage::open(path).map_err(|e| Error::os("open the directory", &e))?))
        };
        let read_base = |path: &Path| open(path).and_then(Base::read).map_err(|e| named(path, e));
        let base = base.map(read_base).transpose()?;
        create_dir(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Error::new(Code::Exists, format!("{} exists", path.display())),
            _ => Error::os(format_args!("create {}", path.display()), &e),
        })?;
        let made = open(path).and_then(|target| self.engine.checkpoint(&*target, base.as_ref(), progress));
        made.map_err(|e| {
            remove_dir(path);
            named(path, e)
        })
    }
}

/// An older checkpoint.
pub(crate) struct Base {
    storage: Arc<dyn Storage>,
    sealed: HashMap<u64, SegmentEntry>,
}

impl Base {
    pub(crate) fn read(storage: Arc<dyn Storage>) -> Result<Base> {
        let manifest = Manifest::read(&*storage)?;
        let manifest = manifest.ok_or_else(|| Error::new(Code::NotADatabase, "the base is not a database"))?;
        let sealed = manifest.segments.into_iter().filter(|e| e.sealed).map(|e| (e.id, e)).collect();
        Ok(Base { storage, sealed })
    }

    /// Whether it has this very segment. The name alone would not tell, nor would it with the length.
    fn has(&self, entry: &SegmentEntry) -> bool {
        let same =
            |e: &&SegmentEntry| (e.identity, e.role, e.synced_len) == (entry.identity, entry.role, entry.synced_len);
        let file =
            self.sealed.get(&entry.id).filter(same).and_then(|e| self.storage.open(&file_name(e.id), false).ok());
        file.is_some_and(|file| {
            file.len().is_ok_and(|len| len == entry.synced_len)
                && known_header(&*file, entry).is_ok_and(|(_, damaged)| !damaged)
        })
    }
}

/// A segment as the checkpoint is to have it.
struct Part {
    /// Kept, so that compaction does not unlink the file.
    segment: Arc<Segment>,
    entry: SegmentEntry,
    /// Bytes in its file.
    len: u64,
    hinted: bool,
}

impl Engine {
    /// Makes a checkpoint in an empty directory. After an error, nothing is left there.
    pub(crate) fn checkpoint(
        &self,
        target: &dyn Storage,
        base: Option<&Base>,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        // Whoever opens the directory meanwhile must not take it for a place to create a database in.
        let taken = || Error::new(Code::Exists, "the new directory was taken by another at the same time");
        let locked = target.lock(false);
        if locked.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock) {
            return Err(taken());
        }
        let locked = locked.and_then(|()| target.list()).map_err(|e| Error::os("lock the new directory", &e));
        let mut making = Making { source: &self.storage, base, target, made: Vec::new() };
        let made = match &locked {
            Ok(names) if names.iter().any(|name| name != LOCK) => {
                target.unlock();
                return Err(taken());
            }
            Ok(_) => self.capture().and_then(|(manifest, parts)| making.run(&manifest, &parts, progress)),
            Err(e) => Err(e.clone()),
        };
        if made.is_err() {
            making.clear();
        }
        target.unlock();
        made.inspect(|()| progress.finish())
    }

    /// What the checkpoint is to be: everything that has been acknowledged.
    fn capture(&self) -> Result<(Manifest, Vec<Part>)> {
        let _demand = self.maintenance.demand();
        let mut maintainer = self.maintenance.lock();
        if self.options.read_only {
            // Whoever wrote the database may have died before it was durable what is sealed.
            self.storage.sync_dir().map_err(|e| Error::os("sync the directory", &e))?;
        } else {
            // What cannot be sealed is copied.
            let _ = maintainer.sync_and_seal(self);
        }
        let (last_timestamp, next_id, mut parts) = {
            let appender = self.appender()?;
            let part = |segment: &Arc<Segment>| Part {
                segment: Arc::clone(segment),
                entry: manifest_entry(segment),
                len: segment.len(),
                hinted: segment.hinted(),
            };
            let parts: Vec<_> = self.index.segments().iter().map(part).collect();
            (appender.last_timestamp, self.factory.next_id.load(Relaxed), parts)
        };
        drop(maintainer);
        parts.retain(|part| part.entry.sealed || part.len > HEADER_LEN as u64);
        parts.sort_by_key(|part| part.entry.id);
        for Part { entry, len, hinted, .. } in parts.iter_mut().filter(|part| !part.entry.sealed) {
            let identity = self.storage.random().map_err(|e| Error::os("get random bytes", &e))?;
            *entry = SegmentEntry { identity, sealed: true, synced_len: *len, ..*entry };
            *hinted = false;
        }
        let segments = parts.iter().map(|part| part.entry).collect();
        let manifest = Manifest { generation: 1, hash_seed: self.hash_seed, next_id, last_timestamp, segments };
        Ok((manifest, parts))
    }
}

/// A checkpoint in the making.
struct Making<'a> {
    source: &'a Arc<dyn Storage>,
    base: Option<&'a Base>,
    target: &'a dyn Storage,
    /// The files made so far, in this order.
    made: Vec<String>,
}

impl Making<'_> {
    fn run(&mut self, manifest: &Manifest, parts: &[Part], progress: &mut Progress<'_>) -> Result<()> {
        progress.start(parts.iter().map(|part| part.len).sum())?;
        self.made.push(UNFINISHED.to_owned());
        let written = manifest.write_as(self.target, UNFINISHED).and_then(|file| file.sync());
        written.map_err(|e| self.failed("write", UNFINISHED, &e))?;
        for part in parts {
            self.bring(part, manifest.hash_seed, progress)?;
        }
        let named = (self.target.sync_dir())
            .and_then(|()| self.target.rename(UNFINISHED, manifest::NAME))
            .and_then(|()| self.target.sync_dir());
        named.map_err(|e| self.failed("name", manifest::NAME, &e))
    }

    /// Brings a segment and its hint.
    fn bring(&mut self, part: &Part, seed: [u64; 2], progress: &mut Progress<'_>) -> Result<()> {
        let (name, hint) = (part.segment.name(), hint::name(part.entry.id));
        if part.segment.identity() != part.entry.identity {
            let header = Header { identity: part.entry.identity, ..*part.segment.header() };
            self.copy(name, part.len, Some(&header), &mut |bytes| progress.advance(bytes))?;
            return self.verify(part, seed);
        }
        let in_base = self.base.filter(|base| base.has(&part.entry));
        if self.link(name, in_base) {
            progress.advance(part.len)?;
        } else {
            self.copy(name, part.len, None, &mut |bytes| progress.advance(bytes))?;
        }
        // Without it, the first to open the checkpoint reads the segment instead.
        if part.hinted && !self.link(&hint, in_base) {
            let len = self.source.open(&hint, false).and_then(|file| file.len());
            let copied = len.is_ok_and(|len| self.copy(&hint, len, None, &mut |_| Ok(())).is_ok());
            if !copied {
                let _ = self.target.remove(&hint);
            }
        }
        Ok(())
    }

    /// Shares a file, if that can be.
    fn link(&mut self, name: &str, in_base: Option<&Base>) -> bool {
        let sources = [Some(self.source), in_base.map(|base| &base.storage)];
        let linked = sources.into_iter().flatten().any(|source| self.target.link_from(source, name).is_ok());
        if linked {
            self.made.push(name.to_owned());
        }
        linked
    }

    /// Copies the first `len` bytes of a file, with another header if one is given.
    fn copy(
        &mut self,
        name: &str,
        len: u64,
        header: Option<&Header>,
        done: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let unread = |e| Error::os(format_args!("read {name}"), &e);
        // By system calls: a page of a map that cannot be read would be a signal.
        let from = self.source.open(name, false).map_err(unread)?;
        self.made.push(name.to_owned());
        let to = self.target.create(name).map_err(|e| self.failed("create", name, &e))?;
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(len.min(PIECE) as usize).map_err(|_| Error::no_memory("a checkpoint"))?;
        let mut at = 0;
        while at < len {
            buffer.resize((len - at).min(PIECE) as usize, 0);
            read_exact_at(&*from, &mut buffer, at).map_err(unread)?;
            if let (0, Some(header)) = (at, header) {
                buffer[..HEADER_LEN].copy_from_slice(&header.encode()?);
            }
            write_all_at(&*to, &buffer, at).map_err(|e| self.failed("write", name, &e))?;
            at += buffer.len() as u64;
            done(buffer.len() as u64)?;
        }
        to.sync().map_err(|e| self.failed("sync", name, &e))
    }

    /// Reads the copy of the end of the log back, and makes its hint. After a sync that failed, say, the system may have
    /// forgotten what was written.
    fn verify(&mut self, part: &Part, seed: [u64; 2]) -> Result<()> {
        let (name, len) = (part.segment.name(), part.len);
        let file = self.target.open(name, false).map_err(|e| self.failed("open", name, &e))?;
        let rules = ScanRules { seed, order: Order::Log { floor: i64::MIN } };
        self.made.push(hint::name(part.entry.id));
        let mut entries = Spill::new(self.target, (part.entry.id, part.entry.identity));
        let scan = chain::visit(name, &file, Extent::complete(len), &rules, &mut |entry| {
            entries.push(entry);
            Ok(())
        })?;
        if scan.damaged > 0 {
            // What is known to be damaged is to be as damaged in the checkpoint.
            let known = part.segment.quarantined();
            return if known { Ok(()) } else { Err(Error::corrupt(name, 0, "a record in it cannot be read")) };
        }
        if entries.write_hint(len, seed).is_err() {
            let _ = self.target.remove(&hint::name(part.entry.id));
        }
        Ok(())
    }

    /// Removes what has been made, first what makes it a database: MANIFEST must not outlive what it lists.
    fn clear(&self) {
        if self.target.remove(manifest::NAME).is_ok() && self.target.sync_dir().is_err() {
            return;
        }
        for name in self.made.iter().rev().map(String::as_str).chain([LOCK]) {
            let _ = self.target.remove(name);
        }
    }

    fn failed(&self, doing: &str, name: &str, error: &std::io::Error) -> Error {
        Error::os(format_args!("{doing} {name} of the checkpoint"), error)
    }
}
