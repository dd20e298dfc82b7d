//! For NVIDIA GPUs: where the program looks for CUDA's libraries, and the kernels.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    let on_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    if on_linux && env::var_os("CARGO_FEATURE_CUDA").is_some() {
        name_library_folders();
    }
    #[cfg(feature = "cuda")]
    compile_kernels();
}

/// Beside the program, and where it was linked.
fn name_library_folders() {
    let folders = ["lib64", "lib"].map(|folder| env::var("CUDA_HOME").map(|home| format!("{home}/{folder}")));
    let folders = [Ok("$ORIGIN".into())].into_iter().chain(folders).flatten();
    folders.for_each(|folder| println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}"));
}

/// `kernels.cu` → `$OUT_DIR/kernels.ptx`, for the GPU that `CUDA_COMPUTE_CAP` names, or else the one that is there.
#[cfg(feature = "cuda")]
fn compile_kernels() {
    let compiled = cudaforge::KernelBuilder::new()
        .source_files(["src/train/elementwise/kernels.cu"])
        .arg("-std=c++17")
        .arg("-O3")
        .build_ptx();
    if let Err(error) = compiled {
        panic!("the kernels for NVIDIA GPUs could not be compiled: {error}");
    }
}
