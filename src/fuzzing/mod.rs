//! What the fuzzers call: each function takes any bytes and panics where a promise is broken. The fuzzers themselves are a
//! crate of their own, in `crate/`; the inputs that they found to be worth keeping are in `corpus/`, and the tests replay
//! those.

use std::sync::Arc;

use crate::log::header::{HEADER_LEN, Header};
use crate::log::hint::HintReader;
use crate::log::manifest::{self, Manifest};
use crate::log::record::{DataFileEntry, encode_record};
use crate::log::scan::{Item, Scanner};
use crate::progress::Progress;
use crate::storage::Storage;
use crate::storage::sim::{PageMode, SimStorage};
use crate::{Code, IoPath, IterOptions, Options, Store};

/// The files that a directory of arbitrary content may have, by number.
pub(crate) const NAMES: [&str; 8] = [
    manifest::NAME,
    "0000000001.log",
    "0000000002.log",
    "0000000003.log",
    "0000000001.hint",
    "0000000002.hint",
    "0000000003.hint",
    manifest::TEMP_NAME,
];
const LOG: &str = NAMES[1];
const HINT: &str = NAMES[4];
/// In the number of a file: its checksums are to be put right.
pub(crate) const FIX: u8 = 0x80;

/// The functions, by the names of their targets.
pub const TARGETS: [(&str, Target); 5] =
    [("open", open), ("records", records), ("manifest", manifest), ("hint", hint), ("import", import)];

/// What is fuzzed, with any bytes.
pub type Target = fn(&[u8]);

/// A directory: a byte of options, then files, each its number, its length in two bytes, and its content.
pub fn open(input: &[u8]) {
    let Some((choices, mut rest)) = input.split_first() else { return };
    let sim = SimStorage::new(1, PageMode::Page);
    while let [number, low, high, after @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (content, next) = after.split_at(len);
        let (name, mut content) = (NAMES[usize::from(number & 7)], content.to_vec());
        if number & FIX != 0 {
            fix(name, &mut content, || true);
        }
        sim.put_file(name, &content);
        rest = next;
    }
    let options = Options {
        segment_size: 4 << 10,
        compact_threshold: 1 << 20,
        background: false,
        io: if choices & 1 == 0 { IoPath::Auto } else { IoPath::Syscall },
        read_only: choices & 2 != 0,
        ..Options::default()
    };
    decode(&sim);
    let done = exercise(&sim, &options);
    assert_eq!((done, sim.violation()), (Ok(()), None));
}

/// The frames of a segment. What is read as a record is what would have been written for it.
pub fn records(input: &[u8]) {
    let sim = SimStorage::new(1, PageMode::Page);
    let mut bytes = vec![0; HEADER_LEN];
    let (fixed, frames) = input.split_first().map_or((false, input), |(first, rest)| (first & 1 != 0, rest));
    bytes.extend_from_slice(frames);
    if fixed {
        fix(LOG, &mut bytes, || true);
    }
    sim.put_file(LOG, &bytes);
    let mut scanner = scanner(&sim, LOG);
    let (mut at, mut rests) = (0, 0);
    loop {
        match scanner.next() {
            Ok(Item::Record { offset, len, head }) => {
                let record = &bytes[offset as usize..(offset + len) as usize];
                let value = head.value_len.map(|_| &record[head.value_at()..record.len() - 4]);
                let mut again = vec![0; record.len()];
                encode_record(&DataFileEntry { timestamp: head.timestamp, key: head.key, value }, &mut again)
                    .expect("what was read can be written");
                assert_eq!(again, record);
            }
            Ok(Item::Mark(offset)) => assert!(offset <= scanner.at()),
            Ok(Item::Bad(_)) => drop(scanner.skip_bad().expect("a readable file")),
            Ok(Item::End) | Err(_) => break,
        }
        // It may rest once: to leave a damaged batch behind.
        rests = if scanner.at() > at { 0 } else { rests + 1 };
        assert!(rests < 2, "the scanner does not move");
        at = scanner.at();
    }
    decode(&sim);
}

/// MANIFEST. What is read is what would have been written.
pub fn manifest(input: &[u8]) {
    let sim = SimStorage::new(1, PageMode::Page);
    let Some((choices, content)) = input.split_first() else { return };
    let mut content = content.to_vec();
    if choices & 1 != 0 {
        fix(manifest::NAME, &mut content, || true);
    }
    sim.put_file(manifest::NAME, &content);
    if let Ok(Some(read)) = Manifest::read(&sim) {
        read.write_temp(&sim).expect("what was read can be written");
        assert_eq!(sim.read_file(manifest::TEMP_NAME).as_deref(), Some(&content[..]));
    }
}

/// A hint, read as that of the segment that it says to be of.
pub fn hint(input: &[u8]) {
    let sim = SimStorage::new(1, PageMode::Page);
    let Some((choices, content)) = input.split_first() else { return };
    let mut content = content.to_vec();
    if choices & 1 != 0 {
        fix(HINT, &mut content, || true);
    }
    sim.put_file(HINT, &content);
    decode(&sim);
}

