//! Promise 7 for verification and salvage: whatever is in the files, they end, in time, with a report or an error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{closed, contents, open, quietly, verify};
use crate::log::header::HEADER_LEN;
use crate::log::record::{DataFileEntry, encode_record, record_len};
use crate::model_tests::Rng;
use crate::salvage::salvage_with;
use crate::storage::Storage;
use crate::storage::sim::{Calls, FaultPlan, PageMode, SimStorage};
use crate::{Code, Options, Report, Result};

/// More than any case takes, however busy the machine is.
const LONGEST: Duration = Duration::from_secs(30);

fn salvage(sim: &SimStorage) -> Result<Report> {
    let source: Arc<dyn Storage> = Arc::new(sim.handle());
    let target = SimStorage::new(1, PageMode::Page);
    let options = Options { background: false, segment_size: 1 << 20, ..Options::default() };
    quietly(|progress| salvage_with(&source, || open(&target, &options), progress))
}

/// Puts checksums right again, so that what stands before them is believed.
fn fix(name: &str, bytes: &mut [u8]) {
    let body = if name.ends_with(".log") { HEADER_LEN - 4 } else { bytes.len().saturating_sub(4) };
    if let Some((body, rest)) = bytes.split_at_mut_checked(body) {
        let crc = crc32c::crc32c(body).to_le_bytes();
        rest.iter_mut().zip(crc).for_each(|(byte, crc)| *byte = crc);
    }
}

#[test]
fn mangled_files_give_a_report_or_an_error() {
    let samples: Vec<_> = (20..24).map(|seed| closed(seed, 40)).collect();
    for seed in 0..700 {
        let mut rng = Rng(seed);
        let sim = samples[rng.below(4) as usize].deep_copy();
        for _ in 0..1 + rng.below(3) {
            let files = contents(&sim);
            let (name, mut bytes) = files[rng.below(files.len() as u64) as usize].clone();
            let number = [0, 1, 63, 64, 1 << 20, 1 << 47, 1 << 62, 1 << 63, u64::MAX][rng.below(9) as usize];
            let at = (rng.below(bytes.len().max(1) as u64) / 8 * 8) as usize;
            match rng.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.extend(rng.next().to_le_bytes().repeat(rng.below(50) as usize)),
                _ => bytes[at..].iter_mut().zip(u64::to_le_bytes(number)).for_each(|(to, from)| *to = from),
            }
            if rng.below(3) > 0 {
                fix(&name, &mut bytes);
            }
            sim.put_file(&name, &bytes);
        }
        let (before, begin) = (contents(&sim), Instant::now());
        for result in [verify(&sim), salvage(&sim)] {
            match result {
                Ok(report) => assert_eq!(report.problems.is_empty(), report.totals.problems == 0),
                Err(e) => assert!(matches!(e.code(), Code::Format | Code::NotADatabase), "seed {seed}: {e}"),
            }
        }
        assert_eq!(contents(&sim), before);
        assert!(begin.elapsed() < LONGEST, "seed {seed}");
    }
}

/// Heads of long records, and between them small records that are intact: each search ends soon, but begins again.
#[test]
fn damage_at_every_step_takes_bounded_time() {
    for claimed in [60_000, 1 << 20, 4 << 20] {
        let sim = closed(1, 0);
        let tiny = |timestamp| {
            let mut bytes = vec![0; record_len(0, None) as usize];
            encode_record(&DataFileEntry { timestamp, key: b"", value: None }, &mut bytes).unwrap();
            bytes
        };
        let mut log = vec![0xee; HEADER_LEN];
        let mut timestamp = 1;
        while log.len() < 3 << 19 {
            let (length, value_len) = (claimed - 12_u64, claimed - 12 - 25);
            log.extend([length, 1, 0].iter().flat_map(|number| number.to_le_bytes()));
            log.push(1);
            log.extend(value_len.to_le_bytes());
            log.extend(tiny(timestamp));
            timestamp += 1;
        }
        log.resize(6 << 20, 0xee);
        sim.put_file("0000000001.log", &log);
        sim.remove("MANIFEST").unwrap();
        let begin = Instant::now();
        let reports = [verify(&sim).unwrap(), salvage(&sim).unwrap()];
        assert!(begin.elapsed() < LONGEST, "{claimed}: {:?}", begin.elapsed());
        for report in reports {
            assert!(report.totals.problems > 10 && report.problems.len() <= 10_000, "{:?}", report.totals);
        }
    }
}

/// A disk that cannot read: what is behind the unreadable place is read all the same.
#[test]
fn unreadable_blocks_are_passed_over() {
    let sim = closed(2, 60);
    let whole = salvage(&sim).unwrap().totals.written_records;
    let calls = sim.call_count();
    verify(&sim).unwrap();
    let calls = sim.call_count() - calls;
    let (mut problems, mut errors, mut lost) = (0, 0, 0);
    for at in 0..calls {
        for persistent in [false, true] {
            let sim = sim.deep_copy();
            sim.fail(FaultPlan { at: sim.call_count() + at, errno: libc::EIO, persistent, calls: Calls::READ });
            match verify(&sim) {
                Ok(report) => problems += (report.totals.problems > 0) as u64,
                Err(e) => errors += (e.code() == Code::Io) as u64,
            }
            let sim = sim.deep_copy();
            sim.fail(FaultPlan { at: sim.call_count() + at, errno: libc::EIO, persistent, calls: Calls::READ });
            if let Ok(report) = salvage(&sim) {
                assert!(report.totals.problems > 0 || report.totals.written_records == whole, "{report:?}");
                lost += (report.totals.written_records < whole) as u64;
            }
        }
    }
    assert!(problems > 0 && errors > 0 && lost > 0, "{problems} {errors} {lost}");
}
