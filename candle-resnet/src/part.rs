//! The parts of a network in order: what a training run freezes or trains as a whole.

use std::fmt;

use crate::architecture::Architecture;
use crate::blueprint::{Blueprint, ParameterSpec};
use crate::features::Boundary;

/// A part of a network; those nearer to the pixels come first.
///
/// ```
/// use candle_resnet::architecture::Architecture;
/// use candle_resnet::part::Part;
///
/// let resnet18 = Architecture::named("resnet18").expect("the table has it");
/// let names: Vec<String> = Part::all(resnet18).map(|part| part.to_string()).collect();
/// assert_eq!(names, ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]);
/// assert_eq!(Part::Stage(4).entry(resnet18).unwrap().to_string(), "layer3");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// From pixels to the first stage, with its pool.
    Stem,
    /// A stage, counted from 1.
    Stage(usize),
    /// The global pool and `fc`.
    Classifier,
}

impl Part {
    /// Every part of the network, in order.
    pub fn all(architecture: &Architecture) -> impl Iterator<Item = Part> {
        let stages = (1..=architecture.depths.len()).map(Part::Stage);
        [Part::Stem].into_iter().chain(stages).chain([Part::Classifier])
    }

    /// The boundary whose map the part is given; none for the stem, which is given images.
    pub fn entry(self, architecture: &Architecture) -> Option<Boundary> {
        match self {
            Part::Stem => None,
            Part::Stage(stage) => Some(Boundary { stages: stage.saturating_sub(1) }),
            Part::Classifier => Some(Boundary::last(architecture)),
        }
    }

    /// Every tensor of the network's state dict with the part that it belongs to, in order.
    pub fn tensors(architecture: &Architecture, classes: usize) -> Vec<(Part, ParameterSpec)> {
        let specs = Blueprint::of(architecture).parameters(classes).into_iter();
        specs.map(|spec| (Part::of(&spec.name, architecture), spec)).collect()
    }

    /// The part that the tensor `name` belongs to: what is in no stage and not in `fc` is in the stem.
    fn of(name: &str, architecture: &Architecture) -> Part {
        let module = name.split('.').next().unwrap_or_default();
        Part::all(architecture).find(|part| part.to_string() == module).unwrap_or(Part::Stem)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Stem => write!(f, "stem"),
            Part::Stage(stage) => write!(f, "layer{stage}"),
            Part::Classifier => write!(f, "fc"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_belong_to_the_part_of_their_name() {
        let tensors = Part::tensors(Architecture::named("resnet18d").unwrap(), 10);
        let part = |name: &str| tensors.iter().find(|(_, spec)| spec.name == name).unwrap().0;
        assert_eq!(part("conv1.3.weight"), Part::Stem);
        assert_eq!(part("bn1.running_mean"), Part::Stem);
        assert_eq!(part("layer2.0.downsample.1.weight"), Part::Stage(2));
        assert_eq!(part("fc.bias"), Part::Classifier);
        assert!(tensors.is_sorted_by_key(|(part, _)| *part));
    }
}
