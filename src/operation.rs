//! The operator's side: commands, signals, health, metrics and the log. `main.rs` and
//! [`server`](crate::server) call it.
//!
//! - [`admin`] is the HTTP port for metrics and health, [`health`] checks all parts.
//! - [`certificates`] are those of the port, read again when their files change.
//! - [`logging`] has one writer thread; [`signals`] stop the server, or make it read settings
//!   again.
//! - [`commands`] are the commands other than serving.
//! - [`resources`] are the limits of the system: descriptors, address space, threads.

pub mod admin;
pub mod certificates;
pub mod commands;
pub mod health;
pub mod logging;
pub mod resources;
pub mod signals;
