//! Where in a file a network lies: behind which prefix, and in which layout.
//!
//! Wrappers put something before every name: DataParallel `module.`, Lightning `model.`, `torch.compile` `_orig_mod.`,
//! somebody's own class `backbone.`. No list of them is kept. Whatever stands before the network's names is taken for a
//! prefix, and it counts only if *every* tensor below the classifier is there behind it; what lies beside the prefix (a
//! loss, a metric) is left aside, what lies behind it and is not the network's is an error later. Two whole networks in
//! one file (say one and its moving average) are an error too: nothing tells which was meant.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::{LAYOUTS, Layout};
use crate::blueprint::{Blueprint, ParameterSpec, classifier_parameters};

/// A network's place among the names of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// How the file names tensors behind the prefix.
    pub layout: &'static Layout,
    /// What stands before every name: `module.`, or nothing.
    pub prefix: String,
    /// Names of the network that were found, its classifier's among them.
    pub found: usize,
    /// Names of the network, its classifier's among them.
    pub expected: usize,
}

/// How near a file's names are to a network's.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Placement { layout, prefix, found, expected } = self;
        if *found == 0 {
            return write!(f, "no known layout has any of its names");
        }
        let behind = if prefix.is_empty() { String::new() } else { format!(" behind `{prefix}`") };
        write!(f, "nearest are {} names{behind}: {found} of {expected} found", layout.name)
    }
}

/// Several whole networks in one file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("holds {} networks of this shape, behind {}", .prefixes.len(), quoted(.prefixes))]
pub struct Ambiguous {
    /// What stands before the names of each.
    pub prefixes: Vec<String>,
}

fn quoted(prefixes: &[String]) -> String {
    let quoted: Vec<String> = prefixes.iter().map(|prefix| format!("`{prefix}`")).collect();
    quoted.join(" and ")
}

/// The entries of a file by what they are to the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed<T> {
    /// Those behind the prefix, by torchvision's names.
    pub tensors: BTreeMap<String, T>,
    /// Those behind the prefix whose name the layout does not have, by the file's names.
    pub strangers: BTreeMap<String, T>,
    /// Names of those that lie beside the network.
    pub beside: Vec<String>,
}

impl Placement {
    /// Finds the network of `blueprint` among the names of a file: the place where all of it lies, or else the place
    /// that has most of its names.
    ///
    /// # Errors
    /// [`Ambiguous`] if several places have all of it.
    pub fn find<'a>(names: impl IntoIterator<Item = &'a str>, blueprint: &Blueprint) -> Result<Placement, Ambiguous> {
        let candidates = tally(names, blueprint);
        let trunk = blueprint.trunk_parameters().len();
        let mut whole = best_of_each_network(candidates.iter().filter(|candidate| candidate.trunk == trunk));
        if whole.iter().any(|place| !place.layout.of_a_part) {
            whole.retain(|place| !place.layout.of_a_part);
        }
        if whole.len() > 1 {
            return Err(Ambiguous { prefixes: whole.into_iter().map(|place| place.prefix.to_owned()).collect() });
        }
        let nearest = || candidates.iter().rev().max_by_key(|candidate| candidate.found());
        let place = whole.pop().or_else(nearest);
        Ok(Placement {
            layout: place.map_or(&LAYOUTS[0], |place| place.layout),
            prefix: place.map_or_else(String::new, |place| place.prefix.to_owned()),
            found: place.map_or(0, Candidate::found),
            expected: trunk + CLASSIFIER.len(),
        })
    }

    /// Gives the entries of a file torchvision's names.
    ///
    /// `num_batches_tracked` counters are dropped: nothing reads them. A classifier of several modules is the one dense layer in it,
    /// as behind a dropout, or else lies beside the network, which then has none.
    pub fn apply<T>(&self, entries: BTreeMap<String, T>) -> Placed<T> {
        let mut placed = Placed { tensors: BTreeMap::new(), strangers: BTreeMap::new(), beside: Vec::new() };
        for (name, tensor) in entries.into_iter().filter(|(name, _)| !is_counter(name)) {
            let Some(inner) = name.strip_prefix(&self.prefix) else {
                placed.beside.push(name);
                continue;
            };
            match self.layout.to_torchvision(inner) {
                Some(own) => placed.tensors.insert(own, tensor),
                None => placed.strangers.insert(name, tensor),
            };
        }
        self.settle_classifier(&mut placed);
        placed
    }

    /// Makes one layer of `fc.….weight` and `fc.….bias`, or puts them beside the network if there is more.
    fn settle_classifier<T>(&self, placed: &mut Placed<T>) {
        if CLASSIFIER.iter().any(|name| placed.tensors.contains_key(*name)) {
            return;
        }
        let inner: Vec<String> = placed.tensors.keys().filter(|name| is_within_classifier(name)).cloned().collect();
        let only = only_layer(&inner);
        for name in &inner {
            let Some(tensor) = placed.tensors.remove(name) else { continue };
            match only.and_then(|layer| name.strip_prefix(layer)) {
                Some(leaf) => drop(placed.tensors.insert(format!("fc{leaf}"), tensor)),
                None => placed.beside.push(self.in_file(name)),
            }
        }
    }

    /// The file's name of the tensor that torchvision calls `name`.
    pub fn in_file(&self, name: &str) -> String {
        let foreign = self.layout.from_torchvision(name);
        format!("{}{}", self.prefix, foreign.as_deref().unwrap_or(name))
    }
}

