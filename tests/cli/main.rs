//! The command line, tested from outside: what is printed where, and with which exit code.

mod sandbox;

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{self, Command};

use socket2::{Domain, Socket, Type};
use testkit::jwt::JwtIssuer;
use testkit::succeeds;

use crate::sandbox::{End, PATIENCE, Process, Sandbox, address, wait_until};

#[test]
fn an_admin_port_that_is_in_use_is_named_and_nothing_is_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let sandbox = Sandbox::new();
    let line = sandbox.refused(&format!("127.0.0.1 0 --admin {address}"), &[]);
    let start = format!("server: key admin: cannot listen on {address}: ");
    assert!(line.starts_with(&start), "{line}");
    assert!(line.ends_with("; stop the program that uses the port, or choose another"), "{line}");
    assert!(!sandbox.work().join("raybox.db").exists());
    let line = sandbox.refused("127.0.0.1 0 --admin localhost:9600", &[]);
    let expected = "server: option --admin: \"localhost:9600\" is not allowed, use off, PORT or IP:PORT, such as 9600 (on \
                    127.0.0.1), 10.0.0.1:9600 or [::1]:9600";
    assert_eq!(line, expected);
}

#[test]
fn the_exit_code_tells_the_health() {
    let sandbox = Sandbox::new();
    // The port is bound, so that nobody else gets it, but nothing listens on it.
    let holder = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    holder.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let closed = holder.local_addr().unwrap().as_socket().unwrap();
    for (args, env) in
        [(format!("health {closed}"), vec![]), ("health".to_owned(), vec![("RAYBOX_ADMIN", closed.to_string())])]
    {
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let end = sandbox.start(&args, &env).end();
        assert_eq!((end.code, end.stdout.len(), end.stderr.len()), (Some(1), 0, 1), "{args}: {end:?}");
        assert!(end.stderr[0].starts_with(&format!("server: health: no answer from {closed}: ")), "{end:?}");
    }
    let line = sandbox.refused("health 127.0.0.1:1 127.0.0.1:2", &[]);
    assert_eq!(line, "server: health takes one address; usage: server health [ADDRESS], see --help");
}

#[test]
fn help_and_version_go_to_stdout() {
    let sandbox = Sandbox::new();
    for option in ["--help", "-h"] {
        let end = sandbox.start(option, &[]).end();
        assert_eq!((end.code, end.stderr.len()), (Some(0), 0), "{end:?}");
        let help = end.stdout.join("\n");
        for part in ["server IP PORT", "--idle-timeout <TIME>", "[default: 20m]", "--config <FILE>", "Examples:"] {
            assert!(help.contains(part), "{part} is missing in {help}");
        }
    }
    for option in ["--version", "-V"] {
        let end = sandbox.start(option, &[]).end();
        assert_eq!((end.code, end.stderr.len()), (Some(0), 0), "{end:?}");
        assert_eq!(end.stdout, [concat!("raybox ", env!("CARGO_PKG_VERSION"))]);
    }
    assert!(!sandbox.work().join("logs").exists(), "nothing was started");
}

#[test]
fn a_mistake_on_the_command_line_is_named() {
    let sandbox = Sandbox::new();
    for (args, culprits) in [
        ("", ["missing IP and PORT", "usage: server IP PORT"]),
        ("127.0.0.1", ["missing PORT", "usage: server IP PORT"]),
        ("127.0.0.1 0 0", ["\"0\" is one too many", "usage: server IP PORT"]),
        ("localhost 0", ["argument IP: \"localhost\"", "IPv4"]),
        ("fe80::1 0", ["cannot listen on [fe80::1]:0", "listen on ::"]),
        ("127.0.0.1 65536", ["argument PORT: \"65536\"", "0 to 65535"]),
        ("127.0.0.1 0 --lops 2", ["option --lops", "did you mean --loops?"]),
        ("127.0.0.1 0 --loops", ["--loops", "value is required"]),
        ("127.0.0.1 0 --loops 257", ["option --loops: \"257\"", "auto or 1 to 256"]),
        ("127.0.0.1 0 --frame-timeout 0", ["option --frame-timeout: \"0\"", "1ms to 24h"]),
        ("127.0.0.1 0 --max-frame 17m", ["option --max-frame: \"17m\"", "1k to 16m"]),
        ("127.0.0.1 0 --argon2 m=8,t=1,p=2", ["option --argon2: \"m=8,t=1,p=2\"", "m 8*p to 1048576"]),
        ("127.0.0.1 0 --config none.cnf", ["none.cnf", "No such file"]),
    ] {
        let line = sandbox.refused(args, &[]);
        assert!(line.starts_with("server: ") && culprits.iter().all(|culprit| line.contains(culprit)), "{line}");
    }
}

