//! The form of the settings files: `key=value` lines, `#` comments.

use std::fs;
use std::io;
use std::path::Path;

use super::error::{ConfigError, SettingSource};

/// The text of a settings file. Invalid UTF-8, as in comments that an editor has saved as GBK, is
/// replaced. [`settings_in`] refuses a name or value that contained any.
pub(super) fn read(path: &Path) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// One `key=value` of a file.
pub(super) struct Setting<'a> {
    /// The line number, counted from 1.
    pub(super) line: usize,
    pub(super) name: &'a str,
    pub(super) value: &'a str,
}

/// The settings of a file, each key at most once.
pub(super) fn settings_in<'a>(path: &Path, text: &'a str) -> Result<Vec<Setting<'a>>, ConfigError> {
    let mut settings: Vec<Setting<'a>> = Vec::new();
    // Editors of another system may write a byte order mark at the beginning.
    for (line, text) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let place = || SettingSource::Line(path.to_owned(), line);
        let text = without_comment(text);
        if text.is_empty() {
            continue;
        }
        let Some((name, value)) = text.split_once('=') else {
            return Err(ConfigError::BadLine { place: place(), text: text.to_owned() });
        };
        let (name, value) = (name.trim_end(), value.trim_start());
        if text.contains([char::REPLACEMENT_CHARACTER, '\0']) {
            return Err(ConfigError::NotUtf8 { place: place(), name: name.to_owned() });
        }
        if let Some(first) = settings.iter().find(|setting| setting.name == name) {
            return Err(ConfigError::RepeatedKey { place: place(), name: name.to_owned(), first_line: first.line });
        }
        settings.push(Setting { line, name, value });
    }
    Ok(settings)
}

/// Removes a comment: `#` at the beginning or after a blank, so that a path may contain one.
fn without_comment(line: &str) -> &str {
    let comment = line.char_indices().find(|&(at, c)| c == '#' && !line[..at].ends_with(|c: char| !c.is_whitespace()));
    line[..comment.map_or(line.len(), |(at, _)| at)].trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Vec<(usize, String, String)>, String> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let settings = settings_in(Path::new("mysql.cnf"), &text).map_err(|error| error.to_string())?;
        Ok(settings.into_iter().map(|s| (s.line, s.name.to_owned(), s.value.to_owned())).collect())
    }

    /// "数据库" in GBK.
    const GBK: &[u8] = b"\xca\xfd\xbe\xdd\xbf\xe2";

    #[test]
    fn comments_of_another_encoding_do_no_harm() {
        let text = [b"# ", GBK, b"\nip=127.0.0.1 # ", GBK, b"\r\nport=3306\n#", GBK].concat();
        let expected = [(2, "ip", "127.0.0.1"), (3, "port", "3306")];
        assert_eq!(
            parse(&text),
            Ok(expected.map(|(line, name, value)| (line, name.to_owned(), value.to_owned())).to_vec())
        );
    }

    #[test]
    fn a_name_or_value_of_another_encoding_is_refused_and_not_shown() {
        let advice = "is not UTF-8; save the file as UTF-8";
        let secret = [b"port=3306\npassword=", GBK].concat();
        assert_eq!(parse(&secret), Err(format!("mysql.cnf, line 2: key password {advice}")));
        let utf16: Vec<u8> = "ip=127.0.0.1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(parse(&utf16), Err(format!("mysql.cnf, line 1: key i\\0p\\0 {advice}")));
    }
}
