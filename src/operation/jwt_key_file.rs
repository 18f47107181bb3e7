//! [`JwtKeyFile`]: the file with the keys of JSON web tokens, read at the start, and again when it
//! changes. If a new file is unusable, the previous keys stay in use, and the log states the reason
//! once.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::certificates::Looked;
use super::watched::WatchedFiles;
use crate::config::{JwtAlgorithm, JwtSettings};
use crate::session::jwt::JwtVerifier;
use crate::session::jwt::keys::{JwtKeyError, JwtKeys};

/// The file, and the verifier that uses its keys. Any thread may use it.
#[derive(Debug)]
pub struct JwtKeyFile {
    path: PathBuf,
    algorithm: JwtAlgorithm,
    verifier: Arc<JwtVerifier>,
    state: Mutex<WatchedFiles<Vec<u8>>>,
}

/// The reason why a file has no usable keys. `Display` is one line that names the file and gives
/// advice.
#[derive(Debug)]
pub enum JwtFileError {
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It has no usable keys.
    Unusable(PathBuf, JwtKeyError),
}

/// Keys that were read and are usable.
pub struct NewJwtKeys {
    content: Vec<u8>,
    keys: JwtKeys,
}

impl JwtKeyFile {
    /// Reads the file of these settings; `None` if they name none.
    ///
    /// # Errors
    /// [`JwtFileError`].
    pub fn open(settings: &JwtSettings) -> Result<Option<JwtKeyFile>, JwtFileError> {
        let Some(path) = settings.key_file.clone() else { return Ok(None) };
        let NewJwtKeys { content, keys } = read(&path, settings.algorithm).map_err(|(error, _)| error)?;
        let verifier = Arc::new(JwtVerifier::new(settings, keys));
        let state = Mutex::new(WatchedFiles::new(content));
        Ok(Some(JwtKeyFile { path, algorithm: settings.algorithm, verifier, state }))
    }

    /// The verifier that uses the keys.
    pub fn verifier(&self) -> Arc<JwtVerifier> {
        self.verifier.clone()
    }

    /// Reads the file again, uses its keys if they are new and usable, and logs the result. Blocks
    /// on the disk.
    pub fn look_again(&self) {
        match read(&self.path, self.algorithm) {
            Ok(new) => drop(self.renew(new)),
            Err((error, content)) => {
                if !self.state.lock().is_known_as_broken(content) {
                    log::error!("the keys of JWTs cannot be reloaded, and the previous ones stay in use: {error}");
                }
            }
        }
    }

    /// Reads the file again, for [`JwtKeyFile::renew`]. Blocks on the disk.
    ///
    /// # Errors
    /// [`JwtFileError`]. The caller logs it.
    pub fn read(&self) -> Result<NewJwtKeys, JwtFileError> {
        read(&self.path, self.algorithm).map_err(|(error, content)| {
            self.state.lock().is_known_as_broken(content);
            error
        })
    }

    /// Uses these keys from now on.
    pub fn renew(&self, new: NewJwtKeys) -> Looked {
        let mut state = self.state.lock();
        if state.uses(&new.content) {
            return Looked::Same;
        }
        let count = new.keys.count();
        self.verifier.renew(new.keys);
        *state = WatchedFiles::new(new.content);
        log::info!("new keys of JWTs are in use: {count}");
        Looked::Renewed
    }
}

/// The keys, or the reason why they cannot be used, with the content if it could be read.
fn read(path: &Path, algorithm: JwtAlgorithm) -> Result<NewJwtKeys, (JwtFileError, Option<Vec<u8>>)> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut content));
    if let Err(error) = read {
        return Err((JwtFileError::Unreadable(path.to_owned(), error), None));
    }
    match JwtKeys::parse(&content, algorithm) {
        Ok(keys) => Ok(NewJwtKeys { content, keys }),
        Err(error) => Err((JwtFileError::Unusable(path.to_owned(), error), Some(content))),
    }
}

impl fmt::Display for JwtFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JwtFileError::Unreadable(path, error) => write!(
                f,
                "key jwt_key: cannot read {}: {error}; name a file that the user of the server may read",
                path.display()
            ),
            JwtFileError::Unusable(path, error) => write!(f, "key jwt_key: {}: {error}", path.display()),
        }
    }
}

impl Error for JwtFileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            JwtFileError::Unreadable(_, error) => Some(error),
            JwtFileError::Unusable(_, error) => Some(error),
        }
    }
}

/// The longest file. A wrong name may be that of a device.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_broken_file_keeps_the_old_keys_and_is_logged_once() {
        let folder = std::env::temp_dir().join(format!("raybox-jwt-keys-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("secret");
        let settings =
            JwtSettings { key_file: Some(path.clone()), algorithm: JwtAlgorithm::Hs256, ..JwtSettings::default() };
        let why = JwtKeyFile::open(&settings).expect_err("there is no file").to_string();
        assert!(why.contains("secret") && !why.contains('\n'), "{why}");
        fs::write(&path, "a".repeat(32)).expect("the folder is there");
        let file = JwtKeyFile::open(&settings).expect("it is good").expect("it is named");
        let look = || file.read().map(|new| file.renew(new)).map_err(|error| error.to_string());
        assert_eq!(look(), Ok(Looked::Same));
        fs::write(&path, "short").expect("the folder is there");
        assert!(look().expect_err("it is too short").contains("5 bytes"));
        assert!(file.state.lock().is_known_as_broken(Some(b"short".to_vec())), "it is not logged again");
        fs::write(&path, "b".repeat(32)).expect("the folder is there");
        file.look_again();
        assert_eq!(look(), Ok(Looked::Same), "the look has renewed them");
        fs::remove_file(&path).expect("it is there");
        file.look_again();
        fs::write(&path, "b".repeat(32)).expect("the folder is there");
        assert_eq!(look(), Ok(Looked::Renewed), "the file is back");
        fs::remove_dir_all(&folder).expect("it is there");
    }
}
