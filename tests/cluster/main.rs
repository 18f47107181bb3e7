//! Several nodes on one MariaDB and one Redis, with or without nginx in front, with or without
//! nodes of the reference server. Any of them may fail under traffic.
//!
//! `OUTAGE_SECONDS` sets how long a service is unreachable (20), and `STORM_USERS` how many users
//! come back at the same time (500).

#![allow(unreachable_pub, reason = "the parts of one program")]

mod bookkeeping;
mod cost;
mod everyday;
mod faults;
mod neighbours;
mod rolling;
mod storm;
mod traffic;
mod websockets;
