//! Basics that every other folder may use. They use no other folder.
//!
//! - [`ids`] are what users and groups are called, [`rows`] what the database returns and replies
//!   show. [`conversation`] are the conversations of level 2, and places in them.
//! - [`ending`] is what becomes of an accepted message.
//! - [`loads`] is how full things are, for the metrics.
//! - [`memory`] is how much memory this process may have.
//! - [`threads`] starts threads, or a simulation does without.
//! - [`clock`] tells the time, and lets tests set it.
//! - [`collation`] compares names as MySQL does.
//! - `recent` is a table of bounded size that drops its oldest entries.

pub mod clock;
pub mod collation;
pub mod conversation;
pub mod ending;
pub mod ids;
pub mod loads;
pub mod memory;
pub(crate) mod recent;
pub mod rows;
pub mod threads;
