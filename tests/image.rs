//! The image's build gets every file that `Dockerfile` copies: `.dockerignore` lets all of them
//! through. The test needs no container engine.

use std::fs;
use std::path::Path;

#[test]
fn the_build_of_the_image_gets_the_files_that_it_copies() {
    let allowed = allowed();
    let copied = copied();
    assert!(copied.len() > 5, "{copied:?}");
    for source in &copied {
        assert!(Path::new(source).exists(), "Dockerfile copies {source}, which is not there");
        let is_allowed = allowed.iter().any(|allowed| Path::new(source).starts_with(allowed));
        assert!(is_allowed, ".dockerignore hides {source}, which Dockerfile copies");
    }
}

#[test]
fn the_build_of_the_image_gets_every_manifest() {
    let (allowed, copied) = (allowed(), copied());
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let (_, members) = manifest.split_once("members = [").unwrap();
    let (members, _) = members.split_once(']').unwrap();
    let manifests = members.split(',').map(|member| format!("{}/Cargo.toml", member.trim().trim_matches('"')));
    for file in manifests.chain(["Cargo.toml", "Cargo.lock", "build.rs"].map(str::to_owned)) {
        assert!(copied.contains(&file), "Dockerfile does not copy {file}");
        assert!(allowed.contains(&file), ".dockerignore hides {file}");
    }
}

/// The files that `.dockerignore` lets through; everything else is hidden.
fn allowed() -> Vec<String> {
    let text = fs::read_to_string(".dockerignore").unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(lines[0], "*", "everything is hidden first");
    lines[1..].iter().map(|line| line.strip_prefix('!').expect("an exception").to_owned()).collect()
}

/// The sources of the `COPY` lines, except those that copy from another stage.
fn copied() -> Vec<String> {
    let text = fs::read_to_string("Dockerfile").unwrap();
    let lines = text.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from="));
    let words = lines.map(|line| line.split_whitespace().filter(|word| !word.starts_with("--")).collect::<Vec<_>>());
    words.flat_map(|words| words[1..words.len() - 1].to_vec()).map(str::to_owned).collect()
}
