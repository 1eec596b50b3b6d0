//! See `informerd::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| informerd::fuzzing::run("frames", data));
