//! Reads the key of the hook, and checks that the settings of the hook fit each other.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::cluster_settings::Secret;
use super::error::ConfigError;
use super::hook::is_public;
use super::settings::{Config, RecordingScope};

/// Reads the key, and checks that the settings fit each other.
pub(super) fn read(config: &mut Config, working_dir: &Path) -> Result<(), ConfigError> {
    let Some(address) = config.hook_url.0.clone() else { return Ok(()) };
    let refuse = |key, problem: String| Err(ConfigError::Hook { key, problem });
    let Some(file) = config.hook_key.0.clone() else {
        return refuse("hook_key", "hook_url needs a key; make one with `openssl rand -hex 32 > hook.key`".to_owned());
    };
    match read_key(&working_dir.join(&file)) {
        Ok((key, mode)) => {
            config.hook_secret = Some(Secret::new(&key));
            let shown = file.display();
            if mode & 0o004 != 0 {
                config.notes.push(format!(
                    "{shown} is the key of the hook and every user of this machine can read it; chmod 640 {shown}"
                ));
            }
        }
        Err(problem) => return refuse("hook_key", format!("{}: {problem}", file.to_string_lossy().escape_debug())),
    }
    let literal = address.host.parse::<IpAddr>().ok();
    let is_allowed = |ip| config.hook_private.0.as_ref().is_some_and(|networks| networks.contains(ip));
    if let Some(ip) = literal.filter(|ip| !is_public(*ip) && !is_allowed(*ip)) {
        return refuse("hook_url", format!("{ip} is not a public address; if it is meant, name it in hook_private"));
    }
    let is_near = address.host == "localhost" || literal.is_some_and(|ip| !is_public(ip));
    if !address.is_secure && !is_near {
        config.notes.push(format!(
            "hook_url: http sends messages to {} readable for everybody on the way; use https",
            address.authority()
        ));
    }
    if config.recorded == RecordingScope::Nothing {
        config.notes.push("hook_url has no effect with history=off".to_owned());
    }
    Ok(())
}

/// The text of the file without white space at its ends, and the file's mode.
fn read_key(path: &Path) -> Result<(String, u32), String> {
    let mut file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mode = file.metadata().map_or(0, |metadata| metadata.mode());
    let mut bytes = Vec::new();
    let read = file.by_ref().take(KEY_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > KEY_BYTES_MAX {
        return Err(format!("is longer than {KEY_BYTES_MAX} bytes; is it the right file?"));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| "is not UTF-8; make a key with `openssl rand -hex 32`".to_owned())?;
    let key = text.trim();
    if key.len() < KEY_BYTES_MIN {
        return Err(format!(
            "holds {} bytes, and a key has at least {KEY_BYTES_MIN}; make one with `openssl rand -hex 32`",
            key.len()
        ));
    }
    Ok((key.to_owned(), mode))
}

/// Nobody guesses 32 random characters.
const KEY_BYTES_MIN: usize = 32;
const KEY_BYTES_MAX: u64 = 4096;
