//! What a model's name means.
//!
//! Fetches and reads nothing; of the disk it asks only whether a folder of that name exists.

use std::path::{Path, PathBuf};

use crate::architecture::{ARCHITECTURES, Architecture};
use crate::card::ModelCard;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelName {
    /// Weights that the program has a card of.
    Card(&'static ModelCard),
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
        let list = "`finetune models` lists them all";
        if let Some(hint) = path_hint(&self.name) {
            return hint;
        }
        match self.nearest.as_slice() {
            [] => list.into(),
            names => format!("did you mean {}? {list}", quoted(names)),
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

impl ModelName {
    /// Finds what `name` stands for: known names first, then `hf-hub:` and folders.
    ///
    /// A folder whose name is also a model's is reached as `./resnet18` or `local-dir:resnet18`.
    ///
    /// # Errors
    /// If nothing has that name; the error carries the nearest known names.
    pub fn resolve(name: &str) -> Result<ModelName, UnknownModel> {
        if let Some(rest) = name.strip_prefix("hf-hub:").or_else(|| name.strip_prefix("hf_hub:")) {
            return hub(rest).ok_or_else(|| unknown(name));
        }
        if let Some(folder) = name.strip_prefix("local-dir:") {
            return Ok(ModelName::Folder(folder.into()));
        }
        let known = known(name.strip_prefix("timm/").unwrap_or(name));
        if let Some(known) = known {
            return Ok(known);
        }
        let folder = PathBuf::from(name);
        if folder.is_dir() { Ok(ModelName::Folder(folder)) } else { Err(unknown(name)) }
    }
}

fn known(name: &str) -> Option<ModelName> {
    let card = ModelCard::named(name).or_else(|| ModelCard::default_of(name));
    card.map(ModelName::Card).or_else(|| Architecture::named(name).map(ModelName::Architecture))
}

/// `owner/name` or `owner/name@revision`.
fn hub(rest: &str) -> Option<ModelName> {
    let (repository, revision) = match rest.split_once('@') {
        Some((repository, revision)) => (repository, Some(revision.to_owned())),
        None => (rest, None),
    };
    let well_formed = repository.split('/').filter(|part| !part.is_empty()).count() == 2
        && repository.matches('/').count() == 1
        && revision.as_deref() != Some("");
    well_formed.then(|| ModelName::Hub { repository: repository.into(), revision })
}

fn unknown(name: &str) -> UnknownModel {
    UnknownModel { name: name.into(), nearest: nearest(name) }
}

/// Below this similarity (Jaro–Winkler, 0 to 1) a name is no help.
const SIMILAR: f64 = 0.85;

fn nearest(name: &str) -> Vec<String> {
    let wanted = name.to_lowercase();
    let cards = ModelCard::all().iter().map(|card| card.name.as_str());
    let names = ARCHITECTURES.iter().map(|architecture| architecture.name).chain(cards);
    let mut scored: Vec<(f64, &str)> = names.map(|name| (strsim::jaro_winkler(&wanted, name), name)).collect();
    scored.retain(|(score, _)| *score > SIMILAR);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_mean_their_default_weights() {
        let ModelName::Card(card) = ModelName::resolve("resnet18").unwrap() else { panic!("not a card") };
        assert_eq!(card.repository, "timm/resnet18.tv_in1k");
        let ModelName::Card(card) = ModelName::resolve("timm/resnet50.tv2_in1k").unwrap() else { panic!("not a card") };
        assert_eq!(card.name, "resnet50.tv2_in1k");
    }

    #[test]
    fn cifar_networks_are_architectures_without_weights() {
        assert!(matches!(ModelName::resolve("resnet20_cifar"), Ok(ModelName::Architecture(_))));
    }

    #[test]
    fn hub_names_may_carry_a_revision() {
        let expected = |revision: Option<&str>| {
            Ok(ModelName::Hub { repository: "me/mine".into(), revision: revision.map(String::from) })
        };
        assert_eq!(ModelName::resolve("hf-hub:me/mine"), expected(None));
        assert_eq!(ModelName::resolve("hf-hub:me/mine@v1"), expected(Some("v1")));
        for malformed in ["hf-hub:mine", "hf-hub:a/b/c", "hf-hub:/b", "hf-hub:a/b@"] {
            assert!(ModelName::resolve(malformed).is_err(), "{malformed}");
        }
    }

    #[test]
    fn wrong_names_get_the_nearest() {
        let error = ModelName::resolve("resnet-50").unwrap_err();
        assert!(error.nearest.contains(&"resnet50".to_string()), "{:?}", error.nearest);
        assert!(error.hint().contains("did you mean"));
        assert_eq!(ModelName::resolve("zzz").unwrap_err().nearest, Vec::<String>::new());
    }
}
