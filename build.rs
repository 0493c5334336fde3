//! Has functions whose code is the same linked once, where the linker can do that: a release is the smaller by a thirtieth.
//!
//! The code of generic functions is made for each of their types, and for many types it is the same instructions. `--icf=all`
//! (identical code folding: lld, gold, mold) keeps one of them. Two functions may have one address then, which Rust allows
//! anyway; of data, tables of methods among them, nothing is folded. Linkers that do not know the option refuse it, so the one
//! that will be used is asked first, with the smallest program there is.
#![expect(clippy::disallowed_methods, reason = "cargo tells a build script everything in variables")]

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const FOLD: &str = "-Wl,--icf=all";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A debug build is to be linked soon, not small.
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") && folds().unwrap_or(false) {
        println!("cargo::rustc-link-arg-bins={FOLD}");
    }
}

/// Whether the compiler, as it is set up for this build, links a program with the option.
fn folds() -> Option<bool> {
    let dir = PathBuf::from(env::var_os("OUT_DIR")?);
    let source = dir.join("smallest.rs");
    std::fs::write(&source, "fn main() {}\n").ok()?;
    let mut compiler = Command::new(env::var_os("RUSTC")?);
    compiler.arg(&source).arg("-o").arg(dir.join("smallest")).arg("--target").arg(env::var_os("TARGET")?);
    compiler.arg(format!("-Clink-arg={FOLD}"));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compiler.arg(format!("-Clinker={linker}"));
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    compiler.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    let ended = compiler.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ended.ok().map(|status| status.success())
}
