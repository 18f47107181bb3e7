//! [`CertificateFiles`]: the certificates of the port, read from files, and read again when those
//! change.
//!
//! Programs that renew certificates replace files while the server runs, perhaps one after the
//! other. So new files that do not fit together change nothing: the certificates in use stay, the
//! log says why once, and the next look finds the files whole. New certificates are for new
//! connections.

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

use crate::config::TlsFiles;

/// The files, what was read from them, and the TLS that uses them. Any thread may use it.
#[derive(Debug)]
pub struct CertificateFiles {
    files: Vec<TlsFiles>,
    tls: Arc<Tls>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The contents at the last look, good or not; nothing if they could not be read.
    seen: Option<Contents>,
    /// Whether the last look found files that cannot be used, which was logged.
    is_broken: bool,
    ends: Vec<End>,
    warned: Option<SystemTime>,
}

/// The text of each certificate and of its key.
type Contents = Vec<(Vec<u8>, Vec<u8>)>;

/// When a certificate ends.
#[derive(Clone, Debug)]
struct End {
    file: String,
    at: SystemTime,
}

/// Why there are no certificates. `Display` is one line that names the file, and says what to do.
#[derive(Debug)]
pub enum CertificateError {
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// The first file, with the second as its key, cannot be used.
    Unusable(PathBuf, PathBuf, TlsError),
    /// TLS cannot be spoken at all.
    Tls(TlsError),
}

/// The result of another look at the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Looked {
    /// They are as before.
    Same,
    /// New connections are shown other certificates from now on.
    Renewed,
    /// They cannot be used; those before them stay in use.
    Broken,
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
        let state = State { seen: Some(contents), is_broken: false, ends, warned: None };
        let opened = CertificateFiles { files: files.to_vec(), tls, state: Mutex::new(state) };
        opened.warn_of_ends(SystemTime::now());
        Ok(opened)
    }

    /// The TLS that shows these certificates.
    pub fn tls(&self) -> Arc<Tls> {
        self.tls.clone()
    }

    /// Reads the files again, uses them if they are new and good, and logs what there is to log. It
    /// blocks on the disk.
    pub fn look_again(&self, now: SystemTime) -> Looked {
        let looked = self.renew();
        self.warn_of_ends(now);
        looked
    }

    fn renew(&self) -> Looked {
        let contents = match read_all(&self.files) {
            Ok(contents) => contents,
            Err(error) => return self.note_broken(None, &error),
        };
        if self.state.lock().seen.as_ref() == Some(&contents) {
            return if self.state.lock().is_broken { Looked::Broken } else { Looked::Same };
        }
        let certificates = match parse(&self.files, &contents) {
            Ok(certificates) => certificates,
            Err(error) => return self.note_broken(Some(contents), &error),
        };
        let ends = ends(&self.files, &certificates);
        if let Err(error) = self.tls.renew(certificates) {
            return self.note_broken(Some(contents), &CertificateError::Tls(error));
        }
        log::info!("new certificates are in use, for new connections");
        *self.state.lock() = State { seen: Some(contents), is_broken: false, ends, warned: None };
        Looked::Renewed
    }

    /// Logs why the files cannot be used, unless that was logged for the same contents.
    fn note_broken(&self, contents: Option<Contents>, error: &CertificateError) -> Looked {
        let mut state = self.state.lock();
        let is_known = state.is_broken && state.seen == contents;
        (state.is_broken, state.seen) = (true, contents);
        drop(state);
        if !is_known {
            log::error!("the certificates were not renewed, and those from before stay in use: {error}");
        }
        Looked::Broken
    }

    /// The file of each certificate in use, and the time until it ends: nothing once it has ended.
    pub fn left(&self, now: SystemTime) -> Vec<(String, Duration)> {
        let ends = self.state.lock().ends.clone();
        ends.into_iter().map(|end| (end.file, end.at.duration_since(now).unwrap_or_default())).collect()
    }

    /// Logs which certificates end soon, once a day.
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
                Err(_) => log::error!("the certificate {file} has ended, and clients refuse it; renew it"),
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

/// When each of them ends, of those of which that can be read.
fn ends(files: &[TlsFiles], certificates: &[Certificate]) -> Vec<End> {
    let pairs = files.iter().zip(certificates);
    let one = |(files, certificate): (&TlsFiles, &Certificate)| {
        let file = files.certificate.display().to_string();
        let at = validity::end_of(certificate.der());
        if at.is_none() {
            log::warn!("when the certificate {file} ends cannot be read from it");
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
/// More than the longest chain; a wrong name may be that of a device.
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
        assert_eq!(opened.look_again(now), Looked::Same);
        let left = opened.left(now);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].1, Duration::from_secs(2_208_988_800 - 1_800_000_000));
        let second = made((2041, 1, 1));
        // One file after the other.
        fs::write(&certificate, &second.0).expect("the folder is there");
        assert_eq!(opened.look_again(now), Looked::Broken);
        assert_eq!(opened.look_again(now), Looked::Broken, "and it is not logged again");
        assert_eq!(opened.left(now), left, "the old one is in use");
        fs::write(&key, &second.1).expect("the folder is there");
        assert_eq!(opened.look_again(now), Looked::Renewed);
        assert!(opened.left(now)[0].1 > left[0].1);
        fs::remove_file(&key).expect("it is there");
        assert_eq!(opened.look_again(now), Looked::Broken);
        fs::write(&key, &second.1).expect("the folder is there");
        assert_eq!(opened.look_again(now), Looked::Renewed, "they are back");
        assert_eq!(opened.look_again(now), Looked::Same);
        let late = UNIX_EPOCH + Duration::from_secs(3_000_000_000);
        assert_eq!(opened.left(late)[0].1, Duration::ZERO);
        fs::remove_dir_all(&folder).expect("it is there");
    }
}
