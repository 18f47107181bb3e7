//! Basics that every other folder may use. They use no other folder.
//!
//! - [`ids`] are the ids of users and groups, [`rows`] the rows of the database that replies show.
//!   [`conversation`] are the conversations of level 2, and places in them.
//! - [`ending`] is the fate of an accepted message.
//! - [`loads`] are fill levels, for the metrics.
//! - [`memory`] is the memory that this process may have.
//! - [`threads`] starts threads; a simulation does without.
//! - [`clock`] tells the time, and lets tests set it.
//! - [`der`] reads the elements of certificates and keys.
//! - [`disabled`] is the mark in a stored password that its account is disabled.
//! - [`made_by_jwt`] is the mark that a JSON web token has made the account.
//! - [`collation`] compares names as MySQL does.
//! - [`trace`] remembers the hops of messages on this node, for the operator.
//! - `recent` is a table of bounded size that drops its oldest entries.

pub mod clock;
pub mod collation;
pub mod conversation;
pub mod der;
pub mod disabled;
pub mod ending;
#[cfg(test)]
pub(crate) mod folder;
pub mod ids;
pub mod loads;
pub mod made_by_jwt;
pub mod memory;
pub(crate) mod recent;
pub mod rows;
pub mod threads;
pub mod trace;
