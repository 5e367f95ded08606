//! The frames of a log, byte for byte.
//!
//! ```text
//! frame  = prefix payload crc
//! prefix = u64 LE   bits 0..48 length of the payload; bit 63 batch; bit 62 sync mark; bits 48..62 reserved
//! crc    = u32 LE   CRC32C (Castagnoli) of prefix and payload
//! record:    payload = DataFileEntry, serialized by wincode in its bincode-compatible form
//! batch:     payload = complete records, each with its own prefix and crc
//! sync mark: payload = u64 LE offset: everything before it in this segment, and every earlier segment,
//!            has been synced
//! ```
//!
//! A prefix of zero is no frame: it is the preallocated space behind the last one.

use wincode::{SchemaRead, SchemaWrite};

use super::crc::crc32c;
use crate::error::{Code, Error, Result};

/// Bytes before a frame's payload.
pub(crate) const PREFIX_LEN: usize = 8;
/// Bytes behind a frame's payload.
pub(crate) const CRC_LEN: usize = 4;
/// Bytes of a sync mark.
pub(crate) const MARK_LEN: usize = PREFIX_LEN + 8 + CRC_LEN;

/// Bytes that a batch frame takes besides its records.
pub(crate) const BATCH_OVERHEAD: u64 = (PREFIX_LEN + CRC_LEN) as u64;

const BATCH: u64 = 1 << 63;
const MARK: u64 = 1 << 62;
const LENGTH: u64 = (1 << 48) - 1;

/// Where in a record the length of the key is, and the key itself: behind the prefix and the timestamp.
pub(crate) const KEY_LEN_AT: usize = PREFIX_LEN + 8;
pub(crate) const KEY_AT: usize = KEY_LEN_AT + 8;

/// Where in a record the key ends: so much of it tells whose it is.
#[inline]
pub(crate) const fn key_end(key_len: usize) -> u64 {
    (KEY_AT + key_len) as u64
}

/// Timestamp, key length, option tag: the least that an entry takes.
const MIN_ENTRY_LEN: u64 = 8 + 8 + 1;

/// One write, as it is stored. `value` is `None` in a tombstone.
///
/// It borrows, for reading and writing alike: an owned `Vec<u8>` would be limited to 4 MiB by wincode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, SchemaWrite)]
pub(crate) struct DataFileEntry<'a> {
    /// Unix time in nanoseconds, made strictly increasing: the sequence number of the write.
    pub timestamp: i64,
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// What stands at some place of a log, its checksum not yet verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Record,
    Batch,
    Mark,
    /// A flag that this version does not know.
    Unknown,
}

/// A frame's prefix, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub kind: Kind,
    /// Length of the whole frame: prefix, payload and checksum.
    pub frame_len: u64,
}

impl Prefix {
    /// Reads a prefix; `None` where it is zero (no frame) or no frame can be that short.
    #[inline]
    pub(crate) fn parse(bytes: [u8; PREFIX_LEN]) -> Option<Prefix> {
        let prefix = u64::from_le_bytes(bytes);
        let length = prefix & LENGTH;
        let kind = match prefix & !LENGTH {
            0 if length >= MIN_ENTRY_LEN => Kind::Record,
            BATCH => Kind::Batch,
            MARK if length == 8 => Kind::Mark,
            0 | MARK => return None,
            _ => Kind::Unknown,
        };
        Some(Prefix { kind, frame_len: length + (PREFIX_LEN + CRC_LEN) as u64 })
    }
}

/// The length of the record of an entry, framing included.
#[inline]
pub(crate) fn record_len(key_len: usize, value_len: Option<usize>) -> u64 {
    let value = value_len.map_or(0, |len| 8 + len as u64);
    (PREFIX_LEN + CRC_LEN) as u64 + MIN_ENTRY_LEN + key_len as u64 + value
}

