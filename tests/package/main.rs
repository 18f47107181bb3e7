//! The Debian package is installed, used, upgraded with its data, removed and purged, by dpkg in a
//! small system of its own (`system.rs`). The machine's own files and users are not touched.
//!
//! The test needs root, for chroot(2). An ordinary user needs sudo(8) without a password.

mod system;

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use testkit::{LONG_PATIENCE, TestClient, Workplace, chat, exit_within, output_within, wait_within};

use self::system::{KEY, Server, System, is_root, run};

/// The longest time for users with browsers on a busy machine.
const NODE_PATIENCE: Duration = Duration::from_secs(300);

/// The longest time for the whole test as root.
const AS_ROOT_WITHIN: Duration = Duration::from_secs(1800);

#[test]
fn a_package_is_installed_used_upgraded_removed_and_purged() {
    if !is_root() {
        return again_as_root("a_package_is_installed_used_upgraded_removed_and_purged");
    }
    let users_before = fs::read_to_string("/etc/passwd").expect("users");
    let packages = Workplace::empty();
    let (old, new) = (build(packages.path(), "1.0.0~old"), build(packages.path(), "1.0.1~new"));
    change_an_example(&new);
    let system = System::new();

    assert!(system.install(&old).contains("serves this machine only"));
    assert_eq!(system.calls(), ["deb-systemd-helper enable raybox.service", "deb-systemd-invoke start raybox.service"]);
    the_files_belong_to_those_who_need_them(&system);
    systemd_accepts_the_unit(&system);
    // An operator changes both settings files. The packaged ports may be in use on this machine.
    system.change("etc/raybox/listen", "PORT=6000", "PORT=0");
    system.change("etc/raybox/server.cnf", "admin=127.0.0.1:9600", &format!("admin=127.0.0.1:0\nadmin_key={KEY}"));

    let server = system.start();
    let mut alice = TestClient::connect_to(server.address());
    let (a, b) = (alice.register("alice", "pw-alice"), alice.register("bob", "pw-bob"));
    alice.login(a, "pw-alice");
    alice.send(&chat(a, b, "before the upgrade"));
    alice.barrier();
    assert!(system.run("/usr/bin/raybox-server", &["health", &server.admin()]).starts_with("loops: ok\nstore: ok\n"));

    // The old program goes on serving while its file is replaced.
    assert!(!system.install(&new).contains("serves this machine only"));
    server.stop();
    assert_eq!(
        system.calls(),
        ["deb-systemd-helper enable raybox.service", "deb-systemd-invoke restart raybox.service"]
    );
    assert_eq!(system.status(), "install ok installed 1.0.1~new");
    assert!(system.read("etc/raybox/listen").contains("\nPORT=0\n"), "the operator's settings stay");
    the_settings_can_be_read_by_the_server_alone(&system);
    let server = system.start();
    let mut bob = TestClient::connect_to(server.address());
    bob.login(b, "pw-bob");
    assert_eq!(bob.fetch_all(b)[0]["msg"], "before the upgrade");
    drop(bob);
    an_operator_makes_accounts_and_people_talk_in_browsers(&server);
    the_data_are_saved_and_put_back(&system, server, b);

    the_service_is_as_an_operator_left_it(&system, &new);
    system.dpkg(&["--remove", "raybox-server"]);
    assert_eq!(system.calls(), ["deb-systemd-invoke stop raybox.service", "deb-systemd-helper mask raybox.service"]);
    assert!(!system.path("usr/bin/raybox-server").exists() && !system.path("usr/lib/raybox").exists());
    assert!(system.path("var/lib/raybox/raybox.db").exists() && system.path("etc/raybox/listen").exists());
    system.dpkg(&["--purge", "raybox-server"]);
    assert_eq!(system.calls(), ["deb-systemd-helper purge raybox.service", "deb-systemd-helper unmask raybox.service"],);
    // The data folder is a mount point, so it is emptied but not removed.
    assert_eq!(fs::read_dir(system.path("var/lib/raybox")).expect("a folder").count(), 0);
    for gone in ["var/log/raybox", "etc/raybox", "usr/share/doc/raybox-server"] {
        assert!(!system.path(gone).exists(), "{gone}");
    }
    assert_eq!(fs::read_to_string("/etc/passwd").expect("users"), users_before, "the machine's own users");
}

