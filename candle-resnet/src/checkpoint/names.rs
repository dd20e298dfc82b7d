//! Names that frameworks give to parameters → torchvision's names.
//!
//! Pure: looks at names only, never at a tensor, and knows no architecture.

use std::collections::BTreeMap;

/// What wrappers put before every name: DataParallel, Lightning, `torch.compile`.
const WRAPPERS: [&str; 3] = ["module.", "model.", "_orig_mod."];

/// Gives every entry the name that torchvision would give it.
///
/// - `module.`, `model.` and `_orig_mod.` are taken off, in any nesting, where *all* names begin with them.
/// - `linear.*` becomes `fc.*` unless there is an `fc` already.
/// - `num_batches_tracked` counters are dropped: nothing reads them.
///
/// Doing it twice changes nothing more.
pub fn to_torchvision<T>(tensors: BTreeMap<String, T>) -> BTreeMap<String, T> {
    let mut tensors: BTreeMap<_, _> = tensors.into_iter().filter(|(name, _)| !is_counter(name)).collect();
    while let Some(wrapper) = common_wrapper(&tensors) {
        tensors = renamed(tensors, wrapper, "");
    }
    if tensors.keys().any(|name| name.starts_with("fc.")) { tensors } else { renamed(tensors, "linear.", "fc.") }
}

fn is_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some("num_batches_tracked")
}

fn common_wrapper<T>(tensors: &BTreeMap<String, T>) -> Option<&'static str> {
    let wraps_all = |wrapper: &&str| tensors.keys().all(|name| name.starts_with(*wrapper));
    WRAPPERS.into_iter().find(wraps_all).filter(|_| !tensors.is_empty())
}

fn renamed<T>(tensors: BTreeMap<String, T>, from: &str, to: &str) -> BTreeMap<String, T> {
    let rename = |name: String| match name.strip_prefix(from) {
        Some(rest) => format!("{to}{rest}"),
        None => name,
    };
    tensors.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map<const N: usize>(names: [&str; N]) -> BTreeMap<String, String> {
        names.into_iter().map(|name| (name.to_owned(), name.to_owned())).collect()
    }

    fn renamed_keys<const N: usize>(names: [&str; N]) -> Vec<String> {
        to_torchvision(map(names)).into_keys().collect()
    }

    #[test]
    fn nested_wrappers_come_off() {
        let names = ["model._orig_mod.module.conv1.weight", "model._orig_mod.module.fc.bias"];
        assert_eq!(renamed_keys(names), ["conv1.weight", "fc.bias"]);
    }

    #[test]
    fn a_prefix_that_only_some_names_have_stays() {
        assert_eq!(renamed_keys(["model.conv1.weight", "loss.weight"]), ["loss.weight", "model.conv1.weight"]);
    }

    #[test]
    fn a_counter_without_the_prefix_does_not_keep_it_on() {
        assert_eq!(renamed_keys(["module.fc.bias", "bn1.num_batches_tracked"]), ["fc.bias"]);
    }

    #[test]
    fn linear_is_the_head_only_where_there_is_no_fc() {
        assert_eq!(renamed_keys(["linear.bias", "linear.weight"]), ["fc.bias", "fc.weight"]);
        assert_eq!(renamed_keys(["fc.bias", "linear.bias"]), ["fc.bias", "linear.bias"]);
        assert_eq!(renamed_keys(["fcn.bias", "layer1.linear.bias"]), ["fcn.bias", "layer1.linear.bias"]);
    }

    #[test]
    fn counters_go_and_names_that_only_resemble_them_stay() {
        assert_eq!(renamed_keys(["a.num_batches_tracked", "a.num_batches_tracked.x"]), ["a.num_batches_tracked.x"]);
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(renamed_keys([]).is_empty());
    }

    proptest! {
        #[test]
        fn renaming_is_idempotent_and_loses_nothing_but_counters(
            names in prop::collection::btree_set(
                "(module\\.|model\\.|_orig_mod\\.){0,3}(linear\\.|fc\\.)?(weight|num_batches_tracked|x)?", 0..6)
        ) {
            let kept = names.iter().filter(|name| !is_counter(name)).count();
            let once = to_torchvision(names.iter().map(|name| (name.clone(), name.clone())).collect());
            prop_assert_eq!(once.len(), kept);
            prop_assert!(once.iter().all(|(new, old)| old.ends_with(new.trim_start_matches("fc."))));
            prop_assert_eq!(to_torchvision(once.clone()), once);
        }
    }
}