/// Writes the record of `entry` to `out`, which has exactly `record_len` bytes.
#[inline]
pub(crate) fn encode_record(entry: &DataFileEntry<'_>, out: &mut [u8]) -> Result<()> {
    let body_end = out.len() - CRC_LEN;
    out[..PREFIX_LEN].copy_from_slice(&((body_end - PREFIX_LEN) as u64).to_le_bytes());
    let mut rest = &mut out[PREFIX_LEN..body_end];
    wincode::serialize_into(&mut rest, entry).map_err(|e| Error::new(Code::Internal, format!("encode record: {e}")))?;
    debug_assert!(rest.is_empty(), "record_len and wincode agree");
    close_frame(out);
    Ok(())
}

/// Writes a record that changes nothing to `out`, as long as that is: a tombstone of a key that nobody has, for it is made from
/// a random number. `out` has room for a value's record, and so for a key of 8 bytes at least. It cannot fail.
#[cold]
pub(crate) fn encode_filler(timestamp: i64, random: u64, out: &mut [u8]) {
    let body_end = out.len() - CRC_LEN;
    let key_end = body_end - 1;
    out[..PREFIX_LEN].copy_from_slice(&((body_end - PREFIX_LEN) as u64).to_le_bytes());
    out[PREFIX_LEN..KEY_LEN_AT].copy_from_slice(&timestamp.to_le_bytes());
    out[KEY_LEN_AT..KEY_AT].copy_from_slice(&((key_end - KEY_AT) as u64).to_le_bytes());
    let random = random.to_le_bytes().into_iter().cycle();
    out[KEY_AT..key_end].iter_mut().zip(random).for_each(|(to, byte)| *to = byte);
    out[key_end] = 0;
    close_frame(out);
}

/// Encodes a record around its value: what comes before the value to `out`, and what comes behind it as
/// the result. For values that are too large to be copied for it.
pub(crate) fn encode_split(entry: &DataFileEntry<'_>, out: &mut Vec<u8>) -> Result<[u8; CRC_LEN]> {
    let value = entry.value.unwrap_or_default();
    let len = record_len(entry.key.len(), entry.value.map(<[u8]>::len));
    let head = Head { timestamp: entry.timestamp, key: entry.key, value_len: entry.value.map(|v| v.len() as u64) };
    out.extend((len - (PREFIX_LEN + CRC_LEN) as u64).to_le_bytes());
    out.extend(wincode::serialize(&head).map_err(|e| Error::new(Code::Internal, format!("encode record: {e}")))?);
    Ok(crc32c::crc32c_append(crc32c::crc32c(out), value).to_le_bytes())
}

/// Writes the batch frame of `entries` to `out`, which has exactly as many bytes as it takes.
pub(crate) fn encode_batch<'a>(entries: impl Iterator<Item = DataFileEntry<'a>>, out: &mut [u8]) -> Result<()> {
    let body_end = out.len() - CRC_LEN;
    out[..PREFIX_LEN].copy_from_slice(&(BATCH | (body_end - PREFIX_LEN) as u64).to_le_bytes());
    let mut at = PREFIX_LEN;
    for entry in entries {
        let len = record_len(entry.key.len(), entry.value.map(<[u8]>::len)) as usize;
        let record = out[..body_end].get_mut(at..at + len);
        encode_record(&entry, record.ok_or_else(|| Error::new(Code::Internal, "a batch is longer than planned"))?)?;
        at += len;
    }
    debug_assert_eq!(at, body_end);
    close_frame(out);
    Ok(())
}

/// Writes a sync mark to `out`, which has exactly [`MARK_LEN`] bytes.
pub(crate) fn encode_mark(offset: u64, out: &mut [u8]) {
    out[..PREFIX_LEN].copy_from_slice(&(MARK | 8).to_le_bytes());
    out[PREFIX_LEN..PREFIX_LEN + 8].copy_from_slice(&offset.to_le_bytes());
    close_frame(out);
}

