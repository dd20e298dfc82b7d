//! What a model's name means.
//!
//! Fetches and reads nothing; of the disk it asks only whether a folder of that name exists.

use std::path::{Path, PathBuf};

use crate::architecture::Architecture;
use crate::card::ModelCard;
use crate::catalogue::Catalogue;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelName<'a> {
    /// Weights that the catalogue has a card of.
    Card(&'a ModelCard),
    /// An architecture without pretrained weights of its own.
    Architecture(&'static Architecture),
    /// A repository in timm's or transformers' format.
    Hub {
        /// `owner/name`.
        repository: String,
        /// Branch, tag or commit; `None` for the main branch.
        revision: Option<String>,
    },
    /// A local folder in timm's or transformers' format.
    Folder(PathBuf),
}

/// A name that means nothing here.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("no model named `{name}`")]
pub struct UnknownModel {
    /// What was asked for.
    pub name: String,
    /// Known names that look like it, nearest first.
    pub nearest: Vec<String>,
}

impl UnknownModel {
    /// The way out.
    pub fn hint(&self) -> String {
        let hint = path_hint(&self.name).unwrap_or_else(|| "`finetune models` lists them all".into());
        match self.nearest.as_slice() {
            [] => hint,
            names => format!("did you mean {}? {hint}", quoted(names)),
        }
    }
}

/// The way out for names that look like a path or a repository.
fn path_hint(name: &str) -> Option<String> {
    if name.starts_with("hf-hub:") || name.starts_with("hf_hub:") {
        return Some("a repository is named `hf-hub:owner/name` or `hf-hub:owner/name@revision`".into());
    }
    if Path::new(name).is_file() {
        return Some(
            "it is a file: name the folder that it lies in, or an architecture beside `--weights FILE`".into(),
        );
    }
    name.contains(['/', '\\']).then(|| format!("there is no such folder; a repository would be `hf-hub:{name}`"))
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(" or ")
}

impl<'a> ModelName<'a> {
    /// Finds what `name` stands for: known names and their aliases first, then `hf-hub:` and folders.
    ///
    /// A folder whose name is also a model's is reached as `./resnet18` or `local-dir:resnet18`.
    ///
    /// # Errors
    /// If nothing has that name; the error carries the nearest known names.
    pub fn resolve(catalogue: &'a Catalogue, name: &str) -> Result<ModelName<'a>, UnknownModel> {
        let meaning = catalogue.alias(name).unwrap_or(name);
        let unknown = || UnknownModel { name: name.into(), nearest: nearest(catalogue, name) };
        if let Some(rest) = meaning.strip_prefix("hf-hub:").or_else(|| meaning.strip_prefix("hf_hub:")) {
            return hub(rest).ok_or_else(unknown);
        }
        if let Some(folder) = meaning.strip_prefix("local-dir:") {
            return Ok(ModelName::Folder(folder.into()));
        }
        if let Some(known) = known(catalogue, meaning.strip_prefix("timm/").unwrap_or(meaning)) {
            return Ok(known);
        }
        let folder = PathBuf::from(name);
        if folder.is_dir() { Ok(ModelName::Folder(folder)) } else { Err(unknown()) }
    }
}

fn known<'a>(catalogue: &'a Catalogue, name: &str) -> Option<ModelName<'a>> {
    let card = catalogue.card(name).or_else(|| catalogue.default_of(name));
    card.map(ModelName::Card).or_else(|| Architecture::named(name).map(ModelName::Architecture))
}

/// `owner/name` or `owner/name@revision`.
fn hub(rest: &str) -> Option<ModelName<'static>> {
    let (repository, revision) = match rest.split_once('@') {
        Some((repository, revision)) => (repository, Some(revision.to_owned())),
        None => (rest, None),
    };
    let well_formed = repository.split('/').filter(|part| !part.is_empty()).count() == 2
        && repository.matches('/').count() == 1
        && revision.as_deref() != Some("");
    well_formed.then(|| ModelName::Hub { repository: repository.into(), revision })
}

