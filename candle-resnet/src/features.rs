//! What fine-tuning asks of a frozen network: images in, features out. And where else a network can be left.

use std::fmt;

use candle_core::{Device, Result, Tensor};

use crate::architecture::Architecture;
use crate::blueprint::Blueprint;
use crate::trunk::Trunk;

/// Anything frozen that turns images into one vector each.
///
/// Fine-tuning knows networks through this trait alone, so that it does not depend on what family they are of.
pub trait FeatureExtractor: Send + Sync {
    /// D: values per image.
    fn feature_width(&self) -> usize;

    /// C: channels of an image.
    fn in_channels(&self) -> usize {
        3
    }

    /// Where images must lie and features will.
    fn device(&self) -> &Device;

    /// (N, C, H, W) f32 → (N, D) f32, untracked.
    ///
    /// # Errors
    /// If shapes or devices do not fit, or the device runs out of memory.
    fn features(&self, images: &Tensor) -> Result<Tensor>;
}

/// A place between two stages of a network: what is there is the map that the next stage is given.
///
/// Behind the stem that is the map after the stem's pool.
///
/// ```
/// use candle_resnet::architecture::Architecture;
/// use candle_resnet::features::Boundary;
///
/// let resnet18 = Architecture::named("resnet18").expect("the table has it");
/// assert_eq!(Boundary::named(resnet18, "layer3")?.to_string(), "layer3");
/// assert!(Boundary::named(resnet18, "layer5").is_err());
/// # Ok::<(), candle_resnet::features::UnknownBoundary>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// Stages before it.
    pub(crate) stages: usize,
}

/// A name that no boundary of the network has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{architecture}` has no `{name}`, expected {}", .known.join(", "))]
pub struct UnknownBoundary {
    /// The network.
    pub architecture: &'static str,
    /// What was asked for.
    pub name: String,
    /// Names of its boundaries.
    pub known: Vec<String>,
}

impl Boundary {
    /// The boundary behind `stem`, `layer1`, `layer2`, …
    ///
    /// # Errors
    /// If the network has no such part.
    pub fn named(architecture: &Architecture, name: &str) -> std::result::Result<Boundary, UnknownBoundary> {
        let mut boundaries = Boundary::all(architecture);
        boundaries.find(|boundary| boundary.to_string() == name).ok_or_else(|| UnknownBoundary {
            architecture: architecture.name,
            name: name.into(),
            known: Boundary::all(architecture).map(|boundary| boundary.to_string()).collect(),
        })
    }

    /// Every boundary of the network, from its stem to its last stage.
    pub fn all(architecture: &Architecture) -> impl Iterator<Item = Boundary> {
        (0..=architecture.depths.len()).map(|stages| Boundary { stages })
    }

    /// The boundary behind the last stage, whose map is pooled to features.
    pub fn last(architecture: &Architecture) -> Boundary {
        Boundary { stages: architecture.depths.len() }
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stages {
            0 => write!(f, "stem"),
            stage => write!(f, "layer{stage}"),
        }
    }
}

/// What becomes of the map at a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapPool {
    /// Nothing: every pixel is kept.
    None,
    /// The mean of each channel over all pixels.
    Average,
}

/// A trunk that is left at a boundary, for square images of one size.
#[derive(Debug, Clone)]
pub struct StageExtractor {
    trunk: Trunk,
    boundary: Boundary,
    pool: MapPool,
    /// (C, H, W) of the map.
    map: [usize; 3],
}

impl StageExtractor {
    /// Leaves `trunk`, which is of `architecture`, at `boundary`, for images of side `size`.
    pub fn new(trunk: Trunk, architecture: &Architecture, boundary: Boundary, pool: MapPool, size: usize) -> Self {
        let costs = Blueprint::of(architecture).costs(size);
        let map = costs.get(boundary.stages).map_or([0; 3], |cost| [cost.channels, cost.size, cost.size]);
        StageExtractor { trunk, boundary, pool, map }
    }

    /// Shape of one image's features: (C), or (C, H, W) where pixels are kept.
    pub fn shape(&self) -> &[usize] {
        match self.pool {
            MapPool::None => &self.map,
            MapPool::Average => &self.map[..1],
        }
    }
}

/// One row for an image: a map that is not pooled is laid out channel by channel, row by row.
impl FeatureExtractor for StageExtractor {
    fn feature_width(&self) -> usize {
        self.shape().iter().product()
    }

    fn in_channels(&self) -> usize {
        self.trunk.in_channels()
    }

    fn device(&self) -> &Device {
        self.trunk.device()
    }

    fn features(&self, images: &Tensor) -> Result<Tensor> {
        let map = self.trunk.map_at(images, self.boundary)?;
        match self.pool {
            MapPool::None => map.flatten_from(1),
            MapPool::Average => map.mean((2, 3)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(architecture: &str, name: &str) -> std::result::Result<Boundary, UnknownBoundary> {
        Boundary::named(Architecture::named(architecture).unwrap(), name)
    }

    #[test]
    fn boundaries_are_the_stem_and_every_stage() {
        let names = |name: &str| -> Vec<String> {
            Boundary::all(Architecture::named(name).unwrap()).map(|boundary| boundary.to_string()).collect()
        };
        assert_eq!(names("resnet18"), ["stem", "layer1", "layer2", "layer3", "layer4"]);
        assert_eq!(names("resnet20_cifar"), ["stem", "layer1", "layer2", "layer3"]);
        assert_eq!(named("resnet18", "layer4"), Ok(Boundary::last(Architecture::named("resnet18").unwrap())));
    }

    #[test]
    fn a_network_says_which_boundaries_it_has() {
        let error = named("resnet20_cifar", "layer4").unwrap_err();
        assert_eq!(error.to_string(), "`resnet20_cifar` has no `layer4`, expected stem, layer1, layer2, layer3");
    }
}
