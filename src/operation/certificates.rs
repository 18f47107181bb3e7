//! [`CertificateFiles`]: the certificates of the client port, read from files, and reloaded when
//! these change.
//!
//! Programs that renew certificates replace files while the server runs, perhaps one after the
//! other. So new files that do not fit together change nothing: the certificates in use stay, the
//! log states the reason once, and the next check finds the files complete. New certificates apply
//! to new connections.

mod validity;

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use net::{Certificate, Tls, TlsError};
use parking_lot::Mutex;

use super::watched::WatchedFiles;
use crate::config::TlsFiles;

/// The files, their contents, and the TLS that uses them. Any thread may use it.
#[derive(Debug)]
pub struct CertificateFiles {
    files: Vec<TlsFiles>,
    tls: Arc<Tls>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    watched: WatchedFiles<Contents>,
    ends: Vec<End>,
    warned: Option<SystemTime>,
}

/// The text of each certificate and of its key.
type Contents = Vec<(Vec<u8>, Vec<u8>)>;

/// The time at which a certificate expires.
#[derive(Clone, Debug)]
struct End {
    file: String,
    at: SystemTime,
}

/// The reason why there are no certificates. `Display` is one line that names the file and gives
/// advice.
#[derive(Debug)]
pub enum CertificateError {
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The first file, with the second as its key, cannot be used.
    Unusable(PathBuf, PathBuf, TlsError),
    /// TLS cannot be used at all.
    Tls(TlsError),
}

/// The result of another check that found usable files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Looked {
    /// They are unchanged.
    Same,
    /// New connections get other certificates from now on.
    Renewed,
}

/// Unusable files; the previous certificates stay in use.
struct Broken {
    error: CertificateError,
    /// Whether the last check found the same.
    is_known: bool,
}

impl CertificateFiles {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// If one cannot be read, or they do not belong together.
    pub fn open(files: &[TlsFiles]) -> Result<CertificateFiles, CertificateError> {
        let contents = read_all(files)?;
        let certificates = parse(files, &contents)?;
        let ends = ends(files, &certificates);
        let tls = Arc::new(Tls::new(certificates).map_err(CertificateError::Tls)?);
        let state = State { watched: WatchedFiles::new(contents), ends, warned: None };
        let opened = CertificateFiles { files: files.to_vec(), tls, state: Mutex::new(state) };
        opened.warn_of_ends(SystemTime::now());
        Ok(opened)
    }

    /// The TLS that uses these certificates.
    pub fn tls(&self) -> Arc<Tls> {
        self.tls.clone()
    }

    /// Reads the files again, uses them if they are new and valid, and logs the result. Blocks on
    /// the disk.
    pub fn look_again(&self, now: SystemTime) {
        if let Err(Broken { error, is_known }) = self.renew()
            && !is_known
        {
            log::error!("the certificates cannot be reloaded, and the previous ones stay in use: {error}");
        }
        self.warn_of_ends(now);
    }

    /// The same for a caller that gets the reason why files are unusable, and logs it.
    ///
    /// # Errors
    ///
    /// As those of [`CertificateFiles::open`]; the previous certificates stay in use.
    pub fn renew_now(&self, now: SystemTime) -> Result<Looked, CertificateError> {
        let looked = self.renew().map_err(|broken| broken.error);
        self.warn_of_ends(now);
        looked
    }

    fn renew(&self) -> Result<Looked, Broken> {
        let contents = read_all(&self.files).map_err(|error| self.broken(None, error))?;
        let state = self.state.lock();
        if state.watched.uses(&contents) {
            return Ok(Looked::Same);
        }
        drop(state);
        let certificates = match parse(&self.files, &contents) {
            Ok(certificates) => certificates,
            Err(error) => return Err(self.broken(Some(contents), error)),
        };
        let ends = ends(&self.files, &certificates);
        if let Err(error) = self.tls.renew(certificates) {
            return Err(self.broken(Some(contents), CertificateError::Tls(error)));
        }
        log::info!("new certificates are in use, for new connections");
        *self.state.lock() = State { watched: WatchedFiles::new(contents), ends, warned: None };
        Ok(Looked::Renewed)
    }

    /// Notes that files with these contents are unusable.
    fn broken(&self, contents: Option<Contents>, error: CertificateError) -> Broken {
        Broken { error, is_known: self.state.lock().watched.is_known_as_broken(contents) }
    }

    /// The file of each certificate in use, and the time until it expires: zero if it has expired.
    pub fn left(&self, now: SystemTime) -> Vec<(String, Duration)> {
        let ends = self.state.lock().ends.clone();
        ends.into_iter().map(|end| (end.file, end.at.duration_since(now).unwrap_or_default())).collect()
    }

    /// Logs the certificates that expire soon, once a day.
    fn warn_of_ends(&self, now: SystemTime) {
        let mut state = self.state.lock();
        let is_due = state.warned.is_none_or(|at| now.duration_since(at).is_ok_and(|passed| passed >= DAY));
        let soon: Vec<End> = state.ends.iter().filter(|end| end.at < now + 14 * DAY).cloned().collect();
        if soon.is_empty() || !is_due {
            return;
        }
        state.warned = Some(now);
        drop(state);
        for End { file, at } in soon {
            match at.duration_since(now) {
                Ok(left) => log::warn!(
                    "the certificate {file} ends in {} days; renew it, the server reads it again by itself",
                    left.as_secs() / DAY.as_secs()
                ),
                Err(_) => log::error!("the certificate {file} has expired, and clients refuse it; renew it"),
            }
        }
    }
}

