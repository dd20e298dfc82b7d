//! A network for people to read: the layer tree as PyTorch prints it, and a table of stages.

mod tree;

use crate::architecture::Architecture;
use crate::blueprint::{Blueprint, ParameterSpec, StageCost, classifier_parameters};

pub use tree::layer_tree;

/// The stages of `architecture` for one square image of side `size`: shapes, parameters, trainable ones, multiply-adds.
///
/// Everything but `fc` is frozen.
pub fn stage_table(architecture: &Architecture, classes: usize, size: usize) -> String {
    let blueprint = Blueprint::of(architecture);
    let fc = classifier_parameters(blueprint.feature_width, classes).iter().map(ParameterSpec::elements).sum();
    let mut rows: Vec<Row> = blueprint.costs(size).into_iter().map(Row::frozen).collect();
    rows.push(Row {
        name: "fc".into(),
        shape: format!("{classes}"),
        parameters: fc,
        trainable: fc,
        multiply_adds: (blueprint.feature_width * classes) as u64,
    });
    rows.push(Row::total(&rows));
    let header =
        format!("{:<8}{:>16}{:>14}{:>14}{:>16}", "stage", "output", "parameters", "trainable", "multiply-adds");
    let lines: Vec<String> = std::iter::once(header).chain(rows.iter().map(Row::text)).collect();
    let channels = architecture.in_channels;
    format!("input {channels}×{size}×{size}, one image\n{}\n", lines.join("\n"))
}

struct Row {
    name: String,
    shape: String,
    parameters: usize,
    trainable: usize,
    multiply_adds: u64,
}

impl Row {
    fn frozen(cost: StageCost) -> Row {
        Row {
            shape: format!("{}×{}×{}", cost.channels, cost.size, cost.size),
            name: cost.name,
            parameters: cost.parameters,
            trainable: 0,
            multiply_adds: cost.multiply_adds,
        }
    }

    fn total(rows: &[Row]) -> Row {
        Row {
            name: "total".into(),
            shape: String::new(),
            parameters: rows.iter().map(|row| row.parameters).sum(),
            trainable: rows.iter().map(|row| row.trainable).sum(),
            multiply_adds: rows.iter().map(|row| row.multiply_adds).sum(),
        }
    }

    fn text(&self) -> String {
        format!(
            "{:<8}{:>16}{:>14}{:>14}{:>16}",
            self.name,
            self.shape,
            grouped(self.parameters as u64),
            grouped(self.trainable as u64),
            grouped(self.multiply_adds)
        )
    }
}

/// 11689512 → `11,689,512`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn architecture(name: &str) -> &'static Architecture {
        Architecture::named(name).unwrap()
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 11_689_512].map(grouped), ["0", "999", "1,000", "11,689,512"]);
    }

    #[test]
    fn table_adds_up_to_the_published_counts() {
        let table = stage_table(architecture("resnet18"), 1000, 224);
        let total: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(total, ["total", "11,689,512", "513,000", "1,814,073,344"]);
    }
}