#[test]
fn a_mistake_in_the_environment_is_named() {
    let sandbox = Sandbox::new();
    let line = sandbox.refused("127.0.0.1 0", &[("RAYBOX_LOPS", "2")]);
    assert_eq!(line, "server: environment variable RAYBOX_LOPS is unknown, did you mean RAYBOX_LOOPS?");
    let line = sandbox.refused("127.0.0.1 0", &[("RAYBOX_LOG_LEVEL", "loud")]);
    assert!(
        line.contains("environment variable RAYBOX_LOG_LEVEL: \"loud\"") && line.contains("trace or off"),
        "{line}"
    );
}

#[test]
fn a_mistake_in_the_file_is_named() {
    let sandbox = Sandbox::new();
    for (text, culprits) in [
        ("# a comment\nlops=2\n", ["server.cnf, line 2: key lops", "did you mean loops?"]),
        ("\n\nworkers = none", ["server.cnf, line 3: key workers: \"none\"", "1 to 1024"]),
        ("workers 3", ["server.cnf, line 1", "key=value"]),
        ("workers=3\nworkers=4", ["server.cnf, line 2: key workers", "line 1"]),
    ] {
        sandbox.write("server.cnf", text);
        let line = sandbox.refused("127.0.0.1 0", &[]);
        assert!(culprits.iter().all(|culprit| line.contains(culprit)), "{line}");
    }
    for text in ["x".repeat(100_000), format!("loops={}", "x".repeat(100_000))] {
        sandbox.write("server.cnf", &text);
        let line = sandbox.refused("127.0.0.1 0", &[]);
        assert!(line.len() < 400 && line.contains("server.cnf, line 1: key "), "{} bytes", line.len());
    }
    sandbox.write("mine.cnf", "auth=lax");
    let line = sandbox.refused("127.0.0.1 0 --config mine.cnf", &[]);
    assert!(line.contains("mine.cnf, line 1: key auth: \"lax\" is not allowed, use strict or compat"), "{line}");
}

#[test]
fn the_option_goes_before_the_environment_before_the_file_before_the_default() {
    let sandbox = Sandbox::new();
    let auth = |args: &str, env: &[_]| {
        let (process, banner) = sandbox.serve(&format!("127.0.0.1 0 {args}"), env);
        process.stop();
        banner.split_once(", auth ").unwrap().1.split(',').next().unwrap().to_owned()
    };
    assert_eq!(auth("", &[]), "strict");
    sandbox.write("server.cnf", "auth = compat");
    assert_eq!(auth("", &[]), "compat");
    assert_eq!(auth("", &[("RAYBOX_AUTH", "strict")]), "strict");
    assert_eq!(auth("--auth compat", &[("RAYBOX_AUTH", "strict")]), "compat");
    sandbox.write("server.cnf", "auth = strict");
    assert_eq!(auth("", &[("RAYBOX_AUTH", "compat")]), "compat");
}

#[test]
fn a_server_prints_its_version_and_stops_at_a_signal() {
    for signal in ["TERM", "INT"] {
        let sandbox = Sandbox::new();
        let (mut process, banner) = sandbox.serve("127.0.0.1 0 --loops 3", &[]);
        let address = address(&banner).to_owned();
        assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{banner}");
        assert!(
            banner.contains(", store SQLite ")
                && banner.contains("raybox.db (new, empty), bus in-process, auth strict"),
            "{banner}"
        );
        assert!(banner.ends_with(", log ./logs"), "{banner}");
        TcpStream::connect(&address).expect("it listens");

        process.signal(signal);
        let end = process.end();
        assert_eq!((end.code, end.stdout.len(), end.stderr.len()), (Some(0), 0, 0), "{end:?}");
        let log = sandbox.log();
        for part in [format!("listening on {address}").as_str(), "event loops 3", "store SQLite", "bus in-process"] {
            assert!(log.contains(part), "{part} is missing in {log}");
        }
        assert!(log.contains(&format!("SIG{signal}")), "{log}");
        assert!(log.contains(" main server: stopped\n"), "{log}");
    }
}

