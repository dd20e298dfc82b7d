//! Every ResNet by name: a name becomes verified weights, weights become a network, photos become features and logits.

pub mod checkpoint;
pub mod hub;
pub mod preprocess;