fn read_all(files: &[TlsFiles]) -> Result<Contents, CertificateError> {
    files.iter().map(|TlsFiles { certificate, key }| Ok((read(certificate)?, read(key)?))).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut contents = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut contents))
        .map_err(|error| CertificateError::Unreadable(path.to_owned(), error))?;
    Ok(contents)
}

fn parse(files: &[TlsFiles], contents: &Contents) -> Result<Vec<Certificate>, CertificateError> {
    let one = |(TlsFiles { certificate, key }, (chain, private)): (&TlsFiles, &(Vec<u8>, Vec<u8>))| {
        Certificate::of_pem(chain, private)
            .map_err(|error| CertificateError::Unusable(certificate.clone(), key.clone(), error))
    };
    files.iter().zip(contents).map(one).collect()
}

/// The expiry of each certificate for which it can be read.
fn ends(files: &[TlsFiles], certificates: &[Certificate]) -> Vec<End> {
    let pairs = files.iter().zip(certificates);
    let one = |(files, certificate): (&TlsFiles, &Certificate)| {
        let file = files.certificate.display().to_string();
        let at = validity::end_of(certificate.der());
        if at.is_none() {
            log::warn!("cannot read the expiry date of the certificate {file}");
        }
        Some(End { file, at: at? })
    };
    pairs.filter_map(one).collect()
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertificateError::Unreadable(path, error) => write!(
                f,
                "key tls_cert or tls_key: cannot read {}: {error}; name a file in PEM format that the user of the server \
                 may read",
                path.display()
            ),
            CertificateError::Unusable(certificate, key, error @ (TlsError::NoKey | TlsError::BadKey(_))) => {
                write!(f, "key tls_key: {} for {}: {error}", key.display(), certificate.display())
            }
            CertificateError::Unusable(certificate, key, TlsError::OtherKey) => write!(
                f,
                "key tls_key: the private key in {} is not that of the first certificate in {}; the certificate of the \
                 server comes first, those of its issuers behind it",
                key.display(),
                certificate.display()
            ),
            CertificateError::Unusable(certificate, _, error) => {
                write!(f, "key tls_cert: {}: {error}", certificate.display())
            }
            CertificateError::Tls(error) => write!(f, "TLS: {error}"),
        }
    }
}

impl Error for CertificateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CertificateError::Unreadable(_, error) => Some(error),
            CertificateError::Unusable(_, _, error) | CertificateError::Tls(error) => Some(error),
        }
    }
}

const DAY: Duration = Duration::from_hours(24);
/// The longest file: more than the longest chain needs. A wrong name may be that of a device.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::UNIX_EPOCH;

    use super::*;

    fn made(end: (i32, u8, u8)) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("random bytes");
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    fn folder() -> PathBuf {
        static NTH: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let nth = NTH.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("raybox-certificates-{}-{nth}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn new_files_are_used_and_broken_ones_are_not() {
        let folder = folder();
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let files = [TlsFiles { certificate: certificate.clone(), key: key.clone() }];
        let write = |(chain, private): &(String, String)| {
            fs::write(&certificate, chain).expect("the folder is there");
            fs::write(&key, private).expect("the folder is there");
        };
        assert!(CertificateFiles::open(&files).expect_err("no files").to_string().contains("cert.pem"));
        let first = made((2040, 1, 1));
        write(&first);
        let opened = CertificateFiles::open(&files).expect("they are good");
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let look = || opened.renew().map_err(|broken| broken.is_known);
        assert_eq!(look(), Ok(Looked::Same));
        let left = opened.left(now);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].1, Duration::from_secs(2_208_988_800 - 1_800_000_000));
        let second = made((2041, 1, 1));
        // One file after the other.
        fs::write(&certificate, &second.0).expect("the folder is there");
        assert_eq!(look(), Err(false));
        assert_eq!(look(), Err(true), "and it is not logged again");
        let why = opened.renew_now(now).expect_err("each request gets the error").to_string();
        assert!(why.contains("key.pem") && !why.contains('\n'), "{why}");
        assert_eq!(opened.left(now), left, "the old one is in use");
        fs::write(&key, &second.1).expect("the folder is there");
        assert_eq!(look(), Ok(Looked::Renewed));
        assert!(opened.left(now)[0].1 > left[0].1);
        fs::remove_file(&key).expect("it is there");
        assert_eq!(look(), Err(false));
        fs::write(&key, &second.1).expect("the folder is there");
        assert_eq!(look(), Ok(Looked::Renewed), "they are back");
        assert_eq!(look(), Ok(Looked::Same));
        let late = UNIX_EPOCH + Duration::from_secs(3_000_000_000);
        assert_eq!(opened.left(late)[0].1, Duration::ZERO);
        fs::remove_dir_all(&folder).expect("it is there");
    }
}
