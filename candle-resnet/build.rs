//! Finds the model cards: in `models/` beside this file where the crate was packaged, else in the workspace's.

use std::path::Path;

fn main() {
    let crate_dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    let packaged = Path::new(&crate_dir).join("models");
    // A checkout without symbolic links holds a small text file in the folder's place.
    let models = if packaged.is_dir() { packaged } else { Path::new(&crate_dir).join("../models") };
    println!("cargo::rustc-env=MODELS={}", models.display());
    println!("cargo::rerun-if-changed={}", models.display());
}
