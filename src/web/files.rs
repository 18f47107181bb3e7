//! The files of `web/`, compiled in: `build.rs` lists them.
//!
//! A file keeps its name when its content changes. So browsers ask each time whether it has
//! changed, and usually get a 304.

use super::answer::{Composer, WebAnswer};
use super::request::{Persistence, RequestHead};

/// A file of the web client.
struct WebFile {
    /// The path, with a leading slash.
    path: &'static str,
    content_type: &'static str,
    /// The hash of its content, without quotes.
    hash: &'static str,
    bytes: &'static [u8],
    /// The compressed content, if that is shorter.
    gzip: Option<&'static [u8]>,
}

// `static FILES: &[WebFile]`, by path.
include!(concat!(env!("OUT_DIR"), "/web_files.rs"));

/// The file at this path, for a GET or a HEAD.
pub(super) fn answer(request: &RequestHead<'_>) -> Option<WebAnswer> {
    let path = if request.path == "/" { "/index.html" } else { request.path };
    let at = FILES.binary_search_by(|file| file.path.cmp(path)).ok()?;
    let file = &FILES[at];
    let gzip = file.gzip.filter(|_| accepts_gzip(request));
    let tag = if gzip.is_some() { format!("\"{}-gzip\"", file.hash) } else { format!("\"{}\"", file.hash) };
    let status = if has(request, &tag) { 304 } else { 200 };
    let composer = Composer::new(status, request.persistence()).header("ETag", &tag);
    let composer = composer.header("Cache-Control", "no-cache").header("Vary", "Accept-Encoding");
    let composer = composer.policy(request.host.as_ref());
    if status == 304 {
        return Some(composer.bodiless());
    }
    let composer = composer.header("Content-Type", file.content_type);
    let with_body = request.method != "HEAD";
    Some(match gzip {
        Some(bytes) => composer.header("Content-Encoding", "gzip").body(bytes, with_body),
        None => composer.body(file.bytes, with_body),
    })
}

/// The answer if no file has this path.
pub(super) fn none(request: &RequestHead<'_>) -> WebAnswer {
    let composer = Composer::new(404, request.persistence());
    composer.text("there is nothing here; the web client is at /\n", request.method != "HEAD")
}

/// The answer to a method that files do not have.
pub(super) fn not_allowed(allow: &str) -> WebAnswer {
    let composer = Composer::new(405, Persistence::Closes).header("Allow", allow);
    composer.text("this path does not know that method\n", true)
}

/// Whether there is a file at this path.
pub(super) fn is_there(path: &str) -> bool {
    path == "/" || FILES.binary_search_by(|file| file.path.cmp(path)).is_ok()
}

/// Whether the client has the file with this tag.
fn has(request: &RequestHead<'_>, tag: &str) -> bool {
    let tags = request.all("if-none-match").filter_map(|value| std::str::from_utf8(value).ok());
    let mut tags = tags.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|other| other == "*" || other.strip_prefix("W/").unwrap_or(other) == tag)
}

/// Whether gzip is among the accepted encodings, with a weight above 0.
fn accepts_gzip(request: &RequestHead<'_>) -> bool {
    let values = request.all("accept-encoding").filter_map(|value| std::str::from_utf8(value).ok());
    let mut codings = values.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")).and_then(|weight| weight.parse::<f32>().ok());
        is_gzip && weight != Some(0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, headers: &str) -> Option<(String, Vec<u8>)> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a.org\r\n{headers}\r\n");
        let request = RequestHead::read(head.as_bytes()).expect("a request");
        let bytes = answer(&request)?.bytes;
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
        Some((String::from_utf8(bytes[..end].to_vec()).expect("text"), bytes[end + 4..].to_vec()))
    }

    #[test]
    fn the_table_is_sorted_and_has_a_page() {
        assert!(FILES.is_sorted_by(|a, b| a.path < b.path));
        assert!(FILES.iter().all(|file| file.path.starts_with('/') && !file.content_type.is_empty()));
        let (head, body) = get("/", "").expect("a page");
        assert!(head.contains("Content-Type: text/html; charset=utf-8"), "{head}");
        assert!(head.contains("connect-src 'self' wss://a.org ws://a.org;"), "{head}");
        assert_eq!(get("/index.html", "").expect("the same").1, body);
        assert!(get("/../Cargo.toml", "").is_none() && get("/index", "").is_none());
    }

    #[test]
    fn a_file_that_a_browser_has_is_not_sent_again() {
        let (head, _) = get("/", "").expect("a page");
        let tag = head.split("ETag: ").nth(1).and_then(|rest| rest.lines().next()).expect("a tag");
        for known in [tag.to_owned(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let (head, body) = get("/", &format!("If-None-Match: {known}\r\n")).expect("a page");
            assert!(head.starts_with("HTTP/1.1 304 ") && body.is_empty(), "{head}");
            assert!(head.contains(&format!("ETag: {tag}")) && !head.contains("Content-Length"), "{head}");
        }
        assert!(get("/", "If-None-Match: \"x\"\r\n").expect("a page").0.starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn compressed_files_are_for_those_who_want_them() {
        let Some(file) = FILES.iter().find(|file| file.gzip.is_some()) else { return };
        for (accepted, is_compressed) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("*", false)]
        {
            let (head, body) = get(file.path, &format!("Accept-Encoding: {accepted}\r\n")).expect("a file");
            assert_eq!(head.contains("Content-Encoding: gzip"), is_compressed, "{accepted}: {head}");
            assert_eq!(body, if is_compressed { file.gzip.expect("it has") } else { file.bytes });
            assert!(head.contains("Vary: Accept-Encoding"));
        }
    }
}
