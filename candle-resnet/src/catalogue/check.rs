//! A card beside the network that it names: what it states must be so.

use std::fmt::Display;

use crate::architecture::Architecture;
use crate::blueprint::Blueprint;
use crate::card::{CardLabels, ModelCard};
use crate::labels::LabelSet;

/// What is wrong with a card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", self.field.as_ref().map_or_else(String::new, |field| format!("`{field}` ")))]
pub struct CardMistake {
    /// The field, where it is one field's.
    pub field: Option<String>,
    /// What was found and what was expected.
    pub problem: String,
}

impl CardMistake {
    pub(super) fn of(field: &str, problem: impl Display) -> CardMistake {
        CardMistake { field: Some(field.into()), problem: problem.to_string() }
    }
}

/// Largest side of an evaluation image, in pixels.
pub(super) const LARGEST_INPUT: usize = 4096;

/// Checks a card's values, and what it states of its network.
pub(super) fn check(card: &ModelCard) -> Result<(), CardMistake> {
    let architecture = architecture_named(&card.architecture)?;
    check_place(card)?;
    check_labels(card)?;
    check_preprocessing(card)?;
    check_network(card, &Blueprint::of(architecture))
}

pub(super) fn architecture_named(name: &str) -> Result<&'static Architecture, CardMistake> {
    let unknown = || CardMistake::of("architecture", format!("is `{name}`, which is no network's name"));
    Architecture::named(name).ok_or_else(unknown)
}

fn check_place(card: &ModelCard) -> Result<(), CardMistake> {
    if card.file.is_empty() {
        return Err(CardMistake::of("file", "is empty"));
    }
    if card.repository.is_none() && card.revision.is_some() {
        return Err(CardMistake::of("revision", "belongs to a `repository`, and there is none"));
    }
    Ok(())
}

fn check_labels(card: &ModelCard) -> Result<(), CardMistake> {
    let names = match &card.labels {
        None => return Ok(()),
        Some(CardLabels::Names(names)) => names,
        Some(CardLabels::Set(set)) => match LabelSet::named(set) {
            Some(set) => &set.names,
            None => {
                let expected =
                    format!("is `{set}`, expected a list of names, `imagenet1k`, `imagenet12k` or `cifar10`");
                return Err(CardMistake::of("labels", expected));
            }
        },
    };
    if names.len() == card.classes {
        return Ok(());
    }
    Err(CardMistake::of("labels", format!("are {} names, `classes` is {}", names.len(), card.classes)))
}

fn check_preprocessing(card: &ModelCard) -> Result<(), CardMistake> {
    if !(1..=LARGEST_INPUT).contains(&card.input_size) {
        let expected = format!("is {}, expected 1 to {LARGEST_INPUT} pixels", card.input_size);
        return Err(CardMistake::of("input_size", expected));
    }
    if !(card.crop_pct > 0.01 && card.crop_pct <= 1.0) {
        let expected = format!("is {}, expected a fraction above 0.01 and at most 1", card.crop_pct);
        return Err(CardMistake::of("crop_pct", expected));
    }
    let valid = card.preprocessing().validate();
    valid.map_err(|error| CardMistake { field: None, problem: error.to_string() })
}

fn check_network(card: &ModelCard, blueprint: &Blueprint) -> Result<(), CardMistake> {
    let macs = blueprint.multiply_adds(card.classes, card.input_size);
    agree("first_conv", card.first_conv.as_str(), first_conv(blueprint))?;
    agree("classifier", card.classifier.as_str(), CLASSIFIER)?;
    agree("parameters", card.parameters, blueprint.parameter_count(card.classes))?;
    agree("macs", card.macs, macs)
}

/// Name of every network's classifier.
pub(super) const CLASSIFIER: &str = "fc";

/// Name of a network's first convolution.
pub(super) fn first_conv(blueprint: &Blueprint) -> &str {
    blueprint.stem.convs.first().map_or("", |first| &first.conv)
}

fn agree<T: PartialEq + Display>(field: &str, found: T, network: T) -> Result<(), CardMistake> {
    if found == network {
        return Ok(());
    }
    Err(CardMistake::of(field, format!("is {found}, the network has {network}")))
}
