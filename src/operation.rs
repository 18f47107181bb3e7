//! The operator's side: commands, signals, health, metrics and the log. `main.rs` and
//! [`server`](crate::server) call it.
//!
//! - [`admin`] is the HTTP port for metrics, health and administrators, [`health`] checks all
//!   parts.
//! - [`certificates`] are those of the client port, reloaded when their files change.
//! - [`logging`] has one writer thread; [`signals`] stop the server, or make it read settings
//!   again ([`reload`]).
//! - [`commands`] are the commands other than serving.
//! - [`status`] is the page of the admin port that shows the node's state in words and plots.
//! - [`supervisor`] tells systemd that the server serves, stops, or has a loop that stands still.
//! - [`resources`] are the limits of the system: descriptors, address space, threads.

pub mod admin;
pub mod certificates;
pub mod commands;
#[cfg(test)]
mod fake_node;
pub mod health;
pub mod jwt_key_file;
pub mod logging;
pub mod reload;
pub mod resources;
pub mod signals;
pub mod status;
pub mod supervisor;
mod watched;
