//! All that something depends on, as a digest.

use std::fmt;

use candle_core::{DType, Tensor};
use sha2::{Digest, Sha256};

/// A digest of named parts. The names keep parts from running into one another.
#[derive(Debug, Clone)]
pub struct Key(Sha256);

impl Key {
    /// Of nothing yet, for things of one kind; another kind when the same parts would make something else.
    pub fn new(kind: &str) -> Key {
        Key(Sha256::new()).with("version", kind.as_bytes())
    }

    /// With another part.
    pub fn with(self, name: &str, value: &[u8]) -> Key {
        let lengths = [name.len(), value.len()].map(|length| (length as u64).to_le_bytes());
        Key(self.0.chain_update(lengths.concat()).chain_update(name).chain_update(value))
    }

    /// With the values of a tensor.
    ///
    /// # Errors
    /// Those of reading them.
    pub fn with_tensor(self, name: &str, tensor: &Tensor) -> candle_core::Result<Key> {
        let flat = tensor.flatten_all()?;
        let bytes: Vec<u8> = match tensor.dtype() {
            DType::U32 => flat.to_vec1::<u32>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
            DType::F64 => flat.to_vec1::<f64>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
            _ => flat.to_dtype(DType::F32)?.to_vec1::<f32>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        Ok(self.with(name, &bytes))
    }
}

/// Half of the digest, in hexadecimal digits.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.0.clone().finalize();
        digest.iter().take(16).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
