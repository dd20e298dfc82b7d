//! One name in the list: weights, an architecture without weights, or a repository.

use std::path::Path;

use candle_resnet::architecture::{ARCHITECTURES, Architecture};
use candle_resnet::blueprint::Blueprint;
use candle_resnet::card::ModelCard;
use candle_resnet::catalogue::Catalogue;
use candle_resnet::preprocess::Preprocessing;
use serde::Serialize;
use serde_json::{Value, json};

/// A name, and what is known of it.
pub struct Entry<'a> {
    pub name: &'a str,
    /// Other names, the bare architecture's first where this is its default.
    pub aliases: Vec<&'a str>,
    /// `None` where only the repository's `config.json` tells.
    pub architecture: Option<&'static Architecture>,
    card: Option<&'a ModelCard>,
    /// The repository, where there is no card of it.
    repository: Option<&'a str>,
}

/// Every name: each architecture's weights, its default first, or the architecture where nobody published any; then
/// repositories.
pub fn entries(catalogue: &Catalogue) -> Vec<Entry<'_>> {
    let known = ARCHITECTURES.iter().flat_map(|architecture| of_architecture(catalogue, architecture));
    known.chain(catalogue.repositories().map(of_repository)).collect()
}

fn of_architecture<'a>(catalogue: &'a Catalogue, architecture: &'static Architecture) -> Vec<Entry<'a>> {
    let entry = |name: &'a str, card: Option<&'a ModelCard>| Entry {
        name,
        aliases: catalogue.aliases_of(name),
        architecture: Some(architecture),
        card,
        repository: None,
    };
    let mut entries: Vec<Entry> =
        catalogue.cards_of(architecture.name).map(|card| entry(&card.name, Some(card))).collect();
    if catalogue.default_of(architecture.name).is_none() {
        entries.insert(0, entry(architecture.name, None));
    }
    entries
}

fn of_repository<'a>((name, repository): (&'a str, &'a str)) -> Entry<'a> {
    Entry { name, aliases: Vec::new(), architecture: None, card: None, repository: Some(repository) }
}

/// Classes that an architecture without weights is counted with.
const CLASSES: usize = 10;

impl Entry<'_> {
    /// What happens to a photo, where that is known.
    pub fn preprocessing(&self) -> Option<Preprocessing> {
        let default = || self.architecture.map(Architecture::default_preprocessing);
        self.card.map(ModelCard::preprocessing).or_else(default)
    }

    fn parameters(&self) -> Option<usize> {
        let counted = || self.architecture.map(|architecture| Blueprint::of(architecture).parameter_count(CLASSES));
        self.card.map(|card| card.parameters).or_else(counted)
    }

    fn macs(&self) -> Option<u64> {
        let counted = || {
            let side = self.preprocessing()?.crop;
            self.architecture.map(|architecture| Blueprint::of(architecture).multiply_adds(CLASSES, side))
        };
        self.card.map(|card| card.macs).or_else(counted)
    }

    /// Heads the columns of [`text`](Entry::text).
    pub fn header() -> String {
        row("name", "parameters", "macs", "pixels", "top-1", "licence")
    }

    /// One line for people.
    pub fn text(&self) -> String {
        let parameters = self.parameters().map(|parameters| format!("{:.2} M", parameters as f64 / 1e6));
        let macs = self.macs().map(|macs| format!("{:.2} G", macs as f64 / 1e9));
        let pixels = self.preprocessing().map(|preprocessing| preprocessing.crop.to_string());
        let top1 = self.card.and_then(|card| card.top1).map(|top1| format!("{:.2} %", 100.0 * top1));
        let [parameters, macs, pixels, top1] = [parameters, macs, pixels, top1].map(Option::unwrap_or_default);
        row(self.name, &parameters, &macs, &pixels, &top1, &self.remark())
    }

    fn remark(&self) -> String {
        let Some(card) = self.card else {
            return match self.repository {
                Some(repository) => format!("= {repository}"),
                None => "no published weights: --weights FILE or --no-pretrained".into(),
            };
        };
        let licence = card.license.as_deref().unwrap_or("not stated");
        let remarks = [
            (card.is_non_commercial(), ", non-commercial".to_string()),
            (card.classes == 0, ", features only: no classifier".to_string()),
            (card.folder.is_some(), ", private card".to_string()),
            (card.is_embedded(), ", built in: no network; top-1 on CIFAR-10".to_string()),
            (self.is_default(), format!("  = {}", card.architecture)),
        ];
        remarks.into_iter().filter(|(holds, _)| *holds).fold(licence.into(), |text, (_, remark)| text + &remark)
    }

    /// Whether the bare name of the architecture stands for these weights.
    fn is_default(&self) -> bool {
        self.card.is_some_and(|card| self.aliases.contains(&card.architecture.as_str()))
    }

    /// One JSON object for programs: every field of the card.
    pub fn json(&self) -> serde_json::Result<String> {
        let Some(card) = self.card else { return serde_json::to_string(&self.without_card()) };
        serde_json::to_string(&CardFields {
            card,
            aliases: &self.aliases,
            default: self.is_default(),
            non_commercial: card.is_non_commercial(),
            folder: card.folder.as_deref(),
        })
    }

    fn without_card(&self) -> Value {
        json!({
            "name": self.name,
            "architecture": self.architecture.map(|architecture| architecture.name),
            "stands_for": self.repository,
            "parameters": self.parameters(),
            "macs": self.macs(),
            "aliases": self.aliases,
        })
    }
}

/// A card, and what the catalogue knows of it besides.
#[derive(Serialize)]
struct CardFields<'a> {
    #[serde(flatten)]
    card: &'a ModelCard,
    aliases: &'a [&'a str],
    default: bool,
    non_commercial: bool,
    folder: Option<&'a Path>,
}

fn row(name: &str, parameters: &str, macs: &str, pixels: &str, top1: &str, remark: &str) -> String {
    format!("{name:<46}{parameters:>10}{macs:>10}{pixels:>7}{top1:>9}  {remark}")
}