/// Below this similarity (Jaro–Winkler, 0 to 1) a name is no help.
const SIMILAR: f64 = 0.85;

fn nearest(catalogue: &Catalogue, name: &str) -> Vec<String> {
    let wanted = name.to_lowercase();
    let score = |name: &str| strsim::jaro_winkler(&wanted, &name.to_lowercase());
    let mut scored: Vec<(f64, &str)> = catalogue.names().map(|name| (score(name), name)).collect();
    scored.retain(|(score, _)| *score > SIMILAR);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    fn resolve(name: &str) -> Result<ModelName<'static>, UnknownModel> {
        static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::built_in);
        ModelName::resolve(&CATALOGUE, name)
    }

    #[track_caller]
    fn card(name: &str) -> &'static ModelCard {
        match resolve(name) {
            Ok(ModelName::Card(card)) => card,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn bare_names_mean_their_default_weights() {
        assert_eq!(card("resnet18").repository.as_deref(), Some("timm/resnet18.tv_in1k"));
        assert_eq!(card("timm/resnet50.tv2_in1k").name, "resnet50.tv2_in1k");
    }

    #[test]
    fn aliases_mean_what_they_stand_for() {
        assert_eq!(card("ResNet50_Weights.IMAGENET1K_V2").name, "resnet50.tv2_in1k");
        assert_eq!(card("ResNet18_Weights.DEFAULT").name, "resnet18.tv_in1k");
        assert_eq!(card("swsl_resnet18").name, "resnet18.fb_swsl_ig1b_ft_in1k");
        assert_eq!(card("seresnext26tn_32x4d").name, "seresnext26t_32x4d.bt_in1k");
        assert_eq!(card("lmz/candle-resnet").file, "resnet18.safetensors");
        assert_eq!(card("lmz/candle-resnet/resnet50").file, "resnet50.safetensors");
        assert_eq!(resolve("microsoft/resnet-50"), resolve("hf-hub:microsoft/resnet-50"));
    }

    #[test]
    fn cifar_networks_are_architectures_without_weights() {
        assert!(matches!(resolve("resnet20_cifar"), Ok(ModelName::Architecture(_))));
    }

    #[test]
    fn hub_names_may_carry_a_revision() {
        let expected = |revision: Option<&str>| {
            Ok(ModelName::Hub { repository: "me/mine".into(), revision: revision.map(String::from) })
        };
        assert_eq!(resolve("hf-hub:me/mine"), expected(None));
        assert_eq!(resolve("hf-hub:me/mine@v1"), expected(Some("v1")));
        for malformed in ["hf-hub:mine", "hf-hub:a/b/c", "hf-hub:/b", "hf-hub:a/b@"] {
            assert!(resolve(malformed).is_err(), "{malformed}");
        }
    }

    #[test]
    fn wrong_names_get_the_nearest() {
        let error = resolve("resnet-50").unwrap_err();
        assert!(error.nearest.contains(&"resnet50".to_string()), "{:?}", error.nearest);
        assert!(error.hint().contains("did you mean"));
        assert_eq!(resolve("zzz").unwrap_err().nearest, Vec::<String>::new());
    }

    #[test]
    fn wrong_names_get_the_nearest_alias() {
        let nearest = |name: &str| resolve(name).unwrap_err().nearest[0].clone();
        assert_eq!(nearest("resnet50_weights.imagenet1k_v2"), "ResNet50_Weights.IMAGENET1K_V2");
        assert_eq!(nearest("gluon_resnet50_v1"), "gluon_resnet50_v1b");
        assert_eq!(nearest("microsoft/resnet50"), "microsoft/resnet-50");
    }

    #[test]
    fn repositories_that_nobody_carded_are_named_with_a_prefix() {
        let hint = resolve("somebody/something").unwrap_err().hint();
        assert_eq!(hint, "there is no such folder; a repository would be `hf-hub:somebody/something`");
    }
}
