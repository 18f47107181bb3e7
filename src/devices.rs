//! Devices of level 2: [`token`] is what they log in with instead of a password.

pub mod token;
