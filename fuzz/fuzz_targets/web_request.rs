#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raybox::fuzzing::web_request(data));
