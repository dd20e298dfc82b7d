//! A weights file of any known format → tensors by the file's names.
//!
//! Knows nothing of networks: which names and shapes a network wants is checked where it is built. Never runs code
//! that a file holds, and never writes.
//!
//! # What a broken or hostile file can cost
//!
//! Nothing here panics or recurses on what a file says. With a file of *n* bytes, memory stays below *n* for the file,
//! 4*n* + 1 MiB for what is inflated from a zip archive, 4*n* + 1 MiB for the tensors, and about 200 bytes per byte of
//! pickle, of which at most four million opcodes are read. Time is linear in the same numbers.

mod budget;
mod element;
mod error;
mod format;
mod pickle;
mod safetensors;
mod torch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use candle_core::Tensor;

pub use error::{CheckpointError, Problem, Shown};
pub use format::ForeignFile;
pub use pickle::PickleProblem;

use format::Format;

/// Tensors on the CPU under the names the file gives them, in the file's own element types.
///
/// candle has no `bool`, `i8` and `u16`: they arrive as `u8`, `i16` and `i32`.
pub type Tensors = BTreeMap<String, Tensor>;

/// Reads all tensors of a weights file; its format is told by its content, not by its name.
///
/// safetensors, and what `torch.save` writes: the zip form, and the form of before PyTorch 1.6. A nested `state_dict`
/// is found, or the average of the weights that timm's and torchvision's scripts keep beside it (`state_dict_ema`, `model_ema`);
/// whatever else a checkpoint holds (arguments, optimiser) is ignored. [`layout`](crate::layout) says what the names mean.
///
/// # Errors
/// [`CheckpointError`] names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<Tensors, CheckpointError> {
    read_file(path).map_err(|problem| CheckpointError::new(path, problem))
}

/// Reads all tensors of a weights file that is already in memory, as [`read`] does.
///
/// # Errors
/// [`Problem`] says what is wrong with the bytes.
pub fn read_bytes(bytes: &[u8]) -> Result<Tensors, Problem> {
    let tensors = match format::recognise(bytes)? {
        Format::Safetensors => safetensors::read(bytes),
        Format::TorchZip => torch::read_zip(bytes),
        Format::TorchLegacy => torch::read_legacy(bytes),
    }?;
    if tensors.is_empty() { Err(Problem::NoTensors { keys: Vec::new() }) } else { Ok(tensors) }
}

fn read_file(path: &Path) -> Result<Tensors, Problem> {
    // Asked before opening: a pipe blocks in `open`, a device never ends.
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(Problem::Folder);
    }
    if !metadata.is_file() {
        return Err(Problem::NotAFile);
    }
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    file.by_ref().take(format::PREFIX as u64).read_to_end(&mut start)?;
    format::recognise(&start)?; // a film or an archive is refused before it is read whole
    file.rewind()?;
    read_bytes(&contents(file, metadata.len())?)
}

fn contents(file: File, length: u64) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let too_large = || Problem::LargerThanMemory { bytes: length };
    bytes.try_reserve_exact(usize::try_from(length).map_err(|_| too_large())?).map_err(|_| too_large())?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}
