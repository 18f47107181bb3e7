//! Messages that no device of a recipient has received are posted to a web server. The web server
//! is a listener of the test on this machine; the databases are SQLite and MySQL or MariaDB.

#![allow(unreachable_pub, reason = "the parts of one program")]

mod bridge;
mod cluster;
mod events;
mod everyday;
mod fairness;
mod outages;
mod receiver;
mod settings;
mod stage;
