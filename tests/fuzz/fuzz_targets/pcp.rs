#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerlink_tests::fuzz_targets::pcp(data));
