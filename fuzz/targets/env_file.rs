//! Any bytes are an environment file or a named refusal, and what is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::config::env_file;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = env_file::parse(bytes) else { return };
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    let mut written = String::new();
    for (line, key, value) in &file.assignments {
        assert!((1..=lines).contains(line), "line {line} of {lines}");
        written += &format!("{key}={}\n", env_file::quote(value));
    }
    let again = env_file::parse(written.as_bytes()).expect("what we write is text");
    let pairs = |file: &env_file::EnvFile| -> Vec<_> {
        file.assignments.iter().map(|(_, key, value)| (key.clone(), value.clone())).collect()
    };
    assert_eq!(pairs(&again), pairs(&file), "{written:?}");
});