/// A log of the reference engine. Importing it again changes nothing, whether it could be read to its end or not.
pub fn import(input: &[u8]) {
    let other = SimStorage::new(2, PageMode::Page);
    other.put_file("old.log", input);
    let sim = SimStorage::new(1, PageMode::Page);
    let options = Options { background: false, ..Options::default() };
    let store = Store::open_on(Arc::new(sim.clone()), &options).expect("a new store");
    let run = || {
        let file = other.open("old.log", false).expect("the file");
        let done = store.import_from("old.log", &file, &mut Progress::new(&mut |_, _| true));
        let mut items = store.iter(IterOptions { sorted: true, ..IterOptions::default() }).expect("an iterator");
        let mut content = Vec::new();
        while let Some((key, value)) = items.next().expect("an intact store") {
            content.push((key.to_vec(), value.to_vec()));
        }
        (done.map(|report| report.totals.written_records).map_err(|e| e.code()), content)
    };
    let first = run();
    assert!(first.1.iter().map(|(key, value)| 33 + key.len() + value.len()).sum::<usize>() <= input.len());
    assert_eq!(run(), first);
}

/// Puts the checksum right behind the first `len` bytes.
fn close_with_crc(bytes: &mut [u8], from: usize, len: usize) {
    if let Some(body) = bytes.get(from..from + len) {
        let crc = crc32c::crc32c(body).to_le_bytes();
        bytes[from + len..].iter_mut().zip(crc).for_each(|(byte, crc)| *byte = crc);
    }
}

/// Puts the checksums of a file right, so that the fields behind them are reached. Of a log, those of the frames that are
/// wanted; the records of a batch first.
pub(crate) fn fix(name: &str, bytes: &mut [u8], mut wanted: impl FnMut() -> bool) {
    if !name.ends_with(".log") {
        let body = bytes.len().saturating_sub(4);
        return close_with_crc(bytes, 0, body);
    }
    close_with_crc(bytes, 0, HEADER_LEN - 4);
    fix_frames(bytes, HEADER_LEN, &mut wanted);
}

fn fix_frames(bytes: &mut [u8], mut at: usize, wanted: &mut impl FnMut() -> bool) {
    while let Some(prefix) = bytes.get(at..at + 8) {
        let prefix = u64::from_le_bytes(prefix.try_into().expect("eight bytes"));
        let payload = usize::try_from(prefix & ((1 << 48) - 1)).unwrap_or(usize::MAX);
        let Some(body) = payload.checked_add(8).filter(|body| body + 4 <= bytes.len() - at) else { return };
        if prefix >> 63 != 0 {
            let mut payload = bytes[at + 8..at + body].to_vec();
            if payload.first_chunk::<8>().is_none_or(|first| first[7] & 0x80 == 0) {
                fix_frames(&mut payload, 0, wanted);
            }
            bytes[at + 8..at + body].copy_from_slice(&payload);
        }
        if wanted() {
            close_with_crc(bytes, at, body);
        }
        at += body + 4;
    }
}

/// Opens a database and does a bit of everything. Errors are fine, as long as they are those of damaged data.
pub(crate) fn exercise(sim: &SimStorage, options: &Options) -> Result<(), String> {
    let damage = [Code::Corrupt, Code::Format, Code::Io, Code::NoMemory, Code::NotADatabase];
    let judge = |what: &str, done: crate::Result<()>| match done {
        Err(e) if !damage.contains(&e.code()) => Err(format!("{what}: {:?}: {e}", e.code())),
        _ => Ok(()),
    };
    let store = match Store::open_on(Arc::new(sim.clone()), options) {
        Ok(store) => store,
        Err(e) => return judge("open", Err(e)),
    };
    for key in (0..13).map(|n| format!("key {n}").into_bytes()) {
        judge("get", store.get(&key).map(drop))?;
        judge("exists", store.exists(&key).map(drop))?;
    }
    if !options.read_only {
        judge("set", store.set(b"key 1", &[1; 50]))?;
        judge("del", store.del(b"key 2").map(drop))?;
        judge("compact", store.compact())?;
        judge("get", store.get(b"key 3").map(drop))?;
    }
    store.stats();
    judge("close", store.close())
}

/// The decoders by themselves, which opening does not always come to.
pub(crate) fn decode(sim: &SimStorage) {
    let _ = Manifest::read(sim);
    for name in sim.files() {
        let bytes = sim.read_file(&name).unwrap_or_default();
        if let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
            let _ = Header::decode(head);
        }
        let Some(Ok(id)) = name.split_once('.').map(|(id, _)| id.parse::<u64>()) else { continue };
        let word =
            |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b: &[u8; 8]| u64::from_le_bytes(*b));
        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
        if name.ends_with(".hint")
            && let Some(mut hint) = HintReader::open(&storage, (id, word(16)), [word(32), word(40)])
        {
            while let Ok(Some(_)) = hint.peek() {
                hint.advance();
            }
            let _ = hint.finish();
        }
        if name.ends_with(".log") {
            let mut scanner = scanner(sim, &name);
            for _ in 0..=bytes.len() {
                match scanner.next() {
                    Ok(Item::Bad(_)) => drop(scanner.skip_bad().expect("a readable file")),
                    Ok(Item::End) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            let _ = self::scanner(sim, &name).last_mark();
        }
    }
}

fn scanner(sim: &SimStorage, name: &str) -> Scanner {
    let file = sim.open(name, false).expect("a file");
    let end = file.len().expect("a length");
    Scanner::new(name, file, HEADER_LEN as u64, end).expect("memory")
}
