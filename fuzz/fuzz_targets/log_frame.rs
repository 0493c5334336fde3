#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = keyward_fuzz::log_frame::run(data);
});