const CLASSIFIER: [&str; 2] = ["fc.weight", "fc.bias"];

/// Whether a tensor is that of a module in `fc`, such as `fc.1.weight`.
fn is_within_classifier(name: &str) -> bool {
    name.strip_prefix("fc.").is_some_and(|rest| rest.contains('.'))
}

/// The module whose bias and weight all of these sorted names are.
fn only_layer(names: &[String]) -> Option<&str> {
    match names {
        [bias, weight] => bias.strip_suffix(".bias").filter(|layer| weight.strip_suffix(".weight") == Some(layer)),
        _ => None,
    }
}

fn is_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some("num_batches_tracked")
}

/// A prefix and a layout, and how much of the network is there.
struct Candidate<'a> {
    prefix: &'a str,
    layout: &'static Layout,
    /// The file's name of the network's first tensor: whose are equal have found the same network.
    first: String,
    /// Names of the trunk that were found.
    trunk: usize,
    /// Names of the classifier that were found.
    classifier: usize,
}

impl Candidate<'_> {
    fn found(&self) -> usize {
        self.trunk + self.classifier
    }
}

/// Every prefix behind which a name of the network stands, layout by layout.
fn tally<'a>(names: impl IntoIterator<Item = &'a str>, blueprint: &Blueprint) -> Vec<Candidate<'a>> {
    let names: Vec<&str> = names.into_iter().filter(|name| !is_counter(name)).collect();
    let places = LAYOUTS.iter().flat_map(|layout| tally_layout(&names, layout, blueprint));
    places.collect()
}

fn tally_layout<'a>(names: &[&'a str], layout: &'static Layout, blueprint: &Blueprint) -> Vec<Candidate<'a>> {
    let wanted = Wanted::of(layout, blueprint);
    let mut found: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for name in names {
        for (prefix, inner) in splits(name, wanted.longest) {
            match wanted.names.get(inner) {
                Some(Part::Trunk) => found.entry(prefix).or_default().0 += 1,
                Some(Part::Classifier) => found.entry(prefix).or_default().1 += 1,
                None => {}
            }
        }
    }
    let candidate = |(prefix, (trunk, classifier))| {
        let first = format!("{prefix}{}", wanted.first);
        Candidate { prefix, layout, first, trunk, classifier }
    };
    found.into_iter().map(candidate).collect()
}

#[derive(Clone, Copy)]
enum Part {
    Trunk,
    Classifier,
}

/// A layout's names of a network.
struct Wanted {
    names: HashMap<String, Part>,
    /// Name of the network's first tensor.
    first: String,
    /// Parts of the longest name.
    longest: usize,
}

impl Wanted {
    fn of(layout: &Layout, blueprint: &Blueprint) -> Wanted {
        let name = |part| move |spec: &ParameterSpec| Some((layout.from_torchvision(&spec.name)?, part));
        let (trunk, classifier) = (blueprint.trunk_parameters(), classifier_parameters(blueprint.feature_width, 1));
        let first = trunk.first().and_then(|spec| layout.from_torchvision(&spec.name)).unwrap_or_default();
        let trunk = trunk.iter().filter_map(name(Part::Trunk));
        let names: HashMap<String, Part> = trunk.chain(classifier.iter().filter_map(name(Part::Classifier))).collect();
        let longest = names.keys().map(|name| name.split('.').count()).max().unwrap_or(0);
        Wanted { names, first, longest }
    }
}

/// `a.b.c` as `a.b.` and `c`, as `a.` and `b.c`, as nothing and all of it; at most `longest` parts behind the prefix, so that a
/// name of a million dots costs no more than another.
fn splits(name: &str, longest: usize) -> impl Iterator<Item = (&str, &str)> {
    let dots = name.rmatch_indices('.').map(|(dot, _)| dot + 1);
    dots.take(longest).chain([0]).map(|start| name.split_at(start))
}

