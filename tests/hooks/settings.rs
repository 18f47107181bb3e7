//! The settings of the hook: what is refused, what is said, and what changes while the server runs.

use testkit::tls::Certificate;
use testkit::{TestServer, Workplace, wait_until};

use crate::receiver::{Mood, Receiver};
use crate::stage::{KEY, change, enter, failed_requests, hooked, make_due, waiting, with};

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
    let posted =
        "ok      hook: messages that no device has received after 10 s are posted to push.example.org; its certificate";
    assert!(ended.stdout.contains(posted), "{ended:?}");
    assert!(check(&[]).stdout.contains("ok      hook: off"));
    let arguments = ["check", "127.0.0.1", "0", url, "--hook-key=hook.key"];
    let nowhere = [("SSL_CERT_FILE", "none.pem"), ("SSL_CERT_DIR", "nowhere")];
    let ended = workplace.run_with(&nowhere, &arguments);
    assert!(ended.stdout.contains("PROBLEM hook: authorities of certificates: "), "{ended:?}");
    assert!(ended.stdout.contains("none.pem"), "{ended:?}");
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
fn over_tls_messages_go_only_to_a_web_server_of_a_trusted_authority() {
    let [trusted, other] = ["localhost", "localhost"].map(Certificate::of);
    let [genuine, impostor] = [&trusted, &other].map(|shown| Receiver::over_tls(Mood::Answers(200), shown));
    let settings = |receiver: &Receiver| {
        let url = receiver.url_of_name();
        format!("hook_url={url}\nhook_key=hook.key\nhook_delay=0\nhook_private=127.0.0.1,::1\n")
    };
    let server = TestServer::builder().option("admin", "0").file("hook.key", KEY.to_owned());
    let server = server.file("authority.pem", trusted.chain.clone()).file("server.cnf", settings(&impostor));
    let server = server.after(r#"export SSL_CERT_FILE=authority.pem; exec env --default-signal=HUP "$0" "$@""#).start();
    let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
    ann.say(&with(&bob), "secret");
    wait_until("it is refused", || failed_requests(&server) > 0.0);
    let log = server.logs_with("invalid peer certificate");
    assert!(log.contains("invalid peer certificate"), "{log}");
    change(&server, &settings(&genuine));
    wait_until("it is posted", || waiting(&server) == 0);
    assert_eq!((genuine.texts(), impostor.requests().len()), (vec![(bob.store.me, "secret".to_owned())], 0));
    genuine.requests()[0].assert_signed(KEY);
}

#[test]
fn an_authority_that_cannot_be_read_is_named_in_the_log() {
    let receiver = Receiver::over_tls(Mood::Answers(200), &Certificate::of("localhost"));
    let url = receiver.url_of_name();
    let server = TestServer::builder().option("admin", "0").file("hook.key", KEY.to_owned());
    let server = server.option("hook_url", &url).option("hook_key", "hook.key").option("hook_delay", "0");
    let server = server
        .option("hook_private", "127.0.0.1,::1")
        .after("export SSL_CERT_FILE=none.pem SSL_CERT_DIR=nowhere")
        .start();
    let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
    ann.say(&with(&bob), "waits");
    wait_until("it fails", || failed_requests(&server) > 0.0);
    let log = server.logs_with("authorities of certificates");
    assert!(log.contains("none.pem") && log.contains("name a file in SSL_CERT_FILE"), "{log}");
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

#[test]
fn a_new_web_server_begins_without_the_pauses_of_the_old_one() {
    let [old, new] = [Mood::Answers(400), Mood::Answers(200)].map(Receiver::start);
    let server = hooked(&old, "0").start();
    let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
    let texts: Vec<String> = (0..10).map(|nth| format!("text {nth}")).collect();
    for text in &texts {
        ann.say(&with(&bob), text);
    }
    wait_until("one was refused alone", || old.requests().iter().any(|request| request.messages().len() == 1));
    wait_until("all wait", || waiting(&server) == texts.len());
    make_due(&server, &new);
    wait_until("nothing waits", || waiting(&server) == 0);
    let first: Vec<_> = new.requests()[0].messages().iter().map(|message| message["m"]["msg"].clone()).collect();
    assert_eq!(first, texts, "all are in one request");
}
