//! The store of a cluster when its database answers but cannot do what it is asked. It is
//! read-only, out of prepared statements, limits the size of a packet, or a privilege is missing.
//! None of that is the fault of a message, and all of it is temporary. Also tables and accounts
//! that are set up wrongly.

mod failover;
#[path = "../mysql_store/mod.rs"]
mod mysql_store;
mod refusals;
mod sizes;
mod store;
mod switch;
mod tables;