/// Of candidates for one network the one with more of the classifier; the first of equals.
fn best_of_each_network<'c, 'a: 'c>(candidates: impl Iterator<Item = &'c Candidate<'a>>) -> Vec<&'c Candidate<'a>> {
    let mut best: BTreeMap<&str, &Candidate> = BTreeMap::new();
    for candidate in candidates {
        let kept = best.entry(&candidate.first).or_insert(candidate);
        if candidate.classifier > kept.classifier {
            *kept = candidate;
        }
    }
    best.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::architecture::Architecture;

    fn blueprint(name: &str) -> Blueprint {
        Blueprint::of(Architecture::named(name).unwrap())
    }

    /// Torchvision's names of a network.
    fn own(name: &str) -> Vec<String> {
        blueprint(name).parameters(10).into_iter().map(|spec| spec.name).collect()
    }

    fn behind(prefix: &str, names: &[String]) -> Vec<String> {
        names.iter().map(|name| format!("{prefix}{name}")).collect()
    }

    fn entries(names: Vec<String>) -> BTreeMap<String, ()> {
        names.into_iter().map(|name| (name, ())).collect()
    }

    fn find(architecture: &str, names: &[String]) -> Result<Placement, Ambiguous> {
        Placement::find(names.iter().map(String::as_str), &blueprint(architecture))
    }

    fn place(architecture: &str, names: Vec<String>) -> (Placement, Placed<()>) {
        let placement = find(architecture, &names).unwrap();
        let placed = placement.apply(entries(names));
        (placement, placed)
    }

    #[test]
    fn every_layout_behind_every_wrapper_gives_torchvisions_names() {
        let prefixes =
            ["", "module.", "model.", "_orig_mod.", "net.", "backbone.", "network.", "model._orig_mod.module."];
        for architecture in ["resnet18", "resnet50"] {
            for (layout, prefix) in LAYOUTS.iter().flat_map(|layout| prefixes.map(|prefix| (layout, prefix))) {
                let foreign: Vec<String> =
                    own(architecture).iter().filter_map(|name| layout.from_torchvision(name)).collect();
                let (placement, placed) = place(architecture, behind(prefix, &foreign));
                assert_eq!((placement.layout, placement.prefix.as_str()), (layout, prefix));
                assert_eq!(placement.found, foreign.len());
                let mut expected = own(architecture);
                expected.sort();
                expected.retain(|name| placement.layout.from_torchvision(name).is_some());
                assert_eq!(placed.tensors.into_keys().collect::<Vec<_>>(), expected);
                assert!(placed.strangers.is_empty() && placed.beside.is_empty());
            }
        }
    }

    #[test]
    fn what_lies_beside_a_wrapper_is_left_aside() {
        let mut names = behind("model.", &own("resnet18"));
        names.extend(["loss.weight", "ema.decay", "metric.confusion", "fc.weight"].map(String::from));
        let (placement, placed) = place("resnet18", names);
        assert_eq!((placement.prefix.as_str(), placed.tensors.len()), ("model.", 102));
        assert_eq!(placed.beside, ["ema.decay", "fc.weight", "loss.weight", "metric.confusion"]);
    }

    #[test]
    fn what_lies_behind_a_wrapper_is_kept_for_the_check() {
        let mut names = behind("model.", &own("resnet18"));
        names.push("model.loss.weight".into());
        let (_, placed) = place("resnet18", names);
        assert!(placed.tensors.contains_key("loss.weight") && placed.beside.is_empty());
    }

    #[test]
    fn two_whole_networks_are_ambiguous() {
        let names = own("resnet18");
        for prefixes in [["model.", "model_ema.module."], ["", "ema."], ["student.", "teacher."]] {
            let both: Vec<String> = prefixes.iter().flat_map(|prefix| behind(prefix, &names)).collect();
            assert_eq!(find("resnet18", &both).unwrap_err().prefixes, prefixes);
        }
        let message = Ambiguous { prefixes: vec!["student.".into(), "teacher.".into()] }.to_string();
        assert_eq!(message, "holds 2 networks of this shape, behind `student.` and `teacher.`");
    }

    #[test]
    fn half_a_network_beside_a_whole_one_is_no_rival() {
        let names = own("resnet18");
        let mut both = behind("model.", &names);
        both.extend(behind("old.", &names[1..]));
        assert_eq!(find("resnet18", &both).unwrap().prefix, "model.");
    }

    #[test]
    fn linear_is_the_classifier_only_where_there_is_no_fc() {
        let linear: Vec<String> = own("resnet20_cifar").iter().map(|name| name.replace("fc.", "linear.")).collect();
        let (placement, placed) = place("resnet20_cifar", linear.clone());
        assert_eq!(placement.layout.name, "the CIFAR repositories'");
        assert!(placed.tensors.contains_key("fc.weight"));

        let (_, placed) = place("resnet20_cifar", [linear, vec!["fc.weight".into(), "fc.bias".into()]].concat());
        assert!(placed.tensors.contains_key("fc.weight") && placed.tensors.contains_key("linear.weight"));
    }

    #[test]
    fn a_classifier_behind_a_dropout_is_the_classifier() {
        for layer in ["fc.1", "fc.head.linear"] {
            let names: Vec<String> = own("resnet18").iter().map(|name| name.replace("fc", layer)).collect();
            let (_, placed) = place("resnet18", behind("model.", &names));
            assert!(placed.tensors.contains_key("fc.weight") && placed.tensors.contains_key("fc.bias"), "{layer}");
            assert_eq!((placed.tensors.len(), placed.beside.len()), (102, 0));
        }
    }

    #[test]
    fn a_classifier_of_several_layers_lies_beside_the_network() {
        let trunk: Vec<String> = own("resnet18").into_iter().filter(|name| !name.starts_with("fc.")).collect();
        let layers = ["fc.0.bias", "fc.0.weight", "fc.3.bias", "fc.3.weight"].map(String::from);
        let (_, placed) = place("resnet18", behind("model.", &[trunk.clone(), layers.to_vec()].concat()));
        assert_eq!((placed.tensors.len(), placed.beside), (100, behind("model.", &layers)));

        // What stands beside a classifier is no part of it.
        let (_, placed) = place("resnet18", [own("resnet18"), vec!["fc.norm.weight".into()]].concat());
        assert!(placed.tensors.contains_key("fc.norm.weight"));
    }

    #[test]
    fn a_network_and_a_sequential_of_its_modules_are_one() {
        let sequential = LAYOUTS.iter().find(|layout| layout.of_a_part).unwrap();
        let cut: Vec<String> = own("resnet18").iter().filter_map(|name| sequential.from_torchvision(name)).collect();
        let both = [behind("resnet.", &own("resnet18")), behind("features.", &cut)].concat();
        let (placement, placed) = place("resnet18", both);
        assert_eq!((placement.prefix.as_str(), placed.tensors.len(), placed.beside.len()), ("resnet.", 102, 100));
        let (placement, placed) = place("resnet18", behind("features.", &cut));
        assert_eq!((placement.prefix.as_str(), placed.tensors.len()), ("features.", 100));
    }

    #[test]
    fn counters_go_wherever_they_stand() {
        let mut names = behind("module.", &own("resnet18"));
        names.extend(["module.bn1.num_batches_tracked", "bn1.num_batches_tracked"].map(String::from));
        let (_, placed) = place("resnet18", names);
        assert_eq!((placed.tensors.len(), placed.beside.len()), (102, 0));
    }

    #[test]
    fn a_damaged_network_is_placed_where_most_of_it_lies() {
        let mut names = behind("model.", &own("resnet18"));
        names[0] = "model.conv0.weight".into();
        let (placement, placed) = place("resnet18", names);
        assert_eq!((placement.prefix.as_str(), placement.found, placement.expected), ("model.", 101, 102));
        assert!(placed.tensors.contains_key("conv0.weight"));
        assert_eq!(placement.in_file("conv1.weight"), "model.conv1.weight");
    }

    #[test]
    fn nothing_is_placed_nowhere() {
        let placement = find("resnet18", &[]).unwrap();
        assert_eq!((placement.found, placement.prefix.as_str()), (0, ""));
    }

    #[test]
    fn a_name_of_many_parts_costs_no_more_than_another() {
        let name = "a.".repeat(1_000_000);
        assert_eq!(splits(&name, 9).count(), 10);
        assert_eq!(find("resnet18", &[name]).unwrap().found, 0);
    }

    proptest! {
        #[test]
        fn every_entry_but_counters_is_kept_once(
            names in prop::collection::btree_set(
                "(module\\.|model\\.|resnet\\.)?(linear\\.|fc\\.|classifier\\.1\\.)?(weight|num_batches_tracked|x)?", 0..8)
        ) {
            let kept = names.iter().filter(|name| !is_counter(name)).count();
            let (_, placed) = place("resnet20_cifar", names.into_iter().collect());
            prop_assert_eq!(placed.tensors.len() + placed.strangers.len() + placed.beside.len(), kept);
        }
    }
}
