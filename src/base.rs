//! The ground floor: what any other folder may use, and what uses none of them.
//!
//! - [`clock`] tells the time, and lets tests say what time it is.
//! - [`collation`] compares names as MySQL does.
//! - `recent` is a table of bounded size that forgets what was put in longest ago.

pub mod clock;
pub mod collation;
pub(crate) mod recent;
