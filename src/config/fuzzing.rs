//! Fuzzes the parsers of the three settings files.

use std::path::Path;

use super::{Config, ConfigError, apply_lines, cluster};

/// Takes the bytes as a file. An error is one line that says where it is, and the order of the
/// lines does not change the result.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Files that a setting names are opened, and opening a device may have side effects.
    if text.contains("/dev") || text.contains("/proc") || text.contains("..") {
        return;
    }
    let lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
    // A byte order mark is skipped only at the start of a file, so the reversed order would keep
    // the last line's mark.
    if lines.last().is_some_and(|last| last.starts_with('\u{feff}')) {
        return;
    }
    let reversed: Vec<&str> = lines.iter().rev().copied().collect();
    let reversed = reversed.join("\r\n");
    for (file, apply) in READERS {
        let read = |text: &str| {
            let mut config = Config::with_defaults(([127, 0, 0, 1], 0).into());
            apply(&mut config, Path::new(file), text).map(|()| {
                // Both contain line numbers.
                config.notes.clear();
                config.given.clear();
                format!("{config:?}")
            })
        };
        let settings = read(&text);
        match &settings {
            Ok(settings) => assert_eq!(read(&reversed).ok().as_ref(), Some(settings), "{file} backwards"),
            Err(error) => {
                assert_one_line(file, error, lines.len());
                assert!(read(&reversed).is_err(), "{file} is right backwards: {error}");
            }
        }
    }
}

type Reader = fn(&mut Config, &Path, &str) -> Result<(), ConfigError>;

const READERS: [(&str, Reader); 3] = [
    ("server.cnf", |config, file, text| apply_lines(config, file, text)),
    ("mysql.cnf", |config, file, text| {
        let mysql = cluster::mysql(file, text, Path::new(NOWHERE), &mut config.notes)?;
        assert!(mysql.initial_size <= mysql.max_size && !mysql.servers.is_empty());
        assert!(mysql.servers.iter().all(|server| server.port > 0 && !server.host.is_empty()));
        config.mysql = Some(mysql);
        Ok(())
    }),
    ("redis.cnf", |config, file, text| {
        let redis = cluster::redis(file, text, Path::new(NOWHERE), &mut config.notes)?;
        assert!(redis.size > 0 && redis.db >= 0 && !redis.place.to_string().is_empty());
        config.redis = Some(redis);
        Ok(())
    }),
];

const NOWHERE: &str = "/nonexistent";

fn assert_one_line(file: &str, error: &ConfigError, lines: usize) {
    let text = error.to_string();
    assert!(!text.contains(char::is_control), "{text:?}");
    let Some(place) = text.strip_prefix(file) else { panic!("{file} is not named: {text}") };
    if matches!(error, ConfigError::MissingKey { .. }) {
        return;
    }
    let line = place.strip_prefix(", line ").and_then(|rest| rest.split(':').next()).and_then(|line| line.parse().ok());
    assert!(line.is_some_and(|line: usize| (1..=lines).contains(&line)), "no line of {lines}: {text}");
}
