//! [`Levels`]: the records that are logged.

use log::{LevelFilter, Metadata};

use super::names::Name;
use crate::config::LogLevels;

/// The least important level that is logged, for everything and for parts of the program.
#[derive(Debug)]
pub(super) struct Levels {
    everything: LevelFilter,
    /// Longer names first, so that the most specific one decides.
    parts: Vec<(String, LevelFilter)>,
}

impl Levels {
    pub(super) fn new(levels: &LogLevels) -> Levels {
        let mut parts = levels.parts.clone();
        parts.sort_by_key(|(part, _)| std::cmp::Reverse(part.len()));
        Levels { everything: levels.everything, parts }
    }

    /// Whether this record is logged.
    pub(super) fn allow(&self, metadata: &Metadata<'_>) -> bool {
        let name = Name::of(metadata.target());
        let part = self.parts.iter().find(|(part, _)| name.is_of(part));
        metadata.level() <= part.map_or(self.everything, |(_, level)| *level)
    }

    /// Records beyond this level are never logged.
    pub(super) fn most_verbose(&self) -> LevelFilter {
        self.parts.iter().map(|(_, level)| *level).fold(self.everything, Ord::max)
    }
}

impl Default for Levels {
    fn default() -> Levels {
        Levels { everything: LevelFilter::Off, parts: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn the_nearest_part_decides() {
        let parts =
            [("net", LevelFilter::Debug), ("raybox::router", LevelFilter::Trace), ("raybox", LevelFilter::Warn)];
        let parts = parts.map(|(part, level)| (part.to_owned(), level)).to_vec();
        let levels = Levels::new(&LogLevels { everything: LevelFilter::Info, parts });
        let allows = |target, level| levels.allow(&Metadata::builder().target(target).level(level).build());
        assert!(
            allows("raybox::routing::router", Level::Trace) && allows("raybox::routing::router::inner", Level::Trace)
        );
        assert!(!allows("raybox::routing::routers", Level::Info) && allows("raybox::routing::routers", Level::Warn));
        assert!(allows("net", Level::Debug) && !allows("network", Level::Debug) && allows("network", Level::Info));
        assert_eq!(levels.most_verbose(), LevelFilter::Trace);
    }
}
