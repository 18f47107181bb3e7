//! What the operator says, and what the operator sees. `main.rs` and [`server`](crate::server) call it.
//!
//! - [`admin`] is the HTTP port for metrics and health, [`health`] finds out whether all parts work.
//! - [`logging`] has one writer; [`signals`] stop the server, or make it read settings again.
//! - [`commands`] are the commands beside serving.
//! - [`resources`] are the limits of the system: descriptors, address space, threads.

pub mod admin;
pub mod commands;
pub mod health;
pub mod logging;
pub mod resources;
pub mod signals;
