//! Proving overwrites that were taken on trust: that the older record was of the same key.

use crate::engine::Engine;
use crate::error::Result;
use crate::index::{KeyHash, MOST_ON_TRUST, Overwrite, Position, Segments, Shard, Trust};
use crate::log::record::{self, key_end};
use crate::prefetch::prefetch;

/// Where in a record most keys have ended.
const KEY_SOON: usize = key_end(24) as usize;

impl Engine {
    /// Proves all that is on trust, shard by shard: then all garbage is counted that was there.
    pub(crate) fn prove_all(&self) -> Result<()> {
        self.index.on_trust().try_for_each(|shard| self.prove(&mut *shard?))
    }

    /// Proves what is on trust in a key's shard if that is `due`.
    #[inline]
    pub(crate) fn prove_if(&self, hash: KeyHash, due: impl Fn(&Trust) -> bool) -> Result<()> {
        if due(self.index.read(hash)?.trust()) {
            self.prove(&mut *self.index.write(hash)?)?;
        }
        Ok(())
    }

    /// Looks at the older records of all overwrites of a shard that are on trust: counts them as garbage, or gives them back
    /// their entries. After an error some may still be on trust.
    pub(crate) fn prove(&self, shard: &mut Shard) -> Result<()> {
        if shard.trust().overwrites().is_empty() {
            return Ok(());
        }
        let lens = self.garbage_lens(shard.segments(), shard.trust().overwrites())?;
        let (mut proven, mut garbage, mut result) = (0, 0, Ok(()));
        while result.is_ok() && proven < shard.trust().overwrites().len() {
            let Overwrite { hash, old, .. } = shard.trust().overwrites()[proven];
            result = match lens[proven] {
                Some(len) => {
                    garbage += len;
                    shard.segment(old).map(|segment| segment.add_dead(len))
                }
                None => shard.reserve(hash).map(|()| shard.insert(hash, old)),
            };
            proven += result.is_ok() as usize;
        }
        shard.end_trust(proven);
        self.maintenance.note_garbage(garbage);
        result
    }

    /// What [`Engine::garbage_len`] is of each overwrite.
    fn garbage_lens(&self, segments: &Segments, overwrites: &[Overwrite]) -> Result<[Option<u64>; MOST_ON_TRUST]> {
        let (mut records, mut lens) = ([Records::default(); MOST_ON_TRUST], [None; MOST_ON_TRUST]);
        let bytes_at = |at: Position| Ok(segments.get(at.slot())?.mapped_from(at.offset()).unwrap_or_default());
        for (records, overwrite) in records.iter_mut().zip(overwrites) {
            *records = Records { old: bytes_at(overwrite.old)?, new: bytes_at(overwrite.new)? };
        }
        let records = &records[..overwrites.len()];
        ask_for_keys(records);
        for (number, len) in lens.iter_mut().enumerate().take(overwrites.len()) {
            *len = self.garbage_len(&overwrites[number..], &records[number..]);
        }
        Ok(lens)
    }

    /// The length of the older record of the first of these overwrites if it is garbage, 0 if it is damaged; `None` if it is
    /// needed: it is of another key, and that has not been overwritten later.
    #[inline]
    fn garbage_len(&self, overwrites: &[Overwrite], records: &[Records<'_>]) -> Option<u64> {
        let hash = overwrites[0].hash;
        let frame = record::first_record(records[0].old).unwrap_or_default();
        let Some((key, _)) = record::parts(frame) else { return Some(0) };
        let fits = |key: &[u8]| self.hash(key).same_entry(hash);
        // A key that does not go with its entry is damaged. It may well have been the same.
        let of_same_key = |(by, records): (&Overwrite, &Records<'_>)| {
            by.hash.same_entry(hash) && key_of(records.new).is_none_or(|new| new == key || !fits(new))
        };
        if overwrites.iter().zip(records).any(of_same_key) {
            Some(frame.len() as u64)
        } else if fits(key) {
            None
        } else {
            Some(0)
        }
    }
}

/// The bytes that begin with the records of an overwrite.
#[derive(Clone, Copy, Default)]
struct Records<'a> {
    old: &'a [u8],
    new: &'a [u8],
}