/// The operator makes both accounts, and looks at the status page while their owners talk.
fn an_operator_makes_accounts_and_people_talk_in_browsers(server: &Server<'_>) {
    for name in ["carol", "dave"] {
        let made = server.administer(&["users", "create", name, "--password", &format!("secret-{name}")]);
        assert!(made.lines().any(|line| line.starts_with("id: ")), "{made}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    assert!(folder.join("node_modules").exists(), "run ./test.sh, which installs what the browser tests need");
    let mut node = Command::new("node");
    node.args(["--test", "package/chat.test.js"]).current_dir(folder).stdin(Stdio::null());
    node.env("WEB_URL", format!("http://{}/", server.address()));
    node.env("STATUS_URL", format!("http://{}/", server.admin()));
    let mut node = node.spawn().expect("run node: ./test.sh installs it");
    let mut status = None;
    wait_within(NODE_PATIENCE, "the users have talked", || {
        status = node.try_wait().expect("wait for node");
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "see above");
}

/// Follows the document, as root instead of with sudo(8).
fn the_data_are_saved_and_put_back(system: &System, server: Server<'_>, bob: i64) {
    let program = "/usr/bin/raybox-server";
    system.run(program, &["backup", "--data", "/var/lib/raybox", "/tmp/copy"]);
    let mut client = TestClient::connect_to(server.address());
    client.login(bob, "pw-bob");
    let late = client.register("late", "pw-late");
    server.stop();
    system.run(program, &["restore", "--data", "/var/lib/raybox", "/tmp/copy"]);
    let server = system.start();
    let mut client = TestClient::connect_to(server.address());
    let login = json!({"msgType": 1, "USERID": late, "password": "pw-late"});
    assert_eq!(client.ask(&login)["errno"], 302, "the account came after the backup");
    client.login(bob, "pw-bob");
    server.stop();
}

fn the_files_belong_to_those_who_need_them(system: &System) {
    let user = system.user("raybox");
    for folder in ["var/lib/raybox", "var/log/raybox"] {
        let folder = fs::metadata(system.path(folder)).expect("a folder");
        assert_eq!((folder.uid(), folder.gid(), folder.mode() & 0o777), (user.0, user.1, 0o750));
    }
    for file in ["etc/raybox/listen", "usr/bin/raybox-server"] {
        let file = fs::metadata(system.path(file)).expect("a file");
        assert_eq!((file.uid(), file.permissions().mode() & 0o022), (0, 0), "the server cannot change it");
    }
    assert_eq!(
        fs::read_link(system.path("usr/lib/raybox/server")).expect("a link"),
        Path::new("../../bin/raybox-server")
    );
    the_settings_can_be_read_by_the_server_alone(system);
    let packaged = system.read("etc/raybox/server.cnf");
    let set: Vec<&str> = packaged.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    // A log in files goes to a folder in which the unit lets the server write.
    assert_eq!(
        set,
        ["data=/var/lib/raybox", "log=stdout", "log_dir=/var/log/raybox", "log_size=1024m", "admin=127.0.0.1:9600"]
    );
    let all = system.read("usr/share/doc/raybox-server/examples/server.cnf");
    assert_eq!(all, fs::read_to_string("conf/server.cnf").expect("settings"));
    let licences = system.read("usr/share/doc/raybox-server/copyright");
    for file in ["LICENSE", "THIRD-PARTY-LICENSES"] {
        let text = fs::read_to_string(file).expect("licences");
        assert!(licences.contains(text.trim()), "the package names those who wrote it and its parts: {file}");
    }
    for file in ["docs/administration.md", "conf/monitoring/alerts.yml"] {
        let ours = fs::read_to_string(file).expect("a file");
        assert_eq!(system.read(&format!("usr/share/doc/raybox-server/{file}")), ours);
    }
}

/// Without a warning. The exposure, as systemd judges it, is at most 1.5 of 10.
fn systemd_accepts_the_unit(system: &System) {
    let unit = system.path("usr/lib/systemd/system/raybox.service");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["--man=no", "verify", "raybox.service"]).arg(format!("--root={}", system.path("").display()));
    let verified = output_within(LONG_PATIENCE, &mut verify).expect("systemd-analyze is needed: package systemd");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=15"]).arg(unit));
}

/// An upgrade does not start a service that an operator had stopped, but restarts one that has
/// failed. An installation after a removal starts the service.
fn the_service_is_as_an_operator_left_it(system: &System, package: &Path) {
    let restarted = ["deb-systemd-helper enable raybox.service", "deb-systemd-invoke restart raybox.service"];
    system.set_state("inactive");
    system.install(package);
    assert_eq!(system.calls(), restarted[..1]);
    // dpkg is interrupted, and an operator starts the service, which is still the old program.
    system.dpkg(&["--unpack", package.to_str().expect("a printable path")]);
    system.set_state("active");
    system.dpkg(&["--configure", "raybox-server"]);
    assert_eq!(system.calls(), restarted);
    system.dpkg(&["--remove", "raybox-server"]);
    system.calls();
    system.install(package);
    assert_eq!(system.calls(), restarted);
    // The package is installed even if the service does not start.
    system.set_state("failed");
    assert!(system.install(package).contains("the service raybox does not run"));
    assert_eq!(system.calls(), restarted);
    system.set_state("active");
}

/// The settings may contain secrets, such as the key of the administration.
fn the_settings_can_be_read_by_the_server_alone(system: &System) {
    let settings = fs::metadata(system.path("etc/raybox/server.cnf")).expect("a file");
    assert_eq!((settings.uid(), settings.gid(), settings.mode() & 0o777), (0, system.user("raybox").1, 0o640));
}

/// Changes the list of all settings, as most new versions do. The operator has changed settings,
/// but dpkg must not ask about this.
fn change_an_example(package: &Path) {
    let tree = Workplace::empty();
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(tree.path()));
    for list in ["usr/share/doc/raybox-server/examples/server.cnf", "etc/raybox/server.cnf"] {
        let file = tree.path().join(list);
        let text = fs::read_to_string(&file).expect("settings");
        let known = text.contains("\n#backlog=4096\n");
        fs::write(&file, text.replace("\n#backlog=4096\n", "\n#backlog=8192\n")).expect("write");
        assert_eq!(known, list.starts_with("usr"), "{list} shows all settings");
    }
    run(Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).arg(tree.path()).arg(package));
}

/// Builds the package with the server program of the tests.
fn build(folder: &Path, version: &str) -> PathBuf {
    let mut command = Command::new("packaging/build-deb.sh");
    command.args(["--program", env!("CARGO_BIN_EXE_server"), "--version", version, "--out"]).arg(folder);
    // Compressing 30 MB takes half a minute, so the package is not compressed.
    PathBuf::from(run(command.env("DPKG_DEB_COMPRESSOR_TYPE", "none")).trim())
}

/// Runs this test again as root.
fn again_as_root(test: &str) {
    let own = env::current_exe().expect("this program");
    let mut command = Command::new("sudo");
    // Only root can kill it: so it has a deadline of its own, and sudo a later one.
    command.args(["-nE", "timeout", "--kill-after=10", &AS_ROOT_WITHIN.as_secs().to_string()]);
    command.arg(own).args(["--exact", test]).stdin(Stdio::null());
    let status = command.spawn().map(|mut sudo| exit_within(AS_ROOT_WITHIN + LONG_PATIENCE, &mut sudo));
    assert!(
        status.is_ok_and(|status| status.success()),
        "it failed, see above, or could not be run as root: a package is installed in a folder by chroot, which needs root, \
         or sudo without a password"
    );
}