/// Writes the checksum of a frame whose prefix and payload are in place.
#[inline]
fn close_frame(out: &mut [u8]) {
    let body_end = out.len() - CRC_LEN;
    let crc = crc32c(&out[..body_end]);
    out[body_end..].copy_from_slice(&crc.to_le_bytes());
}

/// The head of a record's entry: all of it but the bytes of the value. Being a prefix of
/// [`DataFileEntry`]'s serialized form, it can be read from the first part of a record alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, SchemaRead, SchemaWrite)]
pub(crate) struct Head<'a> {
    pub timestamp: i64,
    pub key: &'a [u8],
    pub value_len: Option<u64>,
}

impl<'a> Head<'a> {
    /// Reads the head of a record of `frame_len` bytes from its first bytes, framing included; `None`
    /// where they are no head of a record of exactly that length. The checksum is not verified.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8], frame_len: u64) -> Option<Head<'a>> {
        let head: Head<'a> = wincode::deserialize(bytes.get(PREFIX_LEN..)?).ok()?;
        let value_len = head.value_len.unwrap_or(0);
        let fixed = record_len(head.key.len(), head.value_len.map(|_| 0));
        (frame_len.checked_sub(fixed)? == value_len).then_some(head)
    }

    /// As `parse`, for a record whose prefix is damaged: the length is what the head says.
    pub(crate) fn parse_without_prefix(bytes: &'a [u8]) -> Option<(u64, Head<'a>)> {
        let head: Head<'a> = wincode::deserialize(bytes.get(PREFIX_LEN..)?).ok()?;
        let len = record_len(head.key.len(), head.value_len.map(|_| 0)).checked_add(head.value_len.unwrap_or(0))?;
        Some((len, head))
    }

    /// Where in the record the value begins.
    #[inline]
    pub(crate) fn value_at(&self) -> usize {
        PREFIX_LEN + MIN_ENTRY_LEN as usize + self.key.len() + 8
    }

    /// The most bytes that a head takes, framing included.
    pub(crate) const fn max_len(key_len: usize) -> usize {
        PREFIX_LEN + MIN_ENTRY_LEN as usize + key_len + 8
    }
}

/// The key and the value of a whole record of a value; `None` if it is no such record. What [`Head::parse`] finds too,
/// for those who want no more.
#[inline]
pub(crate) fn parts(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let key_len = u64::from_le_bytes(*frame.get(KEY_LEN_AT..KEY_AT)?.first_chunk()?);
    let value_at = KEY_AT.checked_add(usize::try_from(key_len).ok()?)?.checked_add(1 + 8)?;
    let (head, value) = frame.get(..frame.len() - CRC_LEN)?.split_at_checked(value_at)?;
    let (key, option) = head.get(KEY_AT..)?.split_last_chunk::<9>()?;
    let [some, value_len @ ..] = option;
    (*some == 1 && u64::from_le_bytes(*value_len) == value.len() as u64).then_some((key, value))
}

/// The frame that these bytes begin with, if it is that of a record and all of it is there. Its checksum is not verified.
#[inline]
pub(crate) fn first_record(bytes: &[u8]) -> Option<&[u8]> {
    let prefix = Prefix::parse(*bytes.first_chunk()?).filter(|prefix| prefix.kind == Kind::Record)?;
    bytes.get(..usize::try_from(prefix.frame_len).ok()?)
}

/// Whether a whole frame's checksum is right.
#[inline]
pub(crate) fn crc_matches(frame: &[u8]) -> bool {
    let Some((body, crc)) = frame.split_last_chunk::<CRC_LEN>() else {
        return false;
    };
    crc32c(body) == u32::from_le_bytes(*crc)
}