/// Asks for the keys of all these records in a row: the processor walks the page tables for as many of them at once as fit
/// between those instructions that it has not finished.
fn ask_for_keys(records: &[Records<'_>]) {
    for bytes in records.iter().flat_map(|records| [records.old, records.new]) {
        prefetch(bytes.as_ptr());
        prefetch(bytes.as_ptr().wrapping_add(KEY_SOON - 1));
    }
}

/// The key of the record that these bytes begin with.
fn key_of(bytes: &[u8]) -> Option<&[u8]> {
    record::parts(record::first_record(bytes)?).map(|(key, _)| key)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    use crate::compact::{Job, Progress};
    use crate::error::Code;
    use crate::log::record::KEY_AT;
    use crate::model_tests::Rng;
    use crate::storage::sim::{Calls, FaultPlan, PageMode, SimStorage};
    use crate::{Batch, IterOptions, Options, Store};

    /// Pairs of keys that the index cannot tell apart.
    pub(crate) fn colliding_keys(store: &Store) -> Vec<[[u8; 8]; 2]> {
        let mut hashes: Vec<_> = (0..1_500_000u64).map(|n| (store.engine.hash(&n.to_le_bytes()), n)).collect();
        hashes.sort_unstable();
        let pairs = hashes.windows(2).filter(|pair| pair[0].0.same_entry(pair[1].0));
        let pairs: Vec<_> = pairs.map(|pair| [pair[0].1.to_le_bytes(), pair[1].1.to_le_bytes()]).collect();
        assert!(!pairs.is_empty());
        pairs
    }

    fn store(seed: u64) -> Store {
        let options = Options { background: false, ..Options::default() };
        Store::open_on(Arc::new(SimStorage::new(seed, PageMode::Page)), &options).unwrap()
    }

    fn on_trust(store: &Store) -> usize {
        store.engine.index.on_trust().map(|shard| shard.unwrap().trust().overwrites().len()).sum()
    }

    /// Has one key that looks like another hide that. Returns both, the hidden one first.
    fn hide(store: &Store) -> [[u8; 8]; 2] {
        let [hidden, hiding] = colliding_keys(store)[0];
        store.engine.warm.store(true, Relaxed);
        store.set(&hidden, b"value").unwrap();
        store.set(&hiding, b"hides it").unwrap();
        assert_eq!(on_trust(store), 1);
        [hidden, hiding]
    }

    type Model = BTreeMap<[u8; 8], Vec<u8>>;

    fn check(store: &Store, keys: &[[u8; 8]], model: &Model, how: u64) {
        let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
        let slices: Vec<_> = keys.iter().map(|key| &key[..]).collect();
        let seen: Vec<_> = match how % 4 {
            0 => slices.iter().map(|key| store.get(key).unwrap()).collect(),
            1 => {
                let mut values = Vec::new();
                let ranges = store.get_many(&slices, &mut values).unwrap();
                ranges.into_iter().map(|range| range.map(|range| values[range].to_vec())).collect()
            }
            2 => {
                let snapshot = store.snapshot().unwrap();
                slices.iter().map(|key| snapshot.get(key).unwrap().map(<[u8]>::to_vec)).collect()
            }
            _ => {
                assert_eq!(store.stats().keys, model.len() as u64);
                let mut iter = store.iter(IterOptions::default()).unwrap();
                let mut found = Model::new();
                while let Some((key, value)) = iter.next().unwrap() {
                    assert!(found.insert(key.try_into().unwrap(), value.to_vec()).is_none(), "a key comes twice");
                }
                assert_eq!(&found, model);
                slices.iter().zip(&expected).for_each(|(k, v)| assert_eq!(store.exists(k).unwrap(), v.is_some()));
                return;
            }
        };
        assert_eq!(seen, expected, "by {}", how % 4);
    }

    #[test]
    fn overwrites_on_trust_lose_no_key_that_looks_alike() {
        let disk = SimStorage::new(7, PageMode::Page);
        let options =
            Options { background: false, segment_size: 16 << 10, compact_threshold: 32 << 10, ..Options::default() };
        let open = || Store::open_on(Arc::new(disk.handle()), &options).unwrap();
        let mut store = open();
        let keys: Vec<_> = colliding_keys(&store).concat();
        let (mut rng, mut model, mut most) = (Rng(3), Model::new(), 0);
        for step in 0..30_000u64 {
            let key = keys[rng.below(keys.len() as u64) as usize];
            let value = vec![step as u8; rng.below(200) as usize];
            match rng.below(400) {
                0..300 => {
                    store.set(&key, &value).unwrap();
                    model.insert(key, value);
                }
                300..320 => assert_eq!(store.del(&key).unwrap(), model.remove(&key).is_some()),
                320..330 => {
                    let absent = !model.contains_key(&key);
                    assert_eq!(store.set_if_absent(&key, &value).unwrap(), absent);
                    model.entry(key).or_insert(value);
                }
                330..340 => {
                    if let Some(old) = model.get_mut(&key) {
                        assert!(store.replace_if(&key, old, &value).unwrap());
                        *old = value;
                    }
                }
                340..350 => {
                    let (mut batch, gone) = (Batch::new(), keys[rng.below(keys.len() as u64) as usize]);
                    batch.set(&key, &value).unwrap();
                    batch.del(&gone).unwrap();
                    assert!(store.write(&batch).unwrap());
                    model.insert(key, value);
                    model.remove(&gone);
                }
                350 => store.compact().unwrap(),
                351..353 => drop(store.maintain(5000).unwrap()),
                353 => {
                    store.close().unwrap();
                    store = open();
                }
                _ => check(&store, &keys, &model, rng.next()),
            }
            most = most.max(on_trust(&store));
        }
        (0..4).for_each(|how| check(&store, &keys, &model, how));
        assert!(most > 10, "hardly anything was taken on trust");
        assert_eq!(disk.violation(), None);
    }

    #[test]
    fn a_hidden_key_can_be_set_when_trust_has_ended() {
        let store = store(7);
        let [a, b] = hide(&store);
        (0..20u8).for_each(|n| store.set(&[n], b"").unwrap());
        assert!(store.engine.fresh.lasts());
        store.engine.warm.store(false, Relaxed);
        store.set(&a, b"new").unwrap();
        assert_eq!(store.get(&a).unwrap().unwrap(), b"new");
        assert_eq!(store.get(&b).unwrap().unwrap(), b"hides it");
        assert_eq!(store.stats().keys, 22);
    }

    #[test]
    fn a_hidden_key_is_found_where_a_segment_is_read_by_calls() {
        for rotated_before in [true, false] {
            let disk = SimStorage::new(7, PageMode::Page);
            let options = Options { background: false, segment_size: 8 << 10, ..Options::default() };
            let store = Store::open_on(Arc::new(disk.clone()), &options).unwrap();
            let [a, b] = hide(&store);
            if rotated_before {
                store.engine.appender().unwrap().rotate().unwrap();
            }
            disk.fail(FaultPlan { at: 0, errno: libc::ENOMEM, persistent: true, calls: Calls::MAP });
            // Or else it would have everything proven.
            let maintenance_waits = store.engine.maintenance.lock();
            // Too large for the segment if there is one.
            let value = vec![1; if rotated_before { 100 } else { 8000 }];
            store.set(&b, &value).unwrap();
            assert!(!store.engine.appender().unwrap().stores_to_map());
            assert_eq!(store.get(&a).unwrap().unwrap(), b"value");
            assert_eq!(store.get(&b).unwrap().unwrap(), value);
            drop(maintenance_waits);
        }
    }

    #[test]
    fn a_batch_believes_in_no_hidden_record_that_has_been_given_up() {
        let store = store(7);
        let [a, b] = colliding_keys(&store)[0];
        store.engine.warm.store(true, Relaxed);
        store.set(&a, b"value").unwrap();
        let damaged = store.stats().log_bytes + KEY_AT as u64;
        store.set(&b, b"hides it").unwrap();
        let file = store.engine.appender.lock().unwrap().active().unwrap().file.clone();
        file.write_at(b"XX", damaged).unwrap();
        store.set(&b, b"hides it, too").unwrap();
        assert_eq!(on_trust(&store), 2);
        let mut batch = Batch::new();
        batch.set(&a, b"new").unwrap();
        assert!(store.write(&batch).unwrap());
        assert_eq!(store.get(&a).unwrap().unwrap(), b"new");
        assert_eq!(store.get(&b).unwrap().unwrap(), b"hides it, too");
        assert_eq!(store.stats().keys, 2);
    }

    #[test]
    fn a_hidden_key_outlives_what_hides_it() {
        let store = store(7);
        for warm in [true, false] {
            let [a, b] = hide(&store);
            store.engine.warm.store(warm, Relaxed);
            assert!(store.del(&b).unwrap());
            assert_eq!(store.get(&a).unwrap().unwrap(), b"value");
            assert!(store.del(&a).unwrap());
        }
    }

    #[test]
    fn compaction_takes_no_hidden_record_for_garbage() {
        for hidden_before in [true, false] {
            let store = store(7);
            let [a, b] = colliding_keys(&store)[0];
            store.set(&a, b"value").unwrap();
            store.engine.appender().unwrap().rotate().unwrap();
            while store.maintain(1 << 20).unwrap() {}
            let inputs: Vec<_> = store.engine.index.segments().iter().cloned().collect();
            store.engine.warm.store(true, Relaxed);
            if hidden_before {
                store.set(&b, b"hides it").unwrap();
                assert_eq!(on_trust(&store), 1);
            }
            let mut job = Job::new(&store.engine, inputs).unwrap();
            if !hidden_before {
                store.set(&b, b"does not hide it").unwrap();
            }
            assert_eq!(on_trust(&store), 0);
            while job.step(&store.engine, 1 << 20).unwrap() == Progress::More {}
            assert_eq!(store.get(&a).unwrap().unwrap(), b"value");
            assert!(store.exists(&b).unwrap());
        }
    }

    #[test]
    fn garbage_that_others_have_counted_is_noticed_by_the_next_write() {
        let options = Options { background: false, compact_threshold: 64 << 10, ..Options::default() };
        let store = Store::open_on(Arc::new(SimStorage::new(7, PageMode::Page)), &options).unwrap();
        for _ in 0..4000 {
            store.engine.warm.store(true, Relaxed);
            store.set(b"key", &[0; 1000]).unwrap();
            store.stats();
        }
        let log_bytes = store.stats().log_bytes;
        assert!(log_bytes < 1 << 20, "{log_bytes} bytes for one record");
    }

    #[test]
    fn an_older_value_does_not_come_back_for_a_damaged_one() {
        let store = store(7);
        store.engine.warm.store(true, Relaxed);
        store.set(b"key", b"old").unwrap();
        store.set(b"key", b"new").unwrap();
        assert_eq!(on_trust(&store), 1);
        let end = store.stats().log_bytes;
        store.set(b"key", b"newer").unwrap();
        let file = store.engine.appender.lock().unwrap().active().unwrap().file.clone();
        file.write_at(b"X", end + KEY_AT as u64).unwrap();
        assert_eq!(on_trust(&store), 1);
        store.stats();
        assert_eq!(store.get(b"key").unwrap_err().code(), Code::Corrupt);
    }

    #[test]
    fn garbage_is_counted_whenever_it_is_asked_for() {
        let store = store(8);
        store.engine.warm.store(true, Relaxed);
        for n in 0..200u64 {
            store.set(b"key", b"value").unwrap();
            assert_eq!(store.stats().dead_bytes, n * crate::log::record::record_len(3, Some(5)));
        }
    }

    #[test]
    fn keys_that_look_alike_stay_visible_whatever_other_threads_do() {
        let disk = SimStorage::new(9, PageMode::Page);
        let options = Options { compact_threshold: u64::MAX, ..Options::default() };
        let store = Store::open_on(Arc::new(disk), &options).unwrap();
        let pairs = colliding_keys(&store);
        let set = |key: &[u8], n: u64| store.set(key, &n.to_le_bytes().repeat(8)).unwrap();
        let number = |value: &[u8]| u64::from_le_bytes(*value.first_chunk().unwrap());
        let staying: Vec<_> = pairs.iter().map(|pair| &pair[0][..]).collect();
        staying.iter().for_each(|key| set(key, 0));
        let (done, compacted) = (AtomicBool::new(false), AtomicU64::new(0));
        let read_all = || {
            let mut values = Vec::new();
            let ranges = store.get_many(&staying, &mut values).unwrap();
            let value = |range: Option<_>| number(&values[range.expect("is stored")]);
            ranges.into_iter().map(value).collect::<Vec<_>>()
        };
        let read_each = || staying.iter().map(|key| number(&store.get(key).unwrap().expect("is stored"))).collect();
        let watch = |read: &dyn Fn() -> Vec<u64>| {
            let mut last = vec![0; staying.len()];
            while !done.load(Relaxed) {
                let now = read();
                assert!(now.iter().zip(&last).all(|(now, last)| now >= last), "{now:?} after {last:?}");
                last = now;
            }
        };
        std::thread::scope(|scope| {
            let compactor = scope.spawn(|| {
                while !done.load(Relaxed) {
                    store.compact().unwrap();
                    compacted.fetch_add(1, Relaxed);
                }
            });
            scope.spawn(|| watch(&read_all));
            scope.spawn(|| watch(&read_each));
            // Hides the others now and then.
            let enough = |n| n >= 20_000 && compacted.load(Relaxed) >= 3 || compactor.is_finished();
            let ended = catch_unwind(AssertUnwindSafe(|| {
                for n in (0..).take_while(|n| !enough(*n)) {
                    let [staying, passing] = &pairs[n % pairs.len()];
                    set(passing, 0);
                    if n % 50 == 0 {
                        set(staying, n as u64);
                    }
                    if n % 3 > 0 {
                        assert!(store.del(passing).unwrap());
                    }
                }
            }));
            done.store(true, Relaxed);
            ended.unwrap();
        });
        assert_eq!(read_all(), read_each());
    }
}
