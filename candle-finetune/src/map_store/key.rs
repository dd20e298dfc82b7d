//! What maps depend on, as a digest.

use std::fmt;

use sha2::{Digest, Sha256};

/// Changes when the same things would make other maps.
const VERSION: &str = "maps 1";

/// A digest of all that maps depend on. Each part has a name, so that parts cannot run into one another.
#[derive(Debug, Clone)]
pub struct MapKey(Sha256);

impl MapKey {
    /// Of nothing yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> MapKey {
        MapKey(Sha256::new()).with("version", VERSION.as_bytes())
    }

    /// With another thing that they depend on.
    pub fn with(self, name: &str, value: &[u8]) -> MapKey {
        let lengths = [name.len(), value.len()].map(|length| (length as u64).to_le_bytes());
        MapKey(self.0.chain_update(lengths.concat()).chain_update(name).chain_update(value))
    }
}

/// Half of the digest, in hexadecimal digits.
impl fmt::Display for MapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.0.clone().finalize();
        digest.iter().take(16).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
