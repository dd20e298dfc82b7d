//! Label sets that ship with the program.
//!
//! ImageNet-1k's names are torchvision's, ImageNet-12k's are all of a synset's lemmas, as timm has them; the synsets are
//! WordNet's. CIFAR-10's names are those of its authors. All in the order of the networks' outputs.

use std::sync::LazyLock;

/// The classes of a data set, in the order of a network's outputs.
#[derive(Debug, PartialEq, Eq)]
pub struct LabelSet {
    /// What people read: `great white shark`.
    pub names: Vec<String>,
    /// WordNet's identifiers: `n01484850`; empty where the names are all there is.
    pub synsets: Vec<String>,
}

static IMAGENET_1K: LazyLock<LabelSet> =
    LazyLock::new(|| LabelSet::parse(include_str!(concat!(env!("MODELS"), "/imagenet1k.tsv"))));
static IMAGENET_12K: LazyLock<LabelSet> =
    LazyLock::new(|| LabelSet::parse(include_str!(concat!(env!("MODELS"), "/imagenet12k.tsv"))));
static CIFAR_10: LazyLock<LabelSet> =
    LazyLock::new(|| LabelSet::of_names(include_str!(concat!(env!("MODELS"), "/cifar10.txt"))));

impl LabelSet {
    /// The set that cards call `name`.
    pub fn named(name: &str) -> Option<&'static LabelSet> {
        match name {
            "imagenet1k" => Some(&IMAGENET_1K),
            "imagenet12k" => Some(&IMAGENET_12K),
            "cifar10" => Some(&CIFAR_10),
            _ => None,
        }
    }

    /// One `synset<TAB>name` a line.
    fn parse(table: &str) -> LabelSet {
        let (synsets, names) =
            table.lines().filter_map(|line| line.split_once('\t')).map(|(s, n)| (s.into(), n.into())).unzip();
        LabelSet { names, synsets }
    }

    /// One name a line.
    fn of_names(list: &str) -> LabelSet {
        LabelSet { names: list.lines().map(String::from).collect(), synsets: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagenet_has_its_thousand_classes_in_order() {
        let labels = LabelSet::named("imagenet1k").unwrap();
        assert_eq!((labels.names.len(), labels.synsets.len()), (1000, 1000));
        assert_eq!((labels.names[2].as_str(), labels.synsets[2].as_str()), ("great white shark", "n01484850"));
        assert_eq!(labels.names[999], "toilet tissue");
    }

    #[test]
    fn imagenets_larger_subset_has_its_classes_in_order() {
        let labels = LabelSet::named("imagenet12k").unwrap();
        assert_eq!((labels.names.len(), labels.synsets.len()), (11_821, 11_821));
        assert_eq!((labels.names[5].as_str(), labels.synsets[0].as_str()), ("food, nutrient", "n00005787"));
    }

    #[test]
    fn cifar_has_its_ten_classes_in_order() {
        let labels = LabelSet::named("cifar10").unwrap();
        assert_eq!(labels.names.join(" "), "airplane automobile bird cat deer dog frog horse ship truck");
        assert!(labels.synsets.is_empty());
    }
}
