//! How well a model names the images of a data set.
//!
//! Classes are matched to the model's outputs by name; an output's name, its synset, or either with underscores counts.

use std::collections::HashMap;

use candle_core::Tensor;
use candle_resnet::{Classifier, Model};

use crate::calibration::LabelledLogits;
use crate::dataset::composed;
use crate::error::{Error, Result};
use crate::extract::{ExtractObserver, Extracted, Unreadable, Views, extract};
use crate::images::LabelledImages;
use crate::train::metrics::metrics;
use crate::train::{Metrics, TrainError};

/// For each class of a data set, the output of the model that stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap {
    /// Output of each class.
    pub outputs: Vec<usize>,
    /// Whether classes were matched by their order, because nobody named the outputs.
    pub by_order: bool,
}

impl ClassMap {
    /// Matches `classes` to the model's outputs.
    ///
    /// # Errors
    /// [`Error::UnknownClasses`] if a class has no output of its name; [`Error::UnnamedClasses`] if outputs have no
    /// names and are not as many as the classes.
    pub fn between(classes: &[String], model: &Model) -> Result<ClassMap> {
        match_classes(classes, &model.label_names, &model.synsets, model.classes)
    }

    /// For a model that was trained on these classes: each is the output of its own index.
    pub fn identity(classes: usize) -> ClassMap {
        ClassMap { outputs: (0..classes).collect(), by_order: false }
    }

    /// The output that stands for `label`, which is that of image `index`.
    fn output(&self, index: usize, label: usize) -> Result<u32> {
        let wrong = TrainError::Label { index, label: label as u32, classes: self.outputs.len() };
        self.outputs.get(label).map(|&output| output as u32).ok_or(Error::Train(wrong))
    }
}

fn match_classes(classes: &[String], names: &[String], synsets: &[String], outputs: usize) -> Result<ClassMap> {
    if names.is_empty() {
        return by_order(classes.len(), outputs);
    }
    let known = names_of_outputs(names, synsets);
    let output = |class: &String| known.get(class).or_else(|| known.get(&comparable(class))).copied();
    let found: Vec<Option<usize>> = classes.iter().map(output).collect();
    let unknown: Vec<String> =
        classes.iter().zip(&found).filter(|(_, output)| output.is_none()).map(|(class, _)| class.clone()).collect();
    if !unknown.is_empty() {
        return Err(Error::UnknownClasses { unknown, known: names.to_vec() });
    }
    Ok(ClassMap { outputs: found.into_iter().flatten().collect(), by_order: false })
}

fn by_order(classes: usize, outputs: usize) -> Result<ClassMap> {
    if classes != outputs {
        return Err(Error::UnnamedClasses { dataset: classes, model: outputs });
    }
    Ok(ClassMap { outputs: (0..outputs).collect(), by_order: true })
}

/// Every name that an output goes by, as it is written and as it may be; where two outputs share one, that which is written so has it, else
/// the first.
fn names_of_outputs(names: &[String], synsets: &[String]) -> HashMap<String, usize> {
    let all = || synsets.iter().enumerate().chain(names.iter().enumerate());
    let written = all().map(|(output, name)| (name.clone(), output));
    let comparable = all().map(|(output, name)| (comparable(name), output));
    let mut known = HashMap::new();
    for (name, output) in written.chain(comparable) {
        known.entry(name).or_insert(output);
    }
    known
}

/// Without what names are written with in one place and not in another.
fn comparable(name: &str) -> String {
    composed(name).replace('_', " ")
}

/// What an evaluation found.
#[derive(Debug)]
pub struct Evaluation {
    /// Accuracies as fractions, and the mean loss.
    pub metrics: Metrics,
    /// What the model said of each image, beside the output that stands for its label.
    pub logits: LabelledLogits,
    /// What reading the images brought to light; its features are those that were classified.
    pub extracted: Extracted,
}

/// Classifies `images`, whose labels `map` turns into outputs.
///
/// # Errors
/// If no image can be read, or one cannot and that is fatal, the observer stops, or candle refuses.
pub fn evaluate(
    classifier: &Classifier,
    images: &dyn LabelledImages,
    map: &ClassMap,
    unreadable: Unreadable,
    observer: &mut ExtractObserver<'_>,
) -> Result<Evaluation> {
    let (trunk, preprocessing) = (classifier.trunk(), classifier.preprocessing());
    let extracted = extract(trunk, preprocessing, images, Views::Plain, unreadable, observer)?;
    let logits: Tensor = classifier.classify(&extracted.features.squeeze(1)?)?;
    let labels =
        extracted.kept.iter().map(|&index| map.output(index, images.label(index))).collect::<Result<Vec<_>>>()?;
    Ok(Evaluation { metrics: metrics(&logits, &labels)?, logits: LabelledLogits::new(&logits, &labels)?, extracted })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn classes_are_found_by_name_synset_or_underscored_name() {
        let names = owned(&["tench", "goldfish", "great white shark"]);
        let synsets = owned(&["n01440764", "n01443537", "n01484850"]);
        let map = match_classes(&owned(&["great_white_shark", "n01440764"]), &names, &synsets, 3).unwrap();
        assert_eq!(map, ClassMap { outputs: vec![2, 0], by_order: false });
    }

    #[test]
    fn names_that_are_written_alike_come_before_those_that_may_be_meant() {
        let names = owned(&["cafe\u{301}", "caf\u{e9}", "a b", "a_b"]);
        let map = match_classes(&names, &names, &[], 4).unwrap();
        assert_eq!(map.outputs, [0, 1, 2, 3]);
        let map = match_classes(&owned(&["a_b", "cafe\u{301}"]), &owned(&["caf\u{e9}", "a b"]), &[], 2).unwrap();
        assert_eq!(map.outputs, [1, 0]);
    }

    #[test]
    fn outputs_without_names_are_matched_by_order() {
        let map = match_classes(&owned(&["a", "b"]), &[], &[], 2).unwrap();
        assert_eq!(map, ClassMap { outputs: vec![0, 1], by_order: true });
        let error = match_classes(&owned(&["a", "b"]), &[], &[], 3).unwrap_err();
        assert!(matches!(error, Error::UnnamedClasses { dataset: 2, model: 3 }));
    }

    #[test]
    fn a_class_that_the_model_does_not_know_is_named() {
        let error = match_classes(&owned(&["ants", "wasps"]), &owned(&["ants", "bees"]), &[], 2).unwrap_err();
        assert_eq!(error.to_string(), "the model does not know 1 of the classes: wasps");
        assert_eq!(error.hint().as_deref(), Some("it knows: ants, bees"));
    }
}
