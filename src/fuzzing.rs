//! Properties that must hold for any bytes from outside: one function for each parser, which panics
//! if one is violated.
//!
//! The fuzzer of `fuzz/` calls them, and so do the tests here, with the fuzzer's corpus and with
//! random edits of it. The module exists in tests and with the cargo feature `fuzzing`, which is
//! only for `fuzz/`: the code that these functions check is private, and stays private for users of
//! the library.

mod framing;
mod level2;
mod reply;
mod request;

pub use framing::framing;
pub use level2::level2;
// Only with the feature: `net` itself tests this in its own tests.
#[cfg(feature = "fuzzing")]
pub use net::fuzzing::{opening, proxy_header, websocket};
pub use reply::reply;
pub use request::request;

pub use crate::bus::redis::fuzzing::{envelope, redis_reply};
pub use crate::config::fuzzing::config;
pub use crate::operation::admin::fuzzing::http;
pub use crate::web::fuzzing::web_request;

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
    fn level2() {
        check("level2", super::level2);
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

    #[test]
    fn web_request() {
        check("web_request", super::web_request);
    }
}
