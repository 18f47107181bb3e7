//! [`Levels`]: the records that are logged.

use log::{LevelFilter, Metadata};

use super::names::Name;
use crate::admission::audit;
use crate::config::LogLevels;

/// The least important level that is logged, for the whole program and for parts of it.
#[derive(Debug)]
pub(super) struct Levels {
    everything: LevelFilter,
    /// The levels of parts, longer names first, so that the most specific one decides.
    parts: Vec<(String, LevelFilter)>,
    /// Of the audit log: that of the settings, which nobody changes at run time. A quieter log
    /// keeps it, unless the settings name it.
    audit: LevelFilter,
}

impl Levels {
    /// The levels of the settings.
    pub(super) fn new(levels: &LogLevels) -> Levels {
        let mut parts = levels.parts.clone();
        parts.sort_by_key(|(part, _)| std::cmp::Reverse(part.len()));
        let mut levels = Levels { everything: levels.everything, parts, audit: LevelFilter::Off };
        let is_named = levels.parts.iter().any(|(part, _)| part == audit::TARGET);
        let of_audit = levels.of(audit::TARGET);
        levels.audit = if is_named { of_audit } else { of_audit.max(LevelFilter::Info) };
        levels
    }

    /// The levels set by an administrator, without the audit level.
    pub(super) fn with(&self, levels: &LogLevels) -> Levels {
        Levels { audit: self.audit, ..Levels::new(levels) }
    }

    /// Whether this record is logged.
    pub(super) fn allow(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        metadata.level() <= if target == audit::TARGET { self.audit } else { self.of(target) }
    }

    fn of(&self, target: &str) -> LevelFilter {
        let name = Name::of(target);
        let part = self.parts.iter().find(|(part, _)| name.is_of(part));
        part.map_or(self.everything, |(_, level)| *level)
    }

    /// The levels, as in the setting.
    pub(super) fn shown(&self) -> String {
        LogLevels { everything: self.everything, parts: self.parts.clone() }.to_string()
    }

    /// Records beyond this level are never logged.
    pub(super) fn most_verbose(&self) -> LevelFilter {
        self.parts.iter().map(|(_, level)| *level).fold(self.everything.max(self.audit), Ord::max)
    }
}

impl Default for Levels {
    fn default() -> Levels {
        Levels { everything: LevelFilter::Off, parts: Vec::new(), audit: LevelFilter::Off }
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn an_administrator_changes_everything_but_the_audit_log() {
        for (settings, is_audited) in
            [("info", true), ("info,audit=off", false), ("warn,audit=warn", false), ("warn", true), ("off", true)]
        {
            let of_settings = Levels::new(&LogLevels::parse(settings).expect("levels"));
            for later in ["off", "info", "error,raybox=trace"] {
                let levels = of_settings.with(&LogLevels::parse(later).expect("levels"));
                let record = Metadata::builder().target(audit::TARGET).level(Level::Info).build();
                assert_eq!(levels.allow(&record), is_audited, "{settings}, {later}");
                assert!(!is_audited || levels.most_verbose() >= LevelFilter::Info, "{settings}, {later}");
                assert_eq!(levels.shown(), later);
            }
        }
    }

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
        let shown = levels.shown();
        assert_eq!(shown, "info,raybox::router=trace,raybox=warn,net=debug");
        assert_eq!(LogLevels::parse(&shown).map(|levels| Levels::new(&levels).shown()), Some(shown));
    }
}
