//! The cards and other names that a model's name is looked up in.
//!
//! Holds data only; what a name means is said by [`registry`](crate::registry). The cards lie in `models/cards.json` and
//! `models/mirrors.json` (the same weights in other repositories) and `models/embedded.json` (weights that are built in), the aliases in `models/aliases.tsv`; all are built into the
//! program. `scripts/make_cards.py` writes them, but for `embedded.json`, which is `scripts/make_embedded.py`'s. Private cards come from a folder.

mod check;
mod private;

use std::path::Path;

use crate::architecture::ARCHITECTURES;
use crate::card::ModelCard;

pub use check::CardMistake;
pub use private::CatalogueError;

/// Every card that a name can stand for, and other names for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    cards: Vec<ModelCard>,
    aliases: Vec<(&'static str, &'static str)>,
}

impl Catalogue {
    /// What ships with the program.
    pub fn built_in() -> Catalogue {
        // The files are built into the program, and a test parses them.
        let files = [
            include_str!(concat!(env!("MODELS"), "/cards.json")),
            include_str!(concat!(env!("MODELS"), "/mirrors.json")),
            include_str!(concat!(env!("MODELS"), "/embedded.json")),
        ];
        let cards = files.into_iter().flat_map(|file| parse_cards(file).unwrap_or_default()).collect();
        let aliases = include_str!(concat!(env!("MODELS"), "/aliases.tsv"));
        Catalogue { cards, aliases: aliases.lines().filter_map(|line| line.split_once('\t')).collect() }
    }

    /// Adds the cards of a folder's `*.json` files. They win over nothing: no name gets another meaning.
    ///
    /// # Errors
    /// If the folder or a file cannot be read, or a card says something wrong or has a name that means something already.
    pub fn with_folder(mut self, folder: &Path) -> Result<Catalogue, CatalogueError> {
        for file in private::read_folder(folder)? {
            for card in file.cards {
                if self.names().any(|name| name == card.name) {
                    let mistake = CardMistake::of("name", "is taken: it stands for something else already");
                    return Err(CatalogueError::Card {
                        path: file.path,
                        card: format!("card `{}`", card.name),
                        mistake,
                    });
                }
                self.cards.push(card);
            }
        }
        Ok(self)
    }

    /// Every card: those that timm and torchvision publish by architecture, each architecture's default first; then copies;
    /// then weights that are built in; then private ones.
    pub fn cards(&self) -> &[ModelCard] {
        &self.cards
    }

    /// The card of exactly this name.
    pub fn card(&self, name: &str) -> Option<&ModelCard> {
        self.cards.iter().find(|card| card.name == name)
    }

    /// The cards of an architecture, its default first.
    pub fn cards_of(&self, architecture: &str) -> impl Iterator<Item = &ModelCard> {
        self.cards.iter().filter(move |card| card.architecture == architecture)
    }

    /// What a bare architecture's name means: torchvision's IMAGENET1K_V1 where there is one, else timm's default; never a
    /// private card. Nor weights that are built in: beside a file of ten classes of one's own, the bare name would bring
    /// CIFAR-10's labels.
    pub fn default_of(&self, architecture: &str) -> Option<&ModelCard> {
        let is_published = |card: &&ModelCard| card.folder.is_none() && !card.is_embedded();
        self.cards_of(architecture).find(is_published)
    }

    /// What another name stands for: a card's or an architecture's name, or a repository as `hf-hub:owner/name`.
    pub fn alias(&self, name: &str) -> Option<&'static str> {
        self.aliases.iter().find(|(alias, _)| *alias == name).map(|&(_, meaning)| meaning)
    }

    /// Repositories that a name stands for though nobody carded them: name, and `hf-hub:owner/name`.
    pub fn repositories(&self) -> impl Iterator<Item = (&str, &str)> {
        self.aliases.iter().copied().filter(|(_, meaning)| meaning.starts_with("hf-hub:"))
    }

    /// The other names of `name`, a bare architecture's among them.
    pub fn aliases_of(&self, name: &str) -> Vec<&str> {
        let card = self.card(name);
        let default = card.filter(|card| self.default_of(&card.architecture) == Some(*card));
        let bare = default.map(|card| card.architecture.as_str());
        let means_it = |meaning: &str| meaning == name || Some(meaning) == bare;
        let aliases = self.aliases.iter().filter(|(_, meaning)| means_it(meaning)).map(|&(alias, _)| alias);
        bare.into_iter().chain(aliases).collect()
    }

    /// Every name: architectures, cards, aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let architectures = ARCHITECTURES.iter().map(|architecture| architecture.name);
        let cards = self.cards.iter().map(|card| card.name.as_str());
        architectures.chain(cards).chain(self.aliases.iter().map(|&(alias, _)| alias))
    }
}

