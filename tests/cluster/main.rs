//! Several nodes on one MariaDB and one Redis, behind nginx or not, beside nodes of the reference server or not, and
//! with any of them failing under traffic.
//!
//! `OUTAGE_SECONDS` sets how long a service is away (20), `STORM_USERS` how many users come back at once (500).

#![allow(unreachable_pub, reason = "the parts of one program")]

mod bookkeeping;
mod cost;
mod everyday;
mod faults;
mod neighbours;
mod rolling;
mod storm;
mod traffic;
