#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kaapana_agent_fuzz::template(data));
