//! Finds the model cards, and compiles the kernels for NVIDIA GPUs where they are asked for.

use std::path::Path;

fn main() {
    find_models();
    #[cfg(feature = "cudnn")]
    compile_kernels();
}

/// In `models/` beside this file where the crate was packaged, else in the workspace's.
fn find_models() {
    let crate_dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    let packaged = Path::new(&crate_dir).join("models");
    // A checkout without symbolic links holds a small text file in the folder's place.
    let models = if packaged.is_dir() { packaged } else { Path::new(&crate_dir).join("../models") };
    println!("cargo::rustc-env=MODELS={}", models.display());
    println!("cargo::rerun-if-changed={}", models.display());
}

/// `NAME.cu` → `$OUT_DIR/NAME.ptx`, for the GPU that `CUDA_COMPUTE_CAP` names, or else the one that is there.
#[cfg(feature = "cudnn")]
fn compile_kernels() {
    let compiled = cudaforge::KernelBuilder::new()
        .source_files([
            "src/backprop/cuda/maps.cu",
            "src/backprop/cuda/norms.cu",
            "src/backprop/cuda/weights.cu",
            "src/cudnn/unfold.cu",
        ])
        .watch(["src/cudnn/packs.cuh"]) // which they include
        .arg("-std=c++17")
        .arg("-O3")
        .build_ptx();
    if let Err(error) = compiled {
        panic!("the kernels for NVIDIA GPUs could not be compiled: {error}");
    }
}
