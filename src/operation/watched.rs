//! [`WatchedFiles`]: files that are checked again and again, and may be replaced or broken at any
//! time.

/// The contents of files at the last check.
#[derive(Debug)]
pub(super) struct WatchedFiles<C> {
    /// The contents, usable or not; `None` if the files could not be read.
    seen: Option<C>,
    is_broken: bool,
}

impl<C: PartialEq> WatchedFiles<C> {
    /// Files that are in use with these contents.
    pub(super) fn new(contents: C) -> WatchedFiles<C> {
        WatchedFiles { seen: Some(contents), is_broken: false }
    }

    /// Whether these contents are the ones in use.
    pub(super) fn uses(&self, contents: &C) -> bool {
        !self.is_broken && self.seen.as_ref() == Some(contents)
    }

    /// Notes that files with these contents are unusable. Returns whether the last check found the
    /// same, so that the log states the reason only once.
    pub(super) fn is_known_as_broken(&mut self, contents: Option<C>) -> bool {
        let is_known = self.is_broken && self.seen == contents;
        (self.is_broken, self.seen) = (true, contents);
        is_known
    }
}
