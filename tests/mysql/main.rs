//! The store of a cluster when its database fails: killed, frozen, restarted, out of connections,
//! deadlocked. Also the error texts for an operator whose database cannot be used at all.

mod faults;
#[path = "../mysql_store/mod.rs"]
mod mysql_store;
mod store;
mod tables;
