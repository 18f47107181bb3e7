//! [`Outages`]: one line in the log when a kind of call begins to fail, and one when it works
//! again. [`RepeatedTrouble`]: one line whenever an attempt fails for another reason than before.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pool::Outage;

use crate::store::StoreError;

/// The kinds of call that fail. Each kind is remembered separately: with a revoked right or a
/// damaged table one may fail while others work, and they must not alternate in the log.
#[derive(Debug, Default)]
pub struct Outages {
    failing: Mutex<BTreeMap<&'static str, Failing>>,
    /// Whether any kind fails: if not, a call needs no further check.
    any: AtomicBool,
}

/// The last logged error of a repeated attempt. The same error is not logged twice in a row.
#[derive(Debug)]
pub(super) struct RepeatedTrouble {
    logged: String,
}

impl RepeatedTrouble {
    /// Starts with a trouble that is logged already.
    pub(super) fn logged(trouble: String) -> RepeatedTrouble {
        RepeatedTrouble { logged: trouble }
    }

    /// Logs the trouble of an attempt, if it differs from that of the previous attempt.
    pub(super) fn note(&mut self, trouble: String) {
        if self.is_new(&trouble) {
            log::error!("{trouble}");
            self.logged = trouble;
        }
    }

    fn is_new(&self, trouble: &str) -> bool {
        trouble != self.logged
    }
}

#[derive(Debug)]
struct Failing {
    outage: Outage,
    calls: u64,
}

impl Outages {
    /// Notes the result of a call. `what` names its kind, as in "storing messages".
    pub fn note(&self, what: &'static str, error: Option<&StoreError>) {
        match error {
            Some(StoreError::NameTaken) => {}
            Some(error) => self.failed(what, error),
            None if self.any.load(Ordering::Relaxed) => self.worked(what),
            None => {}
        }
    }

    fn failed(&self, what: &'static str, error: &StoreError) {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        let mut failing = self.failing.lock();
        self.any.store(true, Ordering::Relaxed);
        if let Some(known) = failing.get_mut(what) {
            known.calls += 1;
            drop(failing);
            log::debug!("{what} fails again: {cause}");
            return;
        }
        let mut outage = Outage::default();
        outage.begin();
        failing.insert(what, Failing { outage, calls: 1 });
        drop(failing);
        log::error!("{what} fails: {cause}");
    }

    fn worked(&self, what: &'static str) {
        let mut failing = self.failing.lock();
        let Some(Failing { mut outage, calls }) = failing.remove(what) else { return };
        self.any.store(!failing.is_empty(), Ordering::Relaxed);
        drop(failing);
        if let Some(lasted) = outage.end() {
            log::warn!("{what} works again, {calls} calls failed in {lasted}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_logged_when_it_changes() {
        let mut trouble = RepeatedTrouble::logged("full".into());
        let noted = ["full", "gone", "gone", "full"].map(|now| {
            let is_new = trouble.is_new(now);
            trouble.note(now.into());
            is_new
        });
        assert_eq!(noted, [false, true, false, true]);
    }

    #[test]
    fn one_kind_that_works_does_not_end_the_outage_of_another() {
        let outages = Outages::default();
        let error = StoreError::Failed("denied".into());
        for _ in 0..100 {
            outages.note("reading", None);
            outages.note("writing", Some(&error));
        }
        let calls = |what| outages.failing.lock().get(what).map(|failing| failing.calls);
        assert_eq!((calls("writing"), calls("reading")), (Some(100), None));
        outages.note("writing", Some(&StoreError::NameTaken));
        assert_eq!(calls("writing"), Some(100), "a name that is taken is no failure");
        outages.note("writing", None);
        assert_eq!((calls("writing"), outages.any.load(Ordering::Relaxed)), (None, false));
    }
}