#[test]
fn ipv6_addresses_stand_in_brackets() {
    if TcpListener::bind("[::1]:0").is_err() {
        return; // This machine has no IPv6.
    }
    let sandbox = Sandbox::new();
    let (process, banner) = sandbox.serve("::1 0", &[]);
    let address = address(&banner);
    assert!(address.starts_with("[::1]:"), "{banner}");
    TcpStream::connect(address).expect("it listens");
    process.stop();
}

#[test]
fn an_address_in_use_is_named() {
    let (first, second) = (Sandbox::new(), Sandbox::new());
    let (process, banner) = first.serve("127.0.0.1 0", &[]);
    let address = address(&banner);
    let line = second.refused(&address.replace(':', " "), &[]);
    assert!(line.starts_with(&format!("server: cannot listen on {address}: ")), "{line}");
    process.stop();
}

#[test]
fn a_data_folder_that_cannot_be_used_is_named() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "not a folder");
    let line = sandbox.refused("127.0.0.1 0 --data file", &[]);
    assert!(line.starts_with("server: ") && line.contains("file"), "{line}");
}

#[test]
fn a_limit_of_threads_is_named_and_nothing_is_started() {
    let sandbox = Sandbox::new();
    // Root is not subject to this limit. Only this test runs processes as this user, so no others
    // count.
    let is_root = fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    let user = (50_000 + process::id() % 10_000).to_string();
    let program = sandbox.work().join("server");
    fs::copy(env!("CARGO_BIN_EXE_server"), &program).unwrap();
    for folder in [sandbox.folder(), &sandbox.work()] {
        fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    }
    let files = [
        ("mysql.cnf", "ip=127.0.0.1\nport=1\nusername=a\npassword=b\ndbname=c\ncharset=utf8mb4\n"),
        ("redis.cnf", "ip=127.0.0.1\nport=1\n"),
    ];
    for with_cluster in [false, true] {
        if with_cluster {
            files.iter().for_each(|(name, text)| sandbox.write(name, text));
        }
        for limit in if is_root { &[1, 2, 4, 8][..] } else { &[1] } {
            let server = "127.0.0.1 0 --loops 2 --hashers 1 --log-dir .";
            let commands = ["migrate", "copy --from raybox.db --to mysql.cnf"];
            // The commands need fewer threads.
            let of_commands = if with_cluster && *limit == 1 { &commands[..] } else { &[] };
            for arguments in of_commands.iter().chain([&server]) {
                let mut command = sandbox.command(if is_root { "setpriv" } else { "prlimit" });
                if is_root {
                    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "prlimit"]);
                }
                command.arg(format!("--nproc={limit}")).arg(&program).args(arguments.split_whitespace());
                let End { code, stdout, stderr, .. } = Process::start(command).end();
                let said = format!("{arguments}, {limit}: {stdout:?} {stderr:?}");
                assert_eq!((code, stdout.len(), stderr.len()), (Some(2), 0, 1), "{said}");
                assert!(stderr[0].contains("threads it needs") && stderr[0].contains("ulimit -u"), "{said}");
            }
        }
    }
}

#[test]
fn an_address_space_that_is_too_small_is_named_and_nothing_is_started() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("prlimit");
    command.arg(format!("--as={}", 64 << 20)).arg(env!("CARGO_BIN_EXE_server"));
    command.args("127.0.0.1 0 --log-dir .".split_whitespace());
    let End { code, stdout, stderr, .. } = Process::start(command).end();
    assert_eq!((code, stdout.len(), stderr.len()), (Some(2), 0, 1), "{stdout:?} {stderr:?}");
    assert!(stderr[0].contains("the address space is limited to 64 MiB (ulimit -v)"), "{}", stderr[0]);
    assert!(!sandbox.work().join("raybox.db").exists());
}

