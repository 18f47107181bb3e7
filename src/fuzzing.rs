//! What must hold for any bytes from outside: one function for each reader of such bytes, which panics when it does not.
//!
//! The fuzzer of `fuzz/` calls them, and so do the tests here, with the fuzzer's corpus and with what random edits make of
//! it. The module is there in tests and with the cargo feature `fuzzing`, which is for `fuzz/` alone: what these functions
//! look at is private, and stays so for whoever uses the library.

mod framing;
mod reply;
mod request;

pub use framing::framing;
// Where `net` has it: in tests it has a test of its own.
#[cfg(feature = "fuzzing")]
pub use net::fuzzing::proxy_header;
pub use reply::reply;
pub use request::request;

pub use crate::bus::redis::fuzzing::{envelope, redis_reply};
pub use crate::config::fuzzing::config;
pub use crate::operation::admin::fuzzing::http;

#[cfg(test)]
#[path = "../fuzz/without_fuzzer.rs"]
mod without_fuzzer;

#[cfg(test)]
mod tests {
    use super::without_fuzzer::check;

    #[test]
    fn config() {
        check("config", super::config);
    }

    #[test]
    fn envelope() {
        check("envelope", super::envelope);
    }

    #[test]
    fn framing() {
        check("framing", super::framing);
    }

    #[test]
    fn http() {
        check("http", super::http);
    }

    #[test]
    fn redis_reply() {
        check("redis_reply", super::redis_reply);
    }

    #[test]
    fn reply() {
        check("reply", super::reply);
    }

    #[test]
    fn request() {
        check("request", super::request);
    }
}
