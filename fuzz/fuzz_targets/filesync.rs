//! Hands the target of this name to libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| dory_fuzz::filesync(input));
