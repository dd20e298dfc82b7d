//! What other programs computed, kept in the program, so that everybody can compare without weights and without network.
//!
//! Two parts: logits and features of every network, with weights and input [by formula](formula); and the pixels that
//! torchvision's transform makes of one built-in photo for every card's preprocessing. That a published weights file was
//! trained well, or is read well, is not shown here: its download is checked, and each of its tensors by name and shape.
//! `scripts/golden/` writes the references, in `models/references/`.

pub mod formula;
mod networks;
mod pixels;
mod verified;

pub use networks::{Difference, NetworkDifference, NetworkOutputs, NetworkReference};
pub use pixels::{PixelDifference, PixelReference};
pub use verified::{VerifiedNetwork, verified_networks};
