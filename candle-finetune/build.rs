//! Where programs for NVIDIA GPUs look for CUDA's libraries: beside themselves, and where they were linked.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    let on_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    if on_linux && env::var_os("CARGO_FEATURE_CUDA").is_some() {
        let folders = ["lib64", "lib"].map(|folder| env::var("CUDA_HOME").map(|home| format!("{home}/{folder}")));
        let folders = [Ok("$ORIGIN".into())].into_iter().chain(folders).flatten();
        folders.for_each(|folder| println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}"));
    }
}
