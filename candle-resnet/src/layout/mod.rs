//! How programs name a network's tensors: names of a file ↔ torchvision's names.
//!
//! The [`LAYOUTS`] are a table, read in both directions; [`Placement`] finds which of them a file follows, and where in
//! the file the network lies. Looks at names only, never at a tensor, and reads no file.
//!
//! Sources: `torchvision/models/resnet.py`, `timm/models/resnet.py`, `transformers/models/resnet/modeling_resnet.py`,
//! and the CIFAR networks of akamaster and kuangliu.

mod pattern;
mod placement;

use std::collections::BTreeMap;

pub use placement::{Ambiguous, Placed, Placement};

/// A module's name in torchvision and its name in another program, as patterns with numbers counted from 0 or 1.
type Rule = (&'static str, &'static str);

/// One program's names.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whose names they are, for messages.
    pub name: &'static str,
    rules: &'static [Rule],
    /// Whether modules without a rule go by torchvision's name.
    others_alike: bool,
    /// Whether it is that of a network which another may be made of: where both are, this one is not meant.
    of_a_part: bool,
}

/// Every layout that is known; where a file fits several, the first is meant.
pub const LAYOUTS: &[Layout] = &[
    Layout { name: "torchvision's and timm's", rules: &[], others_alike: true, of_a_part: false },
    Layout {
        name: "the CIFAR repositories'",
        rules: &[("fc", "linear"), ("layer{1}.{0}.downsample.{0}", "layer{1}.{0}.shortcut.{0}")],
        others_alike: true,
        of_a_part: false,
    },
    Layout {
        name: "transformers'",
        rules: &[
            ("conv1", "resnet.embedder.embedder.convolution"),
            ("bn1", "resnet.embedder.embedder.normalization"),
            ("layer{1}.{0}.conv{1}", "resnet.encoder.stages.{0}.layers.{0}.layer.{0}.convolution"),
            ("layer{1}.{0}.bn{1}", "resnet.encoder.stages.{0}.layers.{0}.layer.{0}.normalization"),
            ("layer{1}.{0}.downsample.0", "resnet.encoder.stages.{0}.layers.{0}.shortcut.convolution"),
            ("layer{1}.{0}.downsample.1", "resnet.encoder.stages.{0}.layers.{0}.shortcut.normalization"),
            ("fc", "classifier.1"),
        ],
        others_alike: false,
        of_a_part: false,
    },
    // `ResNetModel` and `ResNetBackbone`, which have no classifier.
    Layout {
        name: "transformers' without a classifier",
        rules: &[
            ("conv1", "embedder.embedder.convolution"),
            ("bn1", "embedder.embedder.normalization"),
            ("layer{1}.{0}.conv{1}", "encoder.stages.{0}.layers.{0}.layer.{0}.convolution"),
            ("layer{1}.{0}.bn{1}", "encoder.stages.{0}.layers.{0}.layer.{0}.normalization"),
            ("layer{1}.{0}.downsample.0", "encoder.stages.{0}.layers.{0}.shortcut.convolution"),
            ("layer{1}.{0}.downsample.1", "encoder.stages.{0}.layers.{0}.shortcut.normalization"),
        ],
        others_alike: false,
        of_a_part: false,
    },
    // `nn.Sequential(*list(model.children())[:-1])`, as fastai and Lightning's guide to transfer learning cut a network off.
    Layout {
        name: "a Sequential's",
        rules: &[
            ("conv1", "0"),
            ("conv1.{0}", "0.{0}"),
            ("bn1", "1"),
            ("layer{1}.{0}.conv{1}", "{4}.{0}.conv{1}"),
            ("layer{1}.{0}.bn{1}", "{4}.{0}.bn{1}"),
            ("layer{1}.{0}.downsample.{0}", "{4}.{0}.downsample.{0}"),
        ],
        others_alike: false,
        of_a_part: true,
    },
];

/// What `torch.compile` puts before the names of a module.
const COMPILED: &str = "_orig_mod.";

/// The entries of a file without what `torch.compile` put into names of modules, wherever these stand in the network; a name that
/// another entry has then stays as it is.
pub fn uncompiled<T>(entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
    let (compiled, mut entries): (BTreeMap<_, _>, BTreeMap<_, _>) =
        entries.into_iter().partition(|(name, _)| name.contains(COMPILED));
    for (name, tensor) in compiled {
        let bare = name.replace(COMPILED, "");
        entries.insert(if entries.contains_key(&bare) { name } else { bare }, tensor);
    }
    entries
}

impl Layout {
    /// Torchvision's name of the tensor that this layout calls `name`; `None` where this layout has no such name.
    pub fn to_torchvision(&self, name: &str) -> Option<String> {
        self.renamed(name, |&(own, foreign)| (foreign, own))
    }

    /// This layout's name of the tensor that torchvision calls `name`; `None` where it has none.
    pub fn from_torchvision(&self, name: &str) -> Option<String> {
        self.renamed(name, |&(own, foreign)| (own, foreign))
    }

