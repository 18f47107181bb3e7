//! The addresses that a server listens on, independent of the system's settings.

use std::fs;
use std::process::Command;
use std::thread;

use rustix::thread::{UnshareFlags, unshare};
use testkit::{PATIENCE, TestServer, output_within, user};

/// Makes the IPv6 sockets of this thread accept IPv6 only. The thread gets a network namespace for
/// that, if the kernel allows one.
fn take_ipv6_alone() -> Result<(), String> {
    unshare(UnshareFlags::NEWNET).map_err(|error| format!("no network of its own (needs root): {error}"))?;
    let up = output_within(PATIENCE, Command::new("ip").args(["link", "set", "lo", "up"]));
    assert!(up.map_err(|error| error.to_string())?.status.success(), "cannot use the loopback interface");
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
    // The namespace belongs to the thread, and processes that it starts inherit it.
    thread::spawn(test).join().unwrap();
}