/// The offset that a whole sync mark names.
pub(crate) fn decode_mark(frame: &[u8]) -> Option<u64> {
    let payload = frame.get(PREFIX_LEN..PREFIX_LEN + 8)?;
    Some(u64::from_le_bytes(payload.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(entry: &DataFileEntry<'_>) -> Vec<u8> {
        let mut out = vec![0xaa; record_len(entry.key.len(), entry.value.map(<[u8]>::len)) as usize];
        encode_record(entry, &mut out).unwrap();
        out
    }

    #[test]
    fn a_filler_is_a_tombstone_of_an_unlikely_key() {
        for len in [record_len(0, Some(0)), record_len(16, Some(100)), 4096] {
            let (mut out, mut other) = (vec![0xaa; len as usize], vec![0xaa; len as usize]);
            encode_filler(7, 0x0123_4567_89ab_cdef, &mut out);
            encode_filler(7, 0x0123_4567_89ab_cdee, &mut other);
            let (head, other) = (Head::parse(&out, len).unwrap(), Head::parse(&other, len).unwrap());
            assert_eq!((head.timestamp, head.value_len, record_len(head.key.len(), None)), (7, None, len));
            assert!(head.key.len() >= 8 && head.key != other.key);
            let entry = DataFileEntry { timestamp: 7, key: head.key, value: None };
            assert_eq!(encoded(&entry), out);
        }
    }

    #[test]
    fn a_record_is_framed_as_documented() {
        let bytes = encoded(&DataFileEntry { timestamp: 0x0102, key: b"ab", value: Some(b"xyz") });
        let mut expected = vec![30, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', 1]);
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0, b'x', b'y', b'z']);
        expected.extend(crc32c::crc32c(&expected).to_le_bytes());
        assert_eq!(bytes, expected);
        assert_eq!(encoded(&DataFileEntry { timestamp: 1, key: &[7; 16], value: Some(&[1; 100]) }).len(), 153);
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for (key, value) in [(&b""[..], None), (b"", Some(&b""[..])), (b"key", Some(&[0u8; 5000][..])), (b"k", None)] {
            let entry = DataFileEntry { timestamp: -5, key, value };
            let frame = encoded(&entry);
            let prefix = Prefix::parse(frame[..8].try_into().unwrap()).unwrap();
            assert_eq!(prefix, Prefix { kind: Kind::Record, frame_len: frame.len() as u64 });
            assert!(crc_matches(&frame));
            let head = Head::parse(&frame, frame.len() as u64).unwrap();
            assert_eq!((head.timestamp, head.key, head.value_len), (-5, key, value.map(|v| v.len() as u64)));
            if let Some(value) = value {
                assert_eq!(&frame[head.value_at()..frame.len() - CRC_LEN], value);
            }
            assert_eq!(Head::parse(&frame, frame.len() as u64 + 1), None);
            let mut split = Vec::new();
            let crc = encode_split(&entry, &mut split).unwrap();
            split.extend(value.unwrap_or_default());
            split.extend(crc);
            assert_eq!(split, frame);
        }
    }

    #[test]
    fn each_flipped_bit_is_noticed() {
        let frame = encoded(&DataFileEntry { timestamp: 77, key: b"key", value: Some(b"value") });
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!crc_matches(&bad), "bit {bit}");
        }
    }

    #[test]
    fn a_mark_names_its_offset() {
        let mut frame = [0; MARK_LEN];
        encode_mark(12345, &mut frame);
        let prefix = Prefix::parse(frame[..8].try_into().unwrap()).unwrap();
        assert_eq!(prefix, Prefix { kind: Kind::Mark, frame_len: MARK_LEN as u64 });
        assert!(crc_matches(&frame));
        assert_eq!(decode_mark(&frame), Some(12345));
    }

    #[test]
    fn zeros_and_impossible_lengths_are_no_frame() {
        assert_eq!(Prefix::parse([0; 8]), None);
        assert_eq!(Prefix::parse(16u64.to_le_bytes()), None);
        assert_eq!(Prefix::parse((MARK | 9).to_le_bytes()), None);
        assert_eq!(Prefix::parse((1u64 << 50 | 30).to_le_bytes()).unwrap().kind, Kind::Unknown);
    }
}
