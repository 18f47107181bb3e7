//! [`World`]: users with data that an attack could harm.

use serde_json::json;

use crate::{TestClient, TestServer, chat, user};

/// The victim is offline. It has bob as a friend, a group with bob in it, and a stored message.
/// Carol has no friends, and a group of her own.
pub struct World {
    pub server: TestServer,
    pub victim: i64,
    pub bob: (TestClient, i64),
    pub carol: (TestClient, i64),
    pub group: i64,
    pub carols_group: i64,
}

impl World {
    pub fn new(server: TestServer) -> World {
        let (mut client, victim) = user(&server, "victim");
        let (mut bob, b) = user(&server, "bob");
        let (mut carol, c) = user(&server, "carol");
        client.ask(&json!({"msgType": 6, "U1": victim, "U2": b}));
        bob.recv();
        let group = client.create_group(victim, "the victim's");
        bob.join_group(b, group);
        let carols_group = carol.create_group(c, "carol's");
        client.logout(victim);
        bob.send(&chat(b, victim, "waiting"));
        bob.barrier();
        World { server, victim, bob: (bob, b), carol: (carol, c), group, carols_group }
    }

    /// Checks that nothing was sent to the online users of the world.
    pub fn expect_silence(&mut self) {
        self.bob.0.expect_silence_until_barrier();
        self.carol.0.expect_silence_until_barrier();
    }
}
