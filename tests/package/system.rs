//! [`System`]: a folder with the few programs and files that dpkg and the package need, entered by
//! chroot(8). It imitates a service manager, which notes the calls that it gets and starts the
//! command of the unit.

use std::env;
use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testkit::{LONG_PATIENCE, Workplace, exit_within, output_within, signal, watchdog};

/// The admin_key that the operator sets.
pub(crate) const KEY: &str = "a-key-of-a-test-with-at-least-32-characters";

/// See the [module](self). Dropping it removes the folder.
pub(crate) struct System(Workplace);

/// A server in the system, started like the service. Dropping it kills it.
pub(crate) struct Server<'a> {
    system: &'a System,
    child: Child,
    manager: UnixDatagram,
    address: SocketAddr,
}

impl System {
    pub(crate) fn new() -> System {
        let system = System(Workplace::empty());
        for folder in ["etc", "dev", "tmp", "run/systemd/system", "usr/bin", "usr/lib", "usr/lib64", "var/log"] {
            fs::create_dir_all(system.path(folder)).expect("a folder");
        }
        for folder in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{folder}"), system.path(folder)).expect("a link");
        }
        symlink("bin", system.path("usr/sbin")).expect("a link");
        symlink("usr/bin", system.path("sbin")).expect("a link");
        fs::set_permissions(system.path("tmp"), Permissions::from_mode(0o1777)).expect("permissions");
        // A regular file stands in for this device: programs only write to it, and making it needs
        // no privilege.
        system.write("dev/null", "", 0o666);
        system.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644);
        system.write("etc/group", "root:x:0:\n", 0o644);
        system.write("etc/shadow", "root:*:19000:0:99999:7:::\n", 0o600);
        for program in ["sh", "chmod", "chown", "env", "find", "id", "install", "kill", "rm", "useradd"] {
            system.copy_program(program);
        }
        system.copy_libraries(Path::new(env!("CARGO_BIN_EXE_server")));
        for program in ["deb-systemd-helper", "deb-systemd-invoke", "systemctl"] {
            system.write(&format!("usr/bin/{program}"), MANAGER, 0o755);
        }
        // The unit needs these units of systemd.
        fs::create_dir_all(system.path("usr/lib/systemd/system")).expect("a folder");
        for target in ["basic", "shutdown", "sysinit"] {
            system.write(&format!("usr/lib/systemd/system/{target}.target"), "[Unit]\n", 0o644);
        }
        system.set_state("active");
        // This rmdir treats the data folder as a mount point, which is always busy.
        system.copy_program("rmdir");
        fs::rename(system.path("usr/bin/rmdir"), system.path("usr/bin/real-rmdir")).expect("rename");
        system.write("usr/bin/rmdir", BUSY, 0o755);
        fs::create_dir_all(system.path("var/lib/dpkg/info")).expect("a folder");
        fs::create_dir_all(system.path("var/lib/dpkg/updates")).expect("a folder");
        // The package's dependencies are available only if this machine has them.
        let there = run(Command::new("dpkg-query").args(["--status", "libc6", "libgcc-s1", "passwd"]));
        system.write("var/lib/dpkg/status", &there, 0o644);
        system.write("var/lib/dpkg/available", "", 0o644);
        system
    }

    /// The path of a file of the system, as the machine sees it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        fs::write(self.path(path), text).unwrap_or_else(|error| panic!("write {path}: {error}"));
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).expect("permissions");
    }

    /// Sets the state that the service manager will report.
    pub(crate) fn set_state(&self, state: &str) {
        self.write("run/state", state, 0o644);
    }

    /// Changes a line of a file.
    pub(crate) fn change(&self, path: &str, before: &str, after: &str) {
        let text = self.read(path);
        let count = text.lines().filter(|line| *line == before).count();
        assert_eq!(count, 1, "{path} has the line {before}");
        fs::write(self.path(path), text.replace(&format!("\n{before}\n"), &format!("\n{after}\n"))).expect("write");
    }

    fn copy_program(&self, name: &str) {
        let found = program(name);
        fs::copy(&found, self.path("usr/bin").join(name)).unwrap_or_else(|error| panic!("copy {name}: {error}"));
        self.copy_libraries(&found);
    }

    fn copy_libraries(&self, program: &Path) {
        let listed =
            output_within(LONG_PATIENCE, Command::new("ldd").arg(program)).expect("ldd is needed: package libc-bin");
        let listed = String::from_utf8(listed.stdout).expect("a text");
        for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
            let copy = self.path(&library[1..]);
            fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
            fs::copy(library, copy).unwrap_or_else(|error| panic!("copy {library}: {error}"));
        }
    }

    /// Runs dpkg on this system. Returns its output and that of the package's scripts.
    pub(crate) fn dpkg(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(program("dpkg"));
        command.env("PATH", PATHS).env("DEBIAN_FRONTEND", "noninteractive").arg("--force-unsafe-io");
        // The machine's settings of dpkg may leave out documents, and may name a log file of the
        // machine.
        command.arg(format!("--log={}", self.path("var/log/dpkg.log").display()));
        command.arg("--path-include=/usr/share/doc/raybox-server/*");
        command.arg(format!("--root={}", self.0.path().display())).args(arguments);
        let (stdout, stderr) = run_both(&mut command);
        stdout + &stderr
    }

    /// Installs the package, and returns dpkg's output.
    pub(crate) fn install(&self, package: &Path) -> String {
        self.dpkg(&["--install", package.to_str().expect("a printable path")])
    }

    /// The state of the package, and its version.
    pub(crate) fn status(&self) -> String {
        let mut query = Command::new("dpkg-query");
        query.arg(format!("--admindir={}", self.path("var/lib/dpkg").display()));
        run(query.args(["--show", "--showformat=${Status} ${Version}", "raybox-server"]))
    }

    /// The calls that the service manager got since the last time, without mere queries.
    pub(crate) fn calls(&self) -> Vec<String> {
        let all = self.read("var/log/calls");
        fs::remove_file(self.path("var/log/calls")).expect("remove");
        let is_asked =
            |line: &&str| ["was-enabled", "daemon-reload", "is-active"].iter().all(|word| !line.contains(word));
        // A service that a removal has masked is unmasked first, at every installation.
        let is_first = |line: &&str| *line != "deb-systemd-helper unmask raybox.service" || all.contains(" purge ");
        all.lines().filter(is_asked).filter(is_first).map(str::to_owned).collect()
    }

    /// The ids of a user and its group.
    pub(crate) fn user(&self, name: &str) -> (u32, u32) {
        let users = self.read("etc/passwd");
        let user = users.lines().find(|line| line.split(':').next() == Some(name)).expect("a user");
        let number = |field| user.split(':').nth(field).and_then(|text| text.parse().ok()).expect("a number");
        (number(2), number(3))
    }

    /// Runs a program in the system as root, which must succeed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        run(Command::new("chroot").arg(self.0.path()).arg(program).args(arguments))
    }

    /// Starts the service with the command of its unit, and waits until it is ready.
    pub(crate) fn start(&self) -> Server<'_> {
        let unit = self.read("usr/lib/systemd/system/raybox.service");
        let value = |key: &str| {
            unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).expect("a key of the unit")
        };
        assert_eq!((value("Type"), value("User"), value("Group")), ("notify", "raybox", "raybox"));
        assert_eq!(value("TimeoutStopSec"), "infinity", "the rescue of a lost database is not cut short");
        let environment = self.read(&value("EnvironmentFile")[1..]);
        let variables: Vec<(&str, &str)> =
            environment.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
        let of_variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).expect("systemd warns of an unset one").1;
        let words = value("ExecStart").split_whitespace();
        let words = words.flat_map(|word| word.strip_prefix('$').map_or(word, of_variable).split_whitespace());

        let socket = self.path("run/notify");
        let _ = fs::remove_file(&socket);
        let manager = UnixDatagram::bind(&socket).expect("a socket");
        fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("permissions");
        manager.set_read_timeout(Some(LONG_PATIENCE)).expect("a timeout");
        let output = File::create(self.0.path().join("output")).expect("a file");
        let mut command = Command::new("chroot");
        command.arg("--userspec=raybox:raybox").arg(self.0.path()).args([
            "/usr/bin/env",
            "-i",
            "-C",
            value("WorkingDirectory"),
        ]);
        command.args(["NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=30000000"]).args(words);
        command.stdin(Stdio::null()).stderr(output.try_clone().expect("a file")).stdout(output);
        let child = command.spawn().expect("chroot is needed: package coreutils");
        watchdog::watch(&child, false);
        let mut server = Server { system: self, child, manager, address: SocketAddr::from(([0; 4], 0)) };
        let ready = server.wait_for("READY=1");
        let address = ready.lines().find_map(|line| line.strip_prefix("STATUS=listening on "));
        server.address = address.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no address: {ready}"));
        let owner = fs::metadata(format!("/proc/{}", server.child.id())).expect("a process").uid();
        assert_eq!(owner, self.user("raybox").0);
        server
    }
}

