//! Compaction on demand: everything that is garbage by now.

use std::sync::atomic::Ordering::Relaxed;

use super::Goal;
use crate::engine::Engine;
use crate::error::{Code, Error, Result};
use crate::log::header::HEADER_LEN;
use crate::log::segment::State;
use crate::maintenance::SLICE;
use crate::progress::Progress;

impl Engine {
    /// Rewrites everything that is garbage by now. The maintenance lock is let go between the steps.
    pub(crate) fn compact(&self, progress: &mut Progress<'_>) -> Result<()> {
        self.commit.check()?;
        let _demand = self.maintenance.demand();
        let newest = {
            let _maintainer = self.maintenance.lock();
            self.prove_all()?;
            let mut appender = self.appender()?;
            // Even if it holds no garbage yet: the sync mark of the sync to come would be some.
            if appender.active().is_some_and(|o| o.segment.len() > HEADER_LEN as u64) {
                appender.rotate()?;
            }
            self.factory.next_id.load(Relaxed)
        };
        let total = self.garbage_left(newest);
        progress.start(total)?;
        loop {
            let (more, done) = {
                let mut maintainer = self.maintenance.lock();
                let more = maintainer.step(self, SLICE, Goal::Everything(newest))?;
                (more, (total + maintainer.job_done()).saturating_sub(self.garbage_left(newest)))
            };
            if !more {
                break;
            }
            progress.reach(done).inspect_err(|_| self.maintenance.lock().cancel(self))?;
        }
        self.maintenance.lock().retired.wait();
        progress.finish();
        match self.index.segments().iter().find(|s| s.quarantined() && s.dead() > 0) {
            Some(s) => Err(Error::new(Code::Corrupt, format!("{}: kept, as a record in it is damaged", s.name()))),
            None => Ok(()),
        }
    }

    /// Bytes in the segments that hold garbage.
    fn garbage_left(&self, newest: u64) -> u64 {
        let table = self.index.segments();
        let with_garbage =
            table.iter().filter(|s| s.id() <= newest && s.dead() > 0 && !s.quarantined() && s.state() != State::Active);
        with_garbage.map(|s| s.len()).sum()
    }
}
