//! What can go wrong: one code that programs act on, and one message that people read.

use std::fmt;
use std::io;

/// The kinds of failure, as the C interface numbers them. The numbers are stable for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// An argument is not acceptable: a NULL pointer, an unknown option, a value out of range.
    Invalid = -1,
    /// The operating system reported an error.
    Io = -2,
    /// The disk, a quota or a file size limit is exhausted.
    NoSpace = -3,
    /// Memory is exhausted.
    NoMemory = -4,
    /// Another handle, in this process or another, has the database open.
    Locked = -5,
    /// The store is still in use by objects made from it.
    Busy = -6,
    /// Stored data is damaged.
    Corrupt = -7,
    /// The database uses a format that this version does not know.
    Format = -8,
    /// A key, a value or a batch is over its limit.
    TooLarge = -9,
    /// The caller's buffer cannot hold the value.
    BufferTooSmall = -10,
    /// The path holds something that is not a database, or nothing where one was demanded.
    NotADatabase = -11,
    /// There is something where nothing should be.
    Exists = -12,
    /// The handle was opened for reading only.
    ReadOnly = -13,
    /// A sync failed earlier: what reached the disk is unknown, so the handle takes no more writes.
    Poisoned = -14,
    /// The handle belongs to the parent of this forked process.
    Forked = -15,
    /// The caller's callback asked to stop.
    Cancelled = -16,
    /// A bug in this library, caught.
    Internal = -17,
}

/// A failure: its code, and what happened to which file at which offset. One pointer, so that the results of the hot paths
/// are returned in registers.
#[derive(Clone, Debug)]
pub struct Error(Box<Failure>);

#[derive(Clone, Debug)]
struct Failure {
    code: Code,
    message: String,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a message for people.
    #[cold]
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error(Box::new(Failure { code, message: message.into() }))
    }

    /// An error of the operating system, with what was being done, for example `"sync 0000000001.log"`.
    #[cold]
    pub fn os(doing: impl fmt::Display, error: &io::Error) -> Error {
        let code = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Code::NoSpace,
            io::ErrorKind::OutOfMemory => Code::NoMemory,
            _ => Code::Io,
        };
        Error::new(code, format!("{doing}: {error}"))
    }

    /// Damaged data in `file` at `offset`.
    #[cold]
    pub fn corrupt(file: &str, offset: u64, what: impl fmt::Display) -> Error {
        Error::new(Code::Corrupt, format!("{file}: offset {offset}: {what}"))
    }

    /// Memory for `what` could not be had.
    #[cold]
    pub fn no_memory(what: impl fmt::Display) -> Error {
        Error::new(Code::NoMemory, format!("out of memory for {what}"))
    }

    /// What programs act on.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What people read.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}
