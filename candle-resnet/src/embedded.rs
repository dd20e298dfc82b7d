//! Weights files that are built into the program, for where there is no network.
//!
//! Holds bytes and nothing else; their cards lie in `models/embedded.json`. `scripts/make_embedded.py` writes both.

/// Name and content of each file.
const FILES: [(&str, &[u8]); 1] = [(
    "resnet20_cifar.embedded.safetensors",
    include_bytes!(concat!(env!("MODELS"), "/resnet20_cifar.embedded.safetensors")),
)];

/// The content of the file that a card calls `name`.
pub(crate) fn file(name: &str) -> Option<&'static [u8]> {
    FILES.into_iter().find(|(known, _)| *known == name).map(|(_, bytes)| bytes)
}
