//! Damage of all kinds: verification tells of it, salvage gets the rest out.

mod hostile;
mod salvage;
mod verify;

use std::sync::Arc;

use crate::model_tests::Rng;
use crate::progress::Progress;
use crate::report::Report;
use crate::storage::Storage;
use crate::storage::sim::{PageMode, SimStorage};
use crate::verify::verify_on;
use crate::{Batch, IoPath, Options, Result, Store};

fn options(rng: &mut Rng) -> Options {
    let io = if rng.below(2) == 0 { IoPath::Auto } else { IoPath::Syscall };
    let compact_threshold = [1, 8 << 10, 1 << 20][rng.below(3) as usize];
    Options { segment_size: 4 << 10, compact_threshold, background: false, io, ..Options::default() }
}

fn key(number: u64) -> Vec<u8> {
    if number == 0 { Vec::new() } else { format!("key {number:0width$}", width = number as usize * 2).into_bytes() }
}

/// A value that no other write has.
fn value(rng: &mut Rng) -> Vec<u8> {
    let len = if rng.below(30) == 0 { 4000 + rng.below(3000) } else { 8 + rng.below(250) };
    (0..len.div_ceil(8)).flat_map(|_| rng.next().to_le_bytes()).collect()
}

/// Does random work of all kinds. Stops without a word when the disk crashes.
fn work(store: &Store, rng: &mut Rng, steps: u64) -> Result<()> {
    for _ in 0..steps {
        let key = |rng: &mut Rng| key(rng.below(20));
        match rng.below(100) {
            0..=59 => store.set(&key(rng), &value(rng))?,
            60..=74 => drop(store.del(&key(rng))?),
            75..=84 => {
                let mut batch = Batch::new();
                for _ in 0..1 + rng.below(5) {
                    match rng.below(3) {
                        0 => batch.del(&key(rng))?,
                        _ => batch.set(&key(rng), &value(rng))?,
                    }
                }
                store.write(&batch)?;
            }
            85..=89 => store.sync()?,
            90..=96 => drop(store.maintain(1 + rng.below(6000))?),
            _ => store.compact()?,
        }
    }
    Ok(())
}

fn open(sim: &SimStorage, options: &Options) -> Result<Store> {
    Store::open_on(Arc::new(sim.handle()), options)
}

/// A database that was closed.
fn closed(seed: u64, steps: u64) -> SimStorage {
    let (sim, mut rng) = (SimStorage::new(seed, PageMode::Page), Rng(seed));
    for _ in 0..2 {
        let store = open(&sim, &options(&mut rng)).unwrap();
        work(&store, &mut rng, steps).unwrap();
        store.close().unwrap();
    }
    sim
}

fn quietly<T>(work: impl FnOnce(&mut Progress<'_>) -> T) -> T {
    work(&mut Progress::new(&mut |_, _| true))
}

fn verify(sim: &SimStorage) -> Result<Report> {
    let storage: Arc<dyn Storage> = Arc::new(sim.handle());
    quietly(|progress| verify_on(&storage, progress))
}

/// Everything about the files.
fn contents(sim: &SimStorage) -> Vec<(String, Vec<u8>)> {
    sim.files().into_iter().map(|name| (name.clone(), sim.read_file(&name).unwrap())).collect()
}
