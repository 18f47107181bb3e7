#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raybox::fuzzing::level2(data));
