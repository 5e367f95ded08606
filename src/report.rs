//! What looking through a database or a log found: the damaged places, and how much there was of everything.

use crate::error::{Error, Result};

/// So many problems are kept one by one. All are counted.
pub const MAX_PROBLEMS: usize = 10_000;

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong there, for people.
    pub what: String,
}

/// How much there was of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Damaged places, those included that are not kept one by one.
    pub problems: u64,
    /// Log files that were looked through.
    pub segments: u64,
    /// Intact records, tombstones included.
    pub records: u64,
    /// The tombstones among them.
    pub tombstones: u64,
    /// Intact batch frames.
    pub batches: u64,
    /// Bytes of log that were looked through.
    pub bytes: u64,
    /// Damaged records, where a damaged stretch counts as one.
    pub lost_records: u64,
    /// Bytes of log that are damaged or gone.
    pub lost_bytes: u64,
    /// Bytes of an incomplete tail that was never synced: what a crash leaves, no damage.
    pub torn_bytes: u64,
    /// Hints that are missing or that opening would ignore: no damage.
    pub unusable_hints: u64,
    /// Files left over by interrupted work, which the next open removes: no damage.
    pub orphan_files: u64,
    /// Records that were stored somewhere else: by salvage in the new database, by import in the store.
    pub written_records: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The first [`MAX_PROBLEMS`] problems.
    pub problems: Vec<Problem>,
    /// Counts of everything.
    pub totals: Totals,
    failure: Option<Error>,
}

impl Report {
    /// An error if what was found is a failure of what was asked for: damage, for verification; the end of the
    /// work, for import.
    pub fn verdict(&self) -> Result<()> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Notes a damaged place.
    pub(crate) fn problem(&mut self, file: &str, offset: u64, what: impl Into<String>) {
        self.totals.problems += 1;
        if self.problems.len() < MAX_PROBLEMS && self.problems.try_reserve(1).is_ok() {
            self.problems.push(Problem { file: file.to_owned(), offset, what: what.into() });
        }
    }

    /// Notes a damaged stretch of a log.
    pub(crate) fn damage(&mut self, file: &str, offset: u64, len: u64, what: impl Into<String>) {
        self.totals.lost_records += 1;
        self.totals.lost_bytes += len;
        self.problem(file, offset, what);
    }

    /// Makes an error of a report that holds problems.
    pub(crate) fn fail_if_damaged(&mut self) {
        if let Some(first) = self.problems.first() {
            let others = match self.totals.problems - 1 {
                0 => String::new(),
                others => format!(" (and {others} more)"),
            };
            self.failure = Some(Error::corrupt(&first.file, first.offset, format_args!("{}{others}", first.what)));
        }
    }

    /// Makes this error what the work came to.
    pub(crate) fn fail(&mut self, error: Error) {
        self.failure = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn all_problems_are_counted_and_so_many_kept() {
        let mut report = Report::default();
        report.fail_if_damaged();
        assert!(report.verdict().is_ok());
        for n in 0..MAX_PROBLEMS as u64 + 5 {
            report.damage("file", n, 2, "what");
        }
        report.fail_if_damaged();
        assert_eq!(report.problems.len(), MAX_PROBLEMS);
        let totals = &report.totals;
        assert_eq!((totals.problems, totals.lost_records, totals.lost_bytes), (10_005, 10_005, 20_010));
        let error = report.verdict().unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Corrupt, "file: offset 0: what (and 10004 more)"));
    }
}
