#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| kvstore::fuzzing::import(input));
