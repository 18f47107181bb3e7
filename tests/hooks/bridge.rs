//! `examples/push_bridge.py`, run as it is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use testkit::{LONG_PATIENCE, Lines, PATIENCE, TestServer, Workplace, exit_within, wait_until, watchdog};

use crate::stage::{KEY, enter, fate, waiting, with};

#[test]
fn the_push_bridge_pushes_each_message_once_and_refuses_forgeries() {
    let workplace = Workplace::empty();
    workplace.write("hook.key", &format!("{KEY}\n"));
    let mut bridge = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/push_bridge.py"))
        .args(["0", "hook.key"])
        .current_dir(workplace.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the bridge");
    watchdog::watch(&bridge, false);
    let lines = Lines::of(bridge.stdout.take().expect("a pipe"));
    let first = lines.next_within(LONG_PATIENCE).expect("a line");
    let port: u16 = first.strip_prefix("listening on ").expect("its port").parse().expect("a number");
    let pushed = Arc::<Mutex<Vec<Value>>>::default();
    let kept = pushed.clone();
    thread::spawn(move || {
        for line in lines.rest() {
            kept.lock().expect("pushes").push(serde_json::from_str(&line).expect("JSON"));
        }
    });
    let pushes = || pushed.lock().expect("pushes").clone();

    let server = TestServer::builder().option("admin", "0").file("hook.key", KEY.to_owned());
    let server = server.option("hook_url", &format!("http://127.0.0.1:{port}/")).option("hook_key", "hook.key");
    let server = server.option("hook_delay", "0").option("hook_private", "127.0.0.1").start();
    let (mut ann, bob) = (enter(&server, "ann"), enter(&server, "bob"));
    ann.say(&with(&bob), "hello");
    let shown = json!({"user": bob.store.me, "title": with(&ann), "text": "hello"});
    wait_until("it is pushed", || pushes() == std::slice::from_ref(&shown));
    wait_until("nothing waits", || waiting(&server) == 0 && fate(&server, "delivered") == 1.0);

    // The same message once more, as after an answer that was lost.
    let row = "INSERT INTO HookQueue (sender, conv, seq, time, member) SELECT sender, conv, seq, time, 0 FROM Message";
    server.run_sql(row);
    wait_until("it is taken", || waiting(&server) == 0 && fate(&server, "delivered") == 2.0);
    ann.say(&with(&bob), "again");
    wait_until("the next one is pushed", || pushes().last().is_some_and(|last| last["text"] == "again"));
    assert_eq!(pushes().len(), 2, "the repeat is not");

    let ids = (ann.store.me, bob.store.me);
    ann.ask_for(200, json!({"msgType": 6, "U1": ids.0, "U2": ids.1}));
    wait_until("the new friend is pushed", || {
        pushes().last().is_some_and(|last| last["text"] == "ann is your friend now")
    });

    let post = |timestamp: u64, signature: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        let body = r#"{"messages":[]}"#;
        let request = format!(
            "POST / HTTP/1.1\r\nContent-Length: {}\r\nX-RayBox-Timestamp: {timestamp}\r\nX-RayBox-Signature: {signature}\r\n\r\n{body}",
            body.len()
        );
        stream.set_read_timeout(Some(LONG_PATIENCE)).expect("an option");
        stream.write_all(request.as_bytes()).expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).expect("a status").to_owned()
    };
    assert_eq!(post(1_789_891_200, &"0".repeat(64)), "401", "a wrong signature");
    // printf '1500000000.{"messages":[]}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
    assert_eq!(
        post(1_500_000_000, "e6571eb520887983dcbcde89822f90f079fe2b387ef0847ac74c5b4fee407fe4"),
        "401",
        "a right one of long ago"
    );
    bridge.kill().expect("end the bridge");
    exit_within(PATIENCE, &mut bridge);
}
