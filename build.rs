//! Lists the files of `web/` for `src/web/files.rs`: each is compiled in, as it is and compressed.
//! A new file needs nothing else than to lie there.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::fs;
use std::hash::Hasher as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> io::Result<()> {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("web");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = Vec::new();
    list(&root, &root, &mut files)?;
    files.sort();
    let mut table = String::from("static FILES: &[WebFile] = &[\n");
    for (nth, (path, file, content_type)) in files.iter().enumerate() {
        let bytes = fs::read(file)?;
        let gzip = match compressed(&bytes)? {
            gzip if gzip.len() < bytes.len() => {
                let place = out.join(format!("web_{nth}.gz"));
                fs::write(&place, gzip)?;
                format!("Some(include_bytes!({:?}))", text(&place)?)
            }
            _ => "None".to_owned(),
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        let hash = hasher.finish();
        writeln!(
            table,
            "    WebFile {{ path: {path:?}, content_type: {content_type:?}, hash: \"{hash:016x}\", \
             bytes: include_bytes!({:?}), gzip: {gzip} }},",
            text(file)?
        )
        .map_err(io::Error::other)?;
    }
    table.push_str("];\n");
    fs::write(out.join("web_files.rs"), table)
}

/// Everything that a browser loads. Tests, settings of tools and documents are for developers.
fn list(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf, &'static str)>) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = text(path.file_name().map(Path::new).unwrap_or(&path))?;
        let is_for_developers = name.starts_with('.')
            || ["test", "tests", "node_modules", "package.json", "package-lock.json"].contains(&name)
            || [".test.js", ".test.mjs", ".config.js", ".config.mjs", ".d.ts"].iter().any(|end| name.ends_with(end))
            || name.starts_with("tsconfig");
        if is_for_developers {
            continue;
        }
        if path.is_dir() {
            list(root, &path, files)?;
        } else if let Some(content_type) = content_type(&path) {
            println!("cargo::rerun-if-changed={}", path.display());
            let name = format!("/{}", text(path.strip_prefix(root).unwrap_or(&path))?);
            files.push((name, path, content_type));
        }
    }
    Ok(())
}

/// The type of a file by its extension; `None` if no browser asks for such a file.
fn content_type(file: &Path) -> Option<&'static str> {
    Some(match file.extension()?.to_str()? {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn text(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::other(format!("{} is not in UTF-8", path.display())))
}
