//! A folder of JSON files → private cards. A mistake is told with its file, its card and its field.
//!
//! Each file holds one card or a list of cards, as `models/cards.json` does. What follows from the architecture may be left
//! out: `first_conv`, `classifier`, `parameters`, `macs`. A card without a `repository` names a weights file by its path in
//! the folder.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::check::{CLASSIFIER, CardMistake, LARGEST_INPUT, architecture_named, check, first_conv};
use crate::blueprint::Blueprint;
use crate::card::ModelCard;

/// Why a folder of private cards was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The folder or a file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Folder or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is no JSON.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it breaks off.
        source: serde_json::Error,
    },
    /// A card that says something wrong.
    #[error("{path}: {card}: {mistake}")]
    Card {
        /// The file.
        path: PathBuf,
        /// The card's name, or its place in the list.
        card: String,
        /// What is wrong with it.
        #[source]
        mistake: CardMistake,
    },
}

impl CatalogueError {
    /// The way out.
    pub fn hint(&self) -> Option<String> {
        match self {
            CatalogueError::Card { .. } => {
                Some("`finetune models resnet18.tv_in1k --json` shows what a card holds".into())
            }
            CatalogueError::Io { .. } | CatalogueError::Json { .. } => None,
        }
    }
}

/// The cards of one file, and where they were read.
pub(super) struct CardFile {
    pub(super) path: PathBuf,
    pub(super) cards: Vec<ModelCard>,
}

/// Every card of a folder's `*.json` files, in the order of the files' names.
pub(super) fn read_folder(folder: &Path) -> Result<Vec<CardFile>, CatalogueError> {
    let io_error = |source| CatalogueError::Io { path: folder.into(), source };
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder).map_err(io_error)?.collect();
    let mut paths: Vec<PathBuf> = entries.map_err(io_error)?.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.into_iter().map(|path| read_file(folder, path)).collect()
}

fn read_file(folder: &Path, path: PathBuf) -> Result<CardFile, CatalogueError> {
    let text = std::fs::read_to_string(&path).map_err(|source| CatalogueError::Io { path: path.clone(), source })?;
    let json = serde_json::from_str(&text).map_err(|source| CatalogueError::Json { path: path.clone(), source })?;
    let listed = match json {
        Value::Array(cards) => cards,
        card => vec![card],
    };
    let cards = listed.into_iter().enumerate().map(|(index, card)| {
        let shown = shown(&card, index);
        read_card(folder, card).map_err(|mistake| CatalogueError::Card { path: path.clone(), card: shown, mistake })
    });
    Ok(CardFile { cards: cards.collect::<Result<_, _>>()?, path })
}

/// How a card is spoken of: by its name, else by its place.
fn shown(card: &Value, index: usize) -> String {
    match card.get("name").and_then(Value::as_str) {
        Some(name) => format!("card `{name}`"),
        None => format!("card {}", index + 1),
    }
}

fn read_card(folder: &Path, mut card: Value) -> Result<ModelCard, CardMistake> {
    if let Some(fields) = card.as_object_mut() {
        complete(fields)?;
    }
    let card: ModelCard = serde_path_to_error::deserialize(card).map_err(mistake)?;
    check_name(&card.name)?;
    check(&card)?;
    Ok(ModelCard { folder: Some(folder.into()), ..card })
}

/// Names the field that could not be read; one that is missing or too many is named by the reason.
fn mistake(error: serde_path_to_error::Error<serde_json::Error>) -> CardMistake {
    let problem = error.inner().to_string();
    let names_it = problem.starts_with("missing field") || problem.starts_with("unknown field");
    let field = Some(error.path().to_string()).filter(|path| path != "." && !names_it);
    CardMistake { field, problem }
}

/// States what follows from the architecture and was left out.
fn complete(card: &mut Map<String, Value>) -> Result<(), CardMistake> {
    let Some(architecture) = card.get("architecture").and_then(Value::as_str) else { return Ok(()) };
    let blueprint = Blueprint::of(architecture_named(architecture)?);
    let number = |field: &str| card.get(field).and_then(Value::as_u64).and_then(|number| number.try_into().ok());
    let (classes, size) = (number("classes").unwrap_or(0), number("input_size").unwrap_or(0));
    let sensible = classes <= MOST_CLASSES && size <= LARGEST_INPUT; // what is not is told later
    let (parameters, macs) =
        if sensible { (blueprint.parameter_count(classes), blueprint.multiply_adds(classes, size)) } else { (0, 0) };
    let derived = [
        ("first_conv", json!(first_conv(&blueprint))),
        ("classifier", json!(CLASSIFIER)),
        ("parameters", json!(parameters)),
        ("macs", json!(macs)),
    ];
    for (field, value) in derived {
        card.entry(field).or_insert(value);
    }
    Ok(())
}

/// More outputs than any classifier has; a wrong number must not overflow a product.
const MOST_CLASSES: usize = 10_000_000;

