//! The settings of the hook: what is refused, what is said, and what changes while the server runs.

use testkit::{TestServer, Workplace, wait_until};

use crate::receiver::{Mood, Receiver};
use crate::stage::{KEY, change, enter, failed_requests, hooked, waiting, with};

#[test]
fn settings_that_cannot_work_are_refused_and_dangerous_ones_are_named() {
    let workplace = Workplace::empty();
    workplace.write("hook.key", KEY);
    workplace.write("short.key", "tooshort\n");
    let check = |options: &[&str]| {
        let arguments = ["check", "127.0.0.1", "0"].into_iter().chain(options.iter().copied());
        workplace.run(&arguments.collect::<Vec<_>>())
    };
    let url = "--hook-url=https://push.example.org/raybox";
    for (options, expected) in [
        (&["--hook-url=push.example.org"][..], "use off or http(s)://HOST[:PORT][/PATH]"),
        (&[url][..], "key hook_key: hook_url needs a key"),
        (&[url, "--hook-key=missing.key"][..], "key hook_key: missing.key: cannot be read"),
        (&[url, "--hook-key=short.key"][..], "key hook_key: short.key: holds 8 bytes, and a key has at least 32"),
        (
            &["--hook-url=http://192.168.1.7/", "--hook-key=hook.key"][..],
            "key hook_url: 192.168.1.7 is not a public address; if it is meant, name it in hook_private",
        ),
    ] {
        let ended = check(options);
        assert!(ended.stderr.contains(expected), "{options:?}: {ended:?}");
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
    let ended = check(&["--hook-url=http://push.example.org/", "--hook-key=hook.key"]);
    assert!(ended.stdout.contains("note: hook_url: http sends messages to push.example.org readable"), "{ended:?}");
    let ended = check(&[url, "--hook-key=hook.key", "--history=off"]);
    assert!(ended.stdout.contains("note: hook_url has no effect with history=off"), "{ended:?}");
    let ended = check(&[url, "--hook-key=hook.key"]);
    assert!(!ended.stdout.contains("note: hook_url"), "{ended:?}");
    assert!(!ended.stdout.contains(KEY), "{ended:?}");
}

#[test]
fn a_name_that_leads_to_this_machine_is_refused_until_that_is_allowed() {
    let receiver = Receiver::start(Mood::Answers(200));
    let settings = |more: &str| format!("hook_url={}\nhook_key=hook.key\nhook_delay=0\n{more}", receiver.url_of_name());
    let server = TestServer::builder().option("admin", "0").heeding_hup();
    let server = server.file("hook.key", KEY.to_owned()).file("server.cnf", settings("")).start();
    let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
    ann.say(&with(&bob), "inside");
    wait_until("it is refused", || failed_requests(&server) > 0.0);
    let log = server.logs_with("is not public");
    assert!(log.contains("its name leads to 127.0.0.1, which is not public") || log.contains("::1"), "{log}");
    assert!(receiver.requests().is_empty());
    change(&server, &settings("hook_private=127.0.0.1,::1\n"));
    wait_until("it is posted", || waiting(&server) == 0);
    assert_eq!(receiver.requests().len(), 1);
}

#[test]
fn a_new_key_is_read_while_the_server_runs() {
    let receiver = Receiver::start(Mood::Answers(200));
    let server = hooked(&receiver, "0").start();
    let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
    ann.say(&with(&bob), "old key");
    wait_until("it is posted", || receiver.requests().len() == 1);
    receiver.requests()[0].assert_signed(KEY);
    let new = "fedcba9876543210fedcba9876543210";
    std::fs::write(server.folder().join("hook.key"), new).expect("write the key");
    testkit::signal(server.pid(), "HUP");
    wait_until("it is read", || {
        server.logs_with("hook_key has changed").contains("hook_key has changed and is in effect")
    });
    ann.say(&with(&bob), "new key");
    wait_until("it is posted", || receiver.requests().len() == 2);
    receiver.requests()[1].assert_signed(new);
}
