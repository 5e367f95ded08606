//! A walk over a whole segment, damage and all: what verification and salvage have in common.

use std::sync::Arc;

use crate::error::Result;
use crate::log::header::HEADER_LEN;
use crate::log::record::{CRC_LEN, Head};
use crate::log::scan::{Item, Scanner};
use crate::storage::File;

/// What the walk came to.
pub(crate) enum Found<'a> {
    /// An intact record. `followed`: nothing before it in the segment is damaged, so it is what it seems and no part of
    /// a value.
    Record { offset: u64, len: u64, head: Head<'a>, followed: bool },
    /// Bytes that are no intact frame.
    Damage { offset: u64, len: u64, what: &'static str },
}

/// Where the frames of a segment are.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Nothing is read beyond this offset.
    pub end: u64,
    /// Behind this, zeros are no damage.
    pub data_end: u64,
}

/// Shows everything in a segment to `visit`, which returns whether a record can be what it seems: if not, the walk goes
/// on inside it. Returns the number of intact batches.
///
/// The intact records of a damaged batch are shown like others.
pub(crate) fn survey(
    name: &str,
    file: &Arc<dyn File>,
    Extent { end, data_end }: Extent,
    visit: &mut dyn FnMut(Found<'_>) -> Result<bool>,
) -> Result<u64> {
    let mut scanner = Scanner::new(name, Arc::clone(file), HEADER_LEN as u64, end)?;
    let mut followed = true;
    let mut broken_batch_end = None;
    loop {
        let (offset, what) = match scanner.next()? {
            Item::Record { offset, len, head } => {
                if visit(Found::Record { offset, len, head, followed })? {
                    continue;
                }
                scanner.reject(offset)?;
                (offset, "a record that is out of order")
            }
            Item::Mark(_) => continue,
            Item::End => {
                if scanner.at() >= data_end.min(end) {
                    return Ok(scanner.batches());
                }
                skip(&mut scanner, "zeros where a record should be")?
            }
            Item::Bad(what) => match scanner.damaged_batch()? {
                Some(batch_end) => {
                    broken_batch_end = Some(batch_end);
                    skip(&mut scanner, "a damaged batch")?
                }
                None => skip(&mut scanner, what)?,
            },
        };
        followed = false;
        // What is left of a damaged batch behind its records has been counted with it.
        let rest_of_batch = broken_batch_end == Some(offset + CRC_LEN as u64) && broken_batch_end == Some(scanner.at());
        if !rest_of_batch {
            let len = scanner.at().min(data_end.max(offset)) - offset;
            visit(Found::Damage { offset, len, what })?;
        }
    }
}

/// Goes on behind a bad place. Returns where that was, and what.
fn skip(scanner: &mut Scanner, what: &'static str) -> Result<(u64, &'static str)> {
    let offset = scanner.at();
    scanner.skip_bad()?;
    Ok((offset, what))
}