impl Server<'_> {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the admin port, from the log.
    pub(crate) fn admin(&self) -> String {
        let output = self.system.read("output");
        let address = output.split_once("admin http://").and_then(|(_, rest)| rest.split('/').next());
        address.unwrap_or_else(|| panic!("no admin port: {output}")).to_owned()
    }

    /// Runs `raybox-server admin`, which must succeed.
    pub(crate) fn administer(&self, arguments: &[&str]) -> String {
        let (key, address) = (format!("RAYBOX_ADMIN_KEY={KEY}"), self.admin());
        let command = [key.as_str(), "/usr/bin/raybox-server", "admin", "--address", &address];
        self.system.run("/usr/bin/env", &[&command, arguments].concat())
    }

    /// Stops the server as systemd does.
    pub(crate) fn stop(mut self) {
        signal(self.child.id(), "TERM");
        self.wait_for("STOPPING=1");
        let status = exit_within(LONG_PATIENCE, &mut self.child);
        assert!(status.success(), "{status}: {}", self.system.read("output"));
    }

    /// Waits for the next message with this line.
    fn wait_for(&self, line: &str) -> String {
        loop {
            let mut bytes = [0; 1000];
            let received = self.manager.recv(&mut bytes);
            let length =
                received.unwrap_or_else(|error| panic!("no {line}: {error}; it says {}", self.system.read("output")));
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.lines().any(|known| known == line) {
                return text;
            }
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        watchdog::release(&self.child, false);
    }
}

