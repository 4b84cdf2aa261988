//! Writes the C header `include/ttpu_text.h` into the target folder ($OUT_DIR when that is unknown).
use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-env-changed=CARGO_TARGET_DIR");
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let target = env::var("CARGO_TARGET_DIR").or_else(|_| env::var("OUT_DIR"));
    let header = PathBuf::from(target.expect("cargo sets OUT_DIR")).join("include/ttpu_text.h");
    cbindgen::generate(root).expect("the C interface has a C header").write_to_file(header);
}
