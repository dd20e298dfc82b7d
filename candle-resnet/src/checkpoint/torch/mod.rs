//! What `torch.save` writes → tensors by name.
//!
//! A pickle describes the tensors, and their elements lie beside it: as entries of a zip archive, or, before
//! PyTorch 1.6, behind the pickle in the same file.
//!
//! Source: `torch/serialization.py`.

mod archive;
mod assemble;
mod legacy;
mod state_dict;
mod view;

use super::Tensors;
use super::budget::Budget;
use super::error::Problem;
use super::pickle;

/// Reads the zip form.
pub(super) fn read_zip(bytes: &[u8]) -> Result<Tensors, Problem> {
    let mut archive = archive::Archive::open(bytes)?;
    let description = archive.pickle()?;
    let pickle = pickle::parse(&description, 0)?;
    let entries = state_dict::find(&pickle)?;
    assemble::tensors(&pickle, entries, &mut archive, Budget::for_file(bytes.len()))
}

/// Reads the form of before PyTorch 1.6.
pub(super) fn read_legacy(bytes: &[u8]) -> Result<Tensors, Problem> {
    let pickle = legacy::description(bytes)?;
    let entries = state_dict::find(&pickle)?;
    let mut storages = legacy::Storages::locate(bytes, &pickle)?;
    assemble::tensors(&pickle, entries, &mut storages, Budget::for_file(bytes.len()))
}