/// Runs a command, which must succeed, and returns its output.
pub(crate) fn run(command: &mut Command) -> String {
    run_both(command).0
}

fn run_both(command: &mut Command) -> (String, String) {
    let output = output_within(RUN_PATIENCE, command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    (stdout.into_owned(), stderr.into_owned())
}

/// The longest time for a command. Installing a package takes seconds on an idle machine.
const RUN_PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").expect("/proc").uid() == 0
}

/// The path of a program of this machine.
fn program(name: &str) -> PathBuf {
    let paths = format!("{}:{PATHS}", env::var("PATH").unwrap_or_default());
    let found = env::split_paths(&paths).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is needed to install a package (Debian: coreutils, dash, dpkg, passwd)"))
}

/// The imitated service manager: it notes its calls and reports the state that a test has set. If
/// the state is `failed`, a start fails.
const MANAGER: &str = r#"#!/bin/sh
echo "${0##*/} $*" >>/var/log/calls
read -r state </run/state || true
case "${0##*/} $1" in
"systemctl is-active") echo "$state" && [ "$state" = active ] ;;
"deb-systemd-invoke start" | "deb-systemd-invoke restart") [ "$state" != failed ] ;;
esac
"#;
const BUSY: &str = r#"#!/bin/sh
[ "$1" != /var/lib/raybox ] || { echo "rmdir: $1: Device or resource busy" >&2; exit 1; }
exec real-rmdir "$@"
"#;
/// dpkg needs programs from all of these folders.
const PATHS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
