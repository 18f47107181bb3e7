//! The web client and its library: types and style, the library in Node, users in real browsers,
//! and the same behind nginx while a node dies. The tests themselves are in `tests/browser/`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{Cluster, Nginx, Workplace, exit_within, output_within, wait_within, watchdog};

/// The longest time for one run of Node's tests on a busy machine.
const NODE_PATIENCE: Duration = Duration::from_secs(600);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser")
}

/// A Node process in the folder of the tests, with the path of the server's program.
fn node(arguments: &[&str]) -> Command {
    let mut command = Command::new("node");
    // The developer's settings must not reach the servers.
    for (variable, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAYBOX_")) {
        command.env_remove(variable);
    }
    command.args(arguments).current_dir(folder()).env("RAYBOX_SERVER", env!("CARGO_BIN_EXE_server"));
    if let Some(pictures) = env::var_os("WEB_PICTURES") {
        command.env("RAYBOX_PICTURES", pictures);
    }
    command
}

/// The test files in a folder. Node's own search differs between its versions.
fn tests_in(name: &str) -> Vec<String> {
    let entries = fs::read_dir(folder().join(name)).expect("read the folder of the tests");
    let files = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut tests: Vec<String> =
        files.filter(|file| file.ends_with(".test.js")).map(|file| format!("{name}/{file}")).collect();
    tests.sort();
    assert!(!tests.is_empty(), "no tests in {name}");
    tests
}

/// Starts Node's test runner on these files; its output is shown.
fn start_tests(files: &[String], settings: &[(&str, &str)]) -> Child {
    assert!(folder().join("node_modules").exists(), "run ./test.sh, which installs what the browser tests need");
    let mut arguments = vec!["--test"];
    arguments.extend(files.iter().map(String::as_str));
    let mut command = node(&arguments);
    command.envs(settings.iter().copied()).stdin(Stdio::null());
    let child = command.spawn().expect("run node: ./test.sh installs it");
    watchdog::watch(&child, false);
    child
}

#[test]
fn the_web_client_is_typed_and_tidy() {
    for check in ["types", "lint"] {
        let mut npm = Command::new("npm");
        npm.args(["run", "--silent", check]).current_dir(folder());
        let output = output_within(NODE_PATIENCE, &mut npm).expect("run npm: ./test.sh installs it");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{check}:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_library_works_in_node() {
    assert!(exit_within(NODE_PATIENCE, &mut start_tests(&tests_in("unit"), &[])).success());
}

#[test]
fn people_talk_in_browsers() {
    assert!(exit_within(NODE_PATIENCE, &mut start_tests(&tests_in("browser"), &[])).success());
}

#[test]
fn people_talk_through_nginx_while_a_node_dies() {
    let mut cluster = Cluster::start_with(3, |builder| {
        builder.option("proxy_protocol", "on").option("proxy_from", Nginx::COMES_FROM)
    });
    let nginx = Nginx::as_shipped(&cluster.addresses());
    let place = Workplace::empty();
    let url = format!("http://{}/", nginx.addresses()[0]);
    // The test program makes this file when its users are in the middle of their work.
    let signal = place.path().join("kill");
    let settings = [("WEB_URL", url.as_str()), ("WEB_SIGNAL", &signal.to_string_lossy())];
    let mut child = start_tests(&tests_in("cluster"), &settings);
    let asked = || signal.exists() || child.try_wait().expect("look at node").is_some();
    wait_within(NODE_PATIENCE, "people are in the middle of it", asked);
    cluster.nodes[0].kill9();
    assert!(exit_within(NODE_PATIENCE, &mut child).success());
}
