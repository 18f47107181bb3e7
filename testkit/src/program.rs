//! The server's program: its path, and an environment without the developer's settings.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The path of `server`.
///
/// Cargo passes the paths of the package's programs to each of its tests. A test binary that is
/// started by hand, as under a debugger, does not get them. The program is then in the parent of
/// the test binary's folder.
pub(crate) fn path() -> PathBuf {
    let path = env::var_os("CARGO_BIN_EXE_server").map(PathBuf::from).or_else(|| {
        let test = env::current_exe().ok()?;
        Some(test.parent()?.parent()?.join("server"))
    });
    let path = path.filter(|path| path.is_file());
    path.expect("no program `server` beside the tests: build it with `cargo build --bin server`")
}

/// Removes the variables that set options of the server.
pub(crate) fn remove_settings(command: &mut Command) {
    for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAYBOX_")) {
        command.env_remove(variable);
    }
}