fn parse_cards(json: &str) -> serde_json::Result<Vec<ModelCard>> {
    serde_json::from_str(json)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::architecture::Architecture;

    fn published() -> Vec<ModelCard> {
        parse_cards(include_str!(concat!(env!("MODELS"), "/cards.json"))).unwrap()
    }

    #[test]
    fn every_published_tag_has_a_card() {
        let cards = published();
        assert_eq!(cards.len(), 151);
        let architectures: BTreeSet<&str> = cards.iter().map(|card| card.architecture.as_str()).collect();
        assert_eq!(architectures.len(), 65);
        for card in &cards {
            assert_eq!(card.name, format!("{}.{}", card.architecture, card.tag()));
        }
    }

    #[test]
    fn cards_agree_with_their_networks() {
        for card in Catalogue::built_in().cards() {
            assert_eq!(check::check(card), Ok(()), "{}", card.name);
            assert_eq!(card.labels.is_some(), card.classes > 0, "{}", card.name);
        }
    }

    #[test]
    fn names_stand_for_one_thing_each() {
        let catalogue = Catalogue::built_in();
        let unique: BTreeSet<&str> = catalogue.names().collect();
        assert_eq!(unique.len(), catalogue.names().count());
    }

    #[test]
    fn reported_accuracy_has_its_source() {
        let cards = published();
        let by = |reporter: &str| {
            let reported =
                |card: &&ModelCard| card.top1_source.as_deref().is_some_and(|source| source.contains(reporter));
            cards.iter().filter(reported).count()
        };
        assert_eq!((by("torchvision 0.29.2"), by("results-imagenet.csv, commit 7479d451")), (17, 124));
        for card in Catalogue::built_in().cards() {
            assert_eq!(card.top1.is_some(), card.top1_source.is_some(), "{}", card.name);
            assert!(card.top1.is_none_or(|top1| (0.6..0.95).contains(&top1)), "{}", card.name);
        }
    }

    #[test]
    fn bare_names_mean_torchvisions_first_weights() {
        let catalogue = Catalogue::built_in();
        for name in ["resnet18", "resnet50", "resnext101_64x4d", "wide_resnet101_2"] {
            assert_eq!(catalogue.default_of(name).map(ModelCard::tag), Some("tv_in1k"));
        }
    }

    #[test]
    fn other_bare_names_mean_timms_default() {
        let catalogue = Catalogue::built_in();
        assert_eq!(catalogue.default_of("resnet50d").map(ModelCard::tag), Some("ra2_in1k"));
        assert_eq!(catalogue.default_of("resnetaa50d").map(ModelCard::tag), Some("sw_in12k_ft_in1k"));
        assert_eq!(catalogue.default_of("resnet200"), None); // nobody published weights
    }

    #[test]
    fn aliases_lead_to_cards_architectures_or_repositories() {
        let catalogue = Catalogue::built_in();
        assert_eq!(catalogue.aliases.len(), 77);
        for (alias, meaning) in &catalogue.aliases {
            let known = catalogue.card(meaning).is_some() || Architecture::named(meaning).is_some();
            assert!(known || meaning.starts_with("hf-hub:"), "{alias} → {meaning}");
        }
    }

    #[test]
    fn each_width_of_instagrams_networks_is_its_own_card() {
        let catalogue = Catalogue::built_in();
        for width in ["32x8d", "32x16d", "32x32d", "32x48d"] {
            let meaning = catalogue.alias(&format!("ig_resnext101_{width}")).unwrap();
            assert_eq!(catalogue.card(meaning).unwrap().architecture, format!("resnext101_{width}"));
        }
    }

    #[test]
    fn a_card_knows_its_other_names() {
        let catalogue = Catalogue::built_in();
        let names = catalogue.aliases_of("resnet34.tv_in1k");
        assert_eq!(names, ["resnet34", "ResNet34_Weights.IMAGENET1K_V1", "ResNet34_Weights.DEFAULT", "tv_resnet34"]);
        assert_eq!(catalogue.aliases_of("resnet50.tv2_in1k").len(), 2);
        assert_eq!(catalogue.aliases_of("seresnext26t_32x4d.bt_in1k"), ["seresnext26t_32x4d", "seresnext26tn_32x4d"]);
        assert_eq!(catalogue.aliases_of("lmz/candle-resnet/resnet18"), ["lmz/candle-resnet"]);
    }

    #[test]
    fn built_in_weights_are_asked_for_by_their_whole_name() {
        let catalogue = Catalogue::built_in();
        let embedded: Vec<&str> =
            catalogue.cards().iter().filter(|card| card.is_embedded()).map(|card| card.name.as_str()).collect();
        assert_eq!(embedded, ["resnet20_cifar.embedded"]);
        assert_eq!(catalogue.default_of("resnet20_cifar"), None);
        let card = catalogue.card("resnet20_cifar.embedded").unwrap();
        assert!(crate::embedded::file(&card.file).is_some());
        assert_eq!(card.preprocessing(), Architecture::named("resnet20_cifar").unwrap().default_preprocessing());
        assert!(card.training.is_some() && card.license.is_some());
    }

    #[test]
    fn candles_files_are_torchvisions_first_weights_in_one_repository() {
        let catalogue = Catalogue::built_in();
        for layers in [18, 34, 50, 101, 152] {
            let card = catalogue.card(&format!("lmz/candle-resnet/resnet{layers}")).unwrap();
            assert_eq!(card.repository.as_deref(), Some("lmz/candle-resnet"));
            assert_eq!(card.file, format!("resnet{layers}.safetensors"));
            let first = catalogue.default_of(&card.architecture).unwrap();
            assert_eq!(card.preprocessing(), first.preprocessing());
        }
    }
}
