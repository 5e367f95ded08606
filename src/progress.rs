//! Telling the caller how far long work has come, and being told to stop.

use crate::error::{Code, Error, Result};

/// Long work reports to the caller through this: bytes done, and bytes to do. What is done never goes back and reaches
/// the total once only, when all has succeeded.
///
/// Whoever reports holds no lock: the caller may use the same store.
pub struct Progress<'a> {
    /// Returns whether to go on.
    report: &'a mut dyn FnMut(u64, u64) -> bool,
    done: u64,
    total: u64,
}

impl<'a> Progress<'a> {
    /// `report` is given what is done and the total, and returns whether to go on.
    pub fn new(report: &'a mut dyn FnMut(u64, u64) -> bool) -> Progress<'a> {
        Progress { report, done: 0, total: 0 }
    }

    /// Says how much there is to do.
    pub(crate) fn start(&mut self, total: u64) -> Result<()> {
        (self.done, self.total) = (0, total);
        if total > 0 { self.tell() } else { Ok(()) }
    }

    /// So much has been done since the start.
    pub(crate) fn reach(&mut self, done: u64) -> Result<()> {
        self.advance(done.saturating_sub(self.done))
    }

    /// So much more has been done.
    pub(crate) fn advance(&mut self, bytes: u64) -> Result<()> {
        self.done = self.done.saturating_add(bytes).min(self.total.saturating_sub(1));
        if self.total > 0 { self.tell() } else { Ok(()) }
    }

    /// All has been done: it is too late to stop.
    pub(crate) fn finish(&mut self) {
        (self.report)(self.total, self.total);
    }

    fn tell(&mut self) -> Result<()> {
        match (self.report)(self.done, self.total) {
            true => Ok(()),
            false => Err(Error::new(Code::Cancelled, "the caller's callback asked to stop")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_never_goes_back_and_reaches_the_total_once() {
        let mut calls = Vec::new();
        let mut report = |done, total| {
            calls.push((done, total));
            true
        };
        let mut progress = Progress::new(&mut report);
        progress.start(10).unwrap();
        for done in [3, 2, 10, 12] {
            progress.reach(done).unwrap();
        }
        progress.advance(u64::MAX).unwrap();
        progress.finish();
        assert_eq!(calls, [(0, 10), (3, 10), (3, 10), (9, 10), (9, 10), (9, 10), (10, 10)]);
    }

    #[test]
    fn nothing_to_do_is_reported_once() {
        let mut calls = Vec::new();
        let mut report = |done, total| {
            calls.push((done, total));
            false
        };
        let mut progress = Progress::new(&mut report);
        progress.start(0).unwrap();
        progress.advance(1).unwrap();
        progress.finish();
        assert_eq!(calls, [(0, 0)]);
    }

    #[test]
    fn the_caller_may_stop_it() {
        let mut report = |done, _| done < 5;
        let mut progress = Progress::new(&mut report);
        progress.start(10).unwrap();
        progress.advance(4).unwrap();
        assert_eq!(progress.advance(4).unwrap_err().code(), Code::Cancelled);
    }
}