#[test]
fn a_limit_of_descriptors_that_is_too_low_is_named() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("prlimit");
    command.arg("--nofile=20:20").arg(env!("CARGO_BIN_EXE_server")).args("127.0.0.1 0 --log-dir .".split_whitespace());
    let End { code, stdout, stderr, .. } = Process::start(command).end();
    assert_eq!((code, stdout.len(), stderr.len()), (Some(2), 0, 1), "{stdout:?} {stderr:?}");
    assert!(stderr[0].contains("raise the limit of descriptors (ulimit -n"), "{}", stderr[0]);
}

#[test]
fn the_database_is_in_the_data_folder() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.work().join("data")).unwrap();
    let (process, banner) = sandbox.serve("127.0.0.1 0 --data data", &[]);
    assert!(banner.contains("data/raybox.db"), "{banner}");
    assert!(sandbox.work().join("data/raybox.db").exists());
    process.stop();
}

#[test]
fn a_log_folder_is_made() {
    let sandbox = Sandbox::new();
    let (process, banner) = sandbox.serve("127.0.0.1 0 --log-dir a/b", &[]);
    assert!(banner.ends_with(", log a/b"), "{banner}");
    process.stop();
    let files: Vec<_> = fs::read_dir(sandbox.work().join("a/b")).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty() && files.iter().all(|file| is_log_name(file)), "{files:?}");
}

/// Whether the name is `<year>-<month>-<day>-log.txt`.
fn is_log_name(path: &Path) -> bool {
    let name: String = path.file_name().unwrap().to_string_lossy().replace(|c: char| c.is_ascii_digit(), "0");
    name == "0000-00-00-log.txt"
}

#[test]
fn a_log_folder_that_cannot_be_made_does_not_stop_the_server() {
    let sandbox = Sandbox::new();
    sandbox.write("file", "not a folder");
    let (mut process, _) = sandbox.serve("127.0.0.1 0 --log-dir file/logs", &[]);
    process.signal("TERM");
    let end = process.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(end.stderr[0].starts_with("cannot write the log to file/logs/"), "{end:?}");
    assert_eq!(end.stderr.iter().filter(|line| line.contains("cannot write")).count(), 1, "{end:?}");
    assert!(end.stderr.iter().any(|line| line.ends_with(" main server: stopped")), "{end:?}");
}

#[test]
fn check_reports_the_problems_of_a_start_and_changes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write("server.cnf", "loops=3\nworkers=5\n");
    let check = |args: &str| sandbox.start(&format!("check {args}"), &[("RAYBOX_WORKERS", "6")]).end();
    let end = check("127.0.0.1 0 --idle-timeout 5m");
    let text = end.stdout.join("\n");
    assert_eq!((end.code, end.stderr.len()), (Some(0), 0), "{end:?}");
    for line in [
        "  loops=3 (server.cnf, line 1)",
        "  workers=5 (server.cnf, line 2, but environment variable RAYBOX_WORKERS takes precedence)",
        "  workers=6 (environment variable RAYBOX_WORKERS)",
        "  idle_timeout=5m (option --idle-timeout)",
        "  ok      data: no raybox.db in .: the start makes an empty one",
        "  ok      log: ./logs",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    let files: Vec<_> = fs::read_dir(sandbox.work()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["server.cnf"]);

    // Now beside a running server, and with other problems.
    let (process, banner) = sandbox.serve("127.0.0.1 0", &[]);
    let port = address(&banner).rsplit(':').next().unwrap().to_owned();
    let end = check(&format!("127.0.0.1 {port} --tls-cert nothing.pem --log-dir server.cnf/logs"));
    assert_eq!(
        (end.code, end.stderr.as_slice()),
        (Some(1), ["server: check: 4 problems, see above".to_owned()].as_slice())
    );
    let problems: Vec<&str> = end
        .stdout
        .iter()
        .filter_map(|line| line.strip_prefix("  PROBLEM ")?.split_once(':').map(|(what, _)| what))
        .collect();
    assert_eq!(problems, ["address", "data", "log", "tls"], "{end:?}");
    process.stop();
    assert_eq!(check("127.0.0.1 0 --loops many").code, Some(2));
    assert!(check("--help").stdout.join("\n").contains("Usage: server check IP PORT"));
}

