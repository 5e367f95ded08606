//! What has been so several times in a row, and is expected to be so again.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// After so many times in a row the next one is expected to be alike.
const LONG: u32 = 8;

/// How often in a row something has been so, up to what matters. Two threads may count two times as one.
#[derive(Default)]
pub(crate) struct Streak(AtomicU32);

impl Streak {
    /// Whether it is expected to be so the next time.
    #[inline]
    pub(crate) fn lasts(&self) -> bool {
        self.0.load(Relaxed) >= LONG
    }

    /// Counts one time more.
    #[inline]
    pub(crate) fn note(&self, so: bool) {
        let count = self.0.load(Relaxed);
        let next = if so { (count + 1).min(LONG) } else { 0 };
        if next != count {
            self.0.store(next, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streak_lasts_from_the_eighth_time_until_the_first_exception() {
        let streak = Streak::default();
        for _ in 0..2 {
            for _ in 0..LONG {
                assert!(!streak.lasts());
                streak.note(true);
            }
            (0..100).for_each(|_| streak.note(true));
            assert!(streak.lasts());
            streak.note(false);
        }
    }
}
