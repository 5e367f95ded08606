//! The 64 bytes at the start of each segment: whose segment it is, and where the one before it ended.

use wincode::{SchemaRead, SchemaWrite};

use crate::error::{Code, Error, Result};

/// Length of a segment header, and so the offset of the first frame.
pub(crate) const HEADER_LEN: usize = 64;
const MAGIC: [u8; 8] = *b"kvstore\n";
const VERSION: u32 = 1;
const COMPACTION_OUTPUT: u32 = 1;
const BODY_LEN: usize = HEADER_LEN - 4;

/// Where a log segment ended, as its successor remembers it. This makes a tail visible that was
/// lost exactly at a frame boundary. All zero for the first log segment and for compaction outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, SchemaRead, SchemaWrite)]
pub(crate) struct LogEnd {
    pub id: u64,
    pub len: u64,
    /// The checksum of the last frame: the last four bytes. Zero if there is no frame.
    pub crc: u32,
}

/// What part a segment plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A stretch of the log, as it was written.
    Log,
    /// Records that compaction moved here from other segments.
    Output,
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub id: u64,
    /// Random: tells this segment from any other that ever had the same name.
    pub identity: u64,
    pub role: Role,
    pub predecessor: LogEnd,
}

#[derive(SchemaRead, SchemaWrite)]
struct Layout {
    magic: [u8; 8],
    version: u32,
    flags: u32,
    id: u64,
    identity: u64,
    predecessor: LogEnd,
    reserved: u64,
}

/// Why bytes are no header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Torn or rotten: too short, or the checksum is wrong.
    Damaged,
    /// Intact, but of a version or with features that are not known here.
    Unknown(String),
}

impl Header {
    pub(crate) fn encode(&self) -> Result<[u8; HEADER_LEN]> {
        let flags = match self.role {
            Role::Log => 0,
            Role::Output => COMPACTION_OUTPUT,
        };
        let Header { id, identity, predecessor, .. } = *self;
        let layout = Layout { magic: MAGIC, version: VERSION, flags, id, identity, predecessor, reserved: 0 };
        let mut bytes = [0; HEADER_LEN];
        wincode::serialize_into(&mut &mut bytes[..BODY_LEN], &layout)
            .map_err(|e| Error::new(Code::Internal, format!("encode segment header: {e}")))?;
        let crc = crc32c::crc32c(&bytes[..BODY_LEN]);
        bytes[BODY_LEN..].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_LEN]) -> std::result::Result<Header, HeaderError> {
        let (body, crc) = bytes.split_at(BODY_LEN);
        if crc32c::crc32c(body).to_le_bytes() != crc {
            return Err(HeaderError::Damaged);
        }
        let layout: Layout = wincode::deserialize_exact(body).map_err(|_| HeaderError::Damaged)?;
        if layout.magic != MAGIC {
            return Err(HeaderError::Unknown("not a kvstore segment".into()));
        }
        if layout.version != VERSION || layout.flags & !COMPACTION_OUTPUT != 0 || layout.reserved != 0 {
            let (version, flags) = (layout.version, layout.flags);
            return Err(HeaderError::Unknown(format!("segment format {version} with flags {flags:#x} is not known")));
        }
        let role = if layout.flags & COMPACTION_OUTPUT == 0 { Role::Log } else { Role::Output };
        Ok(Header { id: layout.id, identity: layout.identity, role, predecessor: layout.predecessor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let predecessor = LogEnd { id: 6, len: 4096, crc: 0xdead_beef };
        Header { id: 7, identity: 0x1122_3344_5566_7788, role: Role::Log, predecessor }
    }

    #[test]
    fn the_layout_is_as_documented() {
        let bytes = header().encode().unwrap();
        assert_eq!(&bytes[..8], b"kvstore\n");
        assert_eq!(&bytes[8..16], &[1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[16..24], &7u64.to_le_bytes());
        assert_eq!(&bytes[24..32], &0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(&bytes[32..40], &6u64.to_le_bytes());
        assert_eq!(&bytes[40..48], &4096u64.to_le_bytes());
        assert_eq!(&bytes[48..52], &0xdead_beefu32.to_le_bytes());
        assert_eq!(&bytes[52..60], &[0; 8]);
        assert_eq!(Header::decode(&bytes), Ok(header()));
    }

    #[test]
    fn damage_is_not_taken_for_another_format() {
        let good = header().encode().unwrap();
        for bit in 0..HEADER_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bad), Err(HeaderError::Damaged), "bit {bit}");
        }
        let mut newer = good;
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..BODY_LEN]);
        newer[BODY_LEN..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(Header::decode(&newer), Err(HeaderError::Unknown(_))));
    }
}