/// A name that can be neither a path nor a repository.
fn check_name(name: &str) -> Result<(), CardMistake> {
    let plain = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if !name.is_empty() && name.chars().all(plain) {
        return Ok(());
    }
    Err(CardMistake::of("name", format!("is `{name}`, expected letters, digits, `.`, `_` and `-`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    /// A folder with one file of this text.
    fn folder(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine.json"), text).unwrap();
        folder
    }

    /// A card with some fields changed; `null` takes one away.
    fn card(changes: serde_json::Value) -> serde_json::Value {
        let mut card = json!({
            "name": "birds", "architecture": "resnet20_cifar", "file": "birds.safetensors", "classes": 3,
            "labels": ["hen", "jay", "kite"], "input_size": 32, "crop_pct": 1.0, "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "license": "cc-by-nc-4.0",
        });
        for (field, value) in changes.as_object().unwrap() {
            card[field] = value.clone();
        }
        card.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        card
    }

    fn refused(text: &str) -> String {
        let folder = folder(text);
        let error = Catalogue::built_in().with_folder(folder.path()).unwrap_err().to_string();
        error.replace(&folder.path().display().to_string(), "DIR").replace('\\', "/")
    }

    fn mistake(changes: serde_json::Value) -> String {
        refused(&card(changes).to_string())
    }

    #[test]
    fn private_cards_join_the_others() {
        let other = card(json!({"name": "more-birds", "repository": "me/birds", "revision": "v2"}));
        let folder = folder(&json!([card(json!({})), other]).to_string());
        std::fs::write(folder.path().join("notes.txt"), "not a card").unwrap();
        let catalogue = Catalogue::built_in().with_folder(folder.path()).unwrap();
        let birds = catalogue.card("birds").unwrap();
        assert_eq!((birds.first_conv.as_str(), birds.classifier.as_str()), ("conv1", "fc"));
        assert_eq!((birds.parameters, birds.macs), (269_267, 40_550_592));
        assert!(birds.is_non_commercial() && birds.folder.as_deref() == Some(folder.path()));
        assert_eq!(catalogue.card("more-birds").unwrap().revision.as_deref(), Some("v2"));
        // A bare name keeps its meaning: an architecture without weights.
        assert_eq!(catalogue.default_of("resnet20_cifar"), None);
        assert_eq!(catalogue.cards().len(), Catalogue::built_in().cards().len() + 2);
    }

    #[test]
    fn private_cards_take_no_name_that_means_something() {
        for name in ["resnet18", "resnet18.tv_in1k", "tv_resnet50", "resnet20_cifar"] {
            let error = mistake(json!({"name": name}));
            let expected = "`name` is taken: it stands for something else already";
            assert_eq!(error, format!("DIR/mine.json: card `{name}`: {expected}"));
        }
        let twice = json!([card(json!({})), card(json!({}))]).to_string();
        assert!(refused(&twice).ends_with("card `birds`: `name` is taken: it stands for something else already"));
    }

    #[test]
    fn mistakes_in_private_cards_name_file_card_and_field() {
        let cases = [
            (json!({"file": null}), "card `birds`: missing field `file`"),
            (json!({"clases": 3}), "card `birds`: unknown field `clases`, expected one of `name`"),
            (json!({"name": null}), "card 1: missing field `name`"),
            (json!({"name": "my birds"}), "`name` is `my birds`, expected letters, digits"),
            (json!({"classes": "3"}), "`classes` invalid type: string \"3\", expected usize"),
            (json!({"classes": -3}), "`classes` invalid value: integer"),
            (json!({"mean": [0.5, 0.5]}), "`mean` invalid length 2"),
            (json!({"labels": 3}), "`labels` expected the name of a label set or a list of names"),
            (json!({"labels": ["hen"]}), "`labels` are 1 names, `classes` is 3"),
            (json!({"labels": "imagenet"}), "`labels` is `imagenet`, expected a list of names"),
            (json!({"labels": "imagenet1k"}), "`labels` are 1000 names, `classes` is 3"),
            (json!({"architecture": "resnet21"}), "`architecture` is `resnet21`, which is no network's name"),
            (json!({"interpolation": "nearest"}), "unknown variant `nearest`"),
            (json!({"input_size": 0}), "`input_size` is 0, expected 1 to 4096 pixels"),
            (json!({"input_size": 1e9 as u64}), "`input_size` is 1000000000, expected"),
            (json!({"crop_pct": 87.5}), "`crop_pct` is 87.5, expected a fraction"),
            (json!({"std": [0.25, 0.0, 0.25]}), "`std`"),
            (json!({"file": ""}), "`file` is empty"),
            (json!({"revision": "v1"}), "`revision` belongs to a `repository`"),
            (json!({"first_conv": "conv1.0"}), "`first_conv` is conv1.0, the network has conv1"),
            (json!({"parameters": 1}), "`parameters` is 1, the network has 269267"),
            (json!({"macs": 1}), "`macs` is 1, the network has 40550592"),
        ];
        for (changes, expected) in cases {
            let error = mistake(changes);
            assert!(error.starts_with("DIR/mine.json: card ") && error.contains(expected), "{error}");
        }
        assert!(refused("{").starts_with("DIR/mine.json: EOF"));
        assert!(refused("3").contains("card 1: invalid type"));
        assert!(
            Catalogue::built_in().with_folder(Path::new("nowhere")).unwrap_err().to_string().starts_with("nowhere: ")
        );
    }
}
