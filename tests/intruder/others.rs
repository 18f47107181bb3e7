//! [`undisturbed`]: clients that only want to chat.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use testkit::{LONG_PATIENCE, SetOnDrop, TestClient, TestServer, numbered, offline_user, password};

const PAIRS: usize = 3;

/// The least number of messages that each pair exchanges, even if the attack is short.
const MESSAGES_MIN: usize = 200;

/// Runs an attack while pairs of users chat, and returns its result. Every message must arrive, in
/// order, and nothing else. `opening` is sent first on each connection.
pub fn undisturbed<T>(server: &TestServer, opening: &[u8], attack: impl FnOnce() -> T) -> T {
    let connect = |name: &str| {
        let id = {
            // Registration needs the opening, too.
            let mut client = TestClient::connect(server);
            client.send_raw(opening);
            client.register(name, &password(name))
        };
        let mut client = TestClient::connect(server);
        client.set_patience(LONG_PATIENCE);
        client.send_raw(opening);
        client.login(id, &password(name));
        (client, id)
    };
    let pairs: Vec<_> = (0..PAIRS).map(|n| (connect(&format!("left {n}")), connect(&format!("right {n}")))).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for ((mut left, l), (mut right, r)) in pairs {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut n = 0;
                while n < MESSAGES_MIN || !is_over.load(Ordering::Relaxed) {
                    left.send(&numbered(l, r, n));
                    right.expect(&numbered(l, r, n));
                    right.send(&numbered(r, l, n));
                    left.expect(&numbered(r, l, n));
                    n += 1;
                }
                left.barrier();
                right.barrier();
            });
        }
        let _over = SetOnDrop(&is_over);
        attack()
    })
}

/// Registers a user.
pub fn somebody(server: &TestServer, name: &str) -> (i64, String) {
    (offline_user(server, name), password(name))
}