    /// A module's new name before the tensor's unchanged last part.
    fn renamed(&self, name: &str, direction: impl Fn(&Rule) -> (&'static str, &'static str)) -> Option<String> {
        let (module, leaf) = name.rsplit_once('.')?;
        let mut rules = self.rules.iter().map(&direction);
        if let Some(renamed) = rules.find_map(|(from, to)| Some(pattern::write(to, &pattern::read(from, module)?))) {
            return Some(format!("{renamed}.{leaf}"));
        }
        // A name that a rule leads to must not come from two sides.
        let taken = self.rules.iter().map(direction).any(|(_, to)| pattern::read(to, module).is_some());
        (self.others_alike && !taken).then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{ARCHITECTURES, Architecture, BlockKind};
    use crate::blueprint::Blueprint;

    fn layout(name: &str) -> &'static Layout {
        LAYOUTS.iter().find(|layout| layout.name.starts_with(name)).unwrap()
    }

    fn names(architecture: &Architecture) -> Vec<String> {
        Blueprint::of(architecture).parameters(10).into_iter().map(|spec| spec.name).collect()
    }

    /// Every layout has a name for every tensor of the networks that its program builds, and another for each.
    #[test]
    fn names_go_there_and_come_back() {
        for architecture in ARCHITECTURES {
            for layout in LAYOUTS.iter().filter(|layout| layout.others_alike) {
                for name in names(architecture) {
                    let foreign = layout.from_torchvision(&name).unwrap();
                    assert_eq!(layout.to_torchvision(&foreign), Some(name), "{foreign} in {}", layout.name);
                }
            }
        }
        for (name, kind) in [("resnet34", BlockKind::Basic), ("resnet50", BlockKind::Bottleneck)] {
            let architecture = Architecture::named(name).unwrap();
            assert_eq!(architecture.blocks[0], kind);
            for name in names(architecture) {
                let foreign = layout("transformers'").from_torchvision(&name).unwrap();
                assert_eq!(layout("transformers'").to_torchvision(&foreign), Some(name), "{foreign}");
            }
        }
    }

    #[test]
    fn transformers_names_are_its_own() {
        let rows = [
            ("conv1.weight", "resnet.embedder.embedder.convolution.weight"),
            ("bn1.running_var", "resnet.embedder.embedder.normalization.running_var"),
            ("layer3.5.conv2.weight", "resnet.encoder.stages.2.layers.5.layer.1.convolution.weight"),
            ("layer1.0.bn3.bias", "resnet.encoder.stages.0.layers.0.layer.2.normalization.bias"),
            ("layer2.0.downsample.1.weight", "resnet.encoder.stages.1.layers.0.shortcut.normalization.weight"),
            ("fc.bias", "classifier.1.bias"),
        ];
        for (own, foreign) in rows {
            assert_eq!(layout("transformers'").from_torchvision(own).as_deref(), Some(foreign));
            assert_eq!(layout("transformers'").to_torchvision(foreign).as_deref(), Some(own));
        }
    }

    #[test]
    fn a_sequential_counts_its_modules() {
        let rows = [
            ("conv1.weight", "0.weight"),
            ("conv1.3.weight", "0.3.weight"),
            ("bn1.running_mean", "1.running_mean"),
            ("layer1.0.conv1.weight", "4.0.conv1.weight"),
            ("layer4.2.downsample.1.bias", "7.2.downsample.1.bias"),
        ];
        for (own, foreign) in rows {
            assert_eq!(layout("a Sequential").from_torchvision(own).as_deref(), Some(foreign));
            assert_eq!(layout("a Sequential").to_torchvision(foreign).as_deref(), Some(own));
        }
        assert_eq!(layout("a Sequential").to_torchvision("3.0.conv1.weight"), None);
    }

    #[test]
    fn what_torch_compile_adds_goes_where_names_stay_apart() {
        let uncompiled = |names: &[&str]| -> Vec<String> {
            uncompiled(names.iter().map(|name| (name.to_string(), ())).collect()).into_keys().collect()
        };
        assert_eq!(uncompiled(&["_orig_mod.a.b", "c._orig_mod.d"]), ["a.b", "c.d"]);
        assert_eq!(uncompiled(&["a.b", "_orig_mod.a.b"]), ["_orig_mod.a.b", "a.b"]);
        assert_eq!(uncompiled(&["_orig_mod.a", "_orig_mod._orig_mod.a"]).len(), 2);
    }

    #[test]
    fn what_a_program_does_not_build_has_no_name_there() {
        for name in ["conv1.0.weight", "layer1.0.se.fc1.weight", "layer2.0.downsample.2.weight", "maxpool.0.weight"] {
            assert_eq!(layout("transformers'").from_torchvision(name), None, "{name}");
        }
        assert_eq!(layout("transformers'").to_torchvision("conv1.weight"), None);
    }

    #[test]
    fn two_names_never_mean_one() {
        let cifar = layout("the CIFAR");
        assert_eq!(cifar.to_torchvision("linear.bias").as_deref(), Some("fc.bias"));
        assert_eq!(cifar.to_torchvision("fc.bias"), None);
        assert_eq!(cifar.to_torchvision("layer1.linear.bias").as_deref(), Some("layer1.linear.bias"));
        assert_eq!(cifar.to_torchvision("bias"), None, "a tensor without a module");
    }
}
