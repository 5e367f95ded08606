//! The log on disk: the formats of its files, and how a segment is read.

pub(crate) mod crc;
mod growth;
pub(crate) mod header;
pub(crate) mod hint;
pub(crate) mod manifest;
pub(crate) mod record;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod spill;
