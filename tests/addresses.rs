//! The addresses that a server listens on, whatever the system is set to.

use std::fs;
use std::process::Command;
use std::thread;

use rustix::thread::{UnshareFlags, unshare};
use testkit::{TestServer, user};

/// A system where an IPv6 socket takes IPv6 alone: in a network of this thread's own, if that is possible.
fn take_ipv6_alone() -> Result<(), String> {
    unshare(UnshareFlags::NEWNET).map_err(|error| format!("no network of its own (needs root): {error}"))?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().map_err(|error| error.to_string())?;
    assert!(up.success(), "cannot use the loopback interface");
    let key = "/proc/sys/net/ipv6/bindv6only";
    fs::write(key, "1").map_err(|error| format!("{key}: {error}"))
}

#[test]
fn all_addresses_are_those_of_ipv4_too_whatever_bindv6only_is() {
    let test = || {
        if let Err(why) = take_ipv6_alone() {
            eprintln!("bindv6only is what it is on this machine: {why}");
        }
        let server = TestServer::builder().host("::").start();
        assert!(server.address().is_ipv4());
        user(&server, "ann").0.barrier();
    };
    // The network is the thread's, and what it starts has it too.
    thread::spawn(test).join().unwrap();
}