#[test]
fn check_looks_at_the_keys_of_json_web_tokens() {
    let sandbox = Sandbox::new();
    sandbox.write("server.cnf", "loops=1\n");
    sandbox.write("short", "short");
    sandbox.write("ec.pem", &JwtIssuer::es256().pem());
    let check = |args: &str| sandbox.start(&format!("check {args}"), &[]).end();
    let jwt = |options: &str| {
        let end = check(&format!("127.0.0.1 0 {options}"));
        (
            end.code,
            end.stdout.join("\n").lines().find(|line| line.contains(" jwt: ")).expect("a line").trim().to_owned(),
        )
    };
    assert_eq!(jwt(""), (Some(0), "ok      jwt: off: nobody logs in with JSON web tokens".to_owned()));
    for (options, says) in [
        ("--jwt-key nothing.pem", "cannot read nothing.pem"),
        ("--jwt-key server.cnf", "server.cnf: there is no key for RS256"),
        ("--jwt-key short --jwt-algorithm HS256", "short: the secret has 5 bytes; HS256 needs 32"),
        ("--jwt-key ec.pem", "ec.pem: there is no key for RS256 (jwt_algorithm), but an EC key on P-256"),
        ("--jwt-register on", "no effect without jwt_key"),
    ] {
        let (code, line) = jwt(options);
        assert!(code == Some(1) && line.starts_with("PROBLEM") && line.contains(says), "{options}: {line}");
    }
    assert_eq!(jwt("--jwt-key ec.pem --jwt-algorithm ES256"), (Some(0), "ok      jwt: keys for ES256: 1".to_owned()));
    assert_eq!(check("127.0.0.1 0 --jwt-algorithm none").code, Some(2), "an unknown algorithm");
}

#[test]
fn every_command_explains_itself_within_80_columns() {
    let sandbox = Sandbox::new();
    for command in ["", "backup", "check", "compact", "copy", "health", "migrate", "restore"] {
        let end = sandbox.start(&format!("{command} --help"), &[]).end();
        assert_eq!((end.code, end.stderr.len()), (Some(0), 0), "{command}: {end:?}");
        assert!(end.stdout.iter().any(|line| line.starts_with("Usage: server")), "{command}: {end:?}");
        let wide: Vec<_> = end.stdout.iter().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{command}: {wide:#?}");
    }
}

#[test]
fn the_log_goes_to_stdout_if_that_is_wanted() {
    let sandbox = Sandbox::new();
    for (to, has_files) in [("stdout", false), ("both", true)] {
        let mut process = sandbox.start(&format!("127.0.0.1 0 --log {to} --node-name n-1"), &[]);
        let first = process.stdout.recv_timeout(PATIENCE).expect("a line");
        assert!(first.contains(" main server: raybox ") && first.contains(" listening on "), "{first}");
        process.signal("TERM");
        let end = process.end();
        assert_eq!((end.code, end.stderr.len()), (Some(0), 0), "{end:?}");
        assert!(end.stdout.last().is_some_and(|line| line.ends_with(" main server: stopped")), "{end:?}");
        assert!(end.stdout.iter().all(|line| line.contains(" n-1[")), "{end:?}");
        assert_eq!(sandbox.work().join("logs").exists(), has_files);
    }
}

#[test]
fn a_closed_stdout_does_not_stop_the_server() {
    let sandbox = Sandbox::new();
    let pipe = sandbox.work().join("pipe");
    assert!(succeeds(Command::new("mkfifo").arg(&pipe)));
    let mut command = sandbox.command("sh");
    command.args(["-c", "exec \"$0\" 127.0.0.1 0 > pipe", env!("CARGO_BIN_EXE_server")]);
    let process = Process::start(command);
    // The server starts when both ends of the pipe are open (fifo(7)). The reader has gone when the
    // server writes its banner.
    drop(fs::File::open(&pipe).unwrap());
    wait_until("the log", || sandbox.log().contains("listening on"));
    process.stop();
}
