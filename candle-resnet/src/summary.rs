//! A network for people to read: the layer tree as PyTorch prints torchvision's, and a table of stages.

use std::fmt::Write;

use crate::architecture::{Architecture, BlockKind};
use crate::blueprint::{Block, Blueprint, ConvNorm, ParameterSpec, Shortcut, classifier_parameters};

/// The layer tree of `architecture`, as `print(model)` shows torchvision's.
pub fn layer_tree(architecture: &Architecture, classes: usize) -> String {
    let blueprint = Blueprint::of(architecture);
    let mut tree = Tree::default();
    tree.open("ResNet");
    tree.conv_norm("conv1", "bn1", &blueprint.stem);
    tree.line("(relu): ReLU(inplace=True)");
    if let Some(pool) = blueprint.pool {
        let (kernel, stride, padding) = (pool.kernel, pool.stride, pool.padding);
        tree.line(&format!(
            "(maxpool): MaxPool2d(kernel_size={kernel}, stride={stride}, padding={padding}, dilation=1, ceil_mode=False)"
        ));
    }
    for stage in &blueprint.stages {
        tree.open(&format!("({}): Sequential", stage.name));
        for (position, block) in stage.blocks.iter().enumerate() {
            tree.block(position, architecture.block, block);
        }
        tree.close();
    }
    tree.line("(avgpool): AdaptiveAvgPool2d(output_size=(1, 1))");
    let width = blueprint.feature_width;
    tree.line(&format!("(fc): Linear(in_features={width}, out_features={classes}, bias=True)"));
    tree.close();
    tree.text
}

/// An indented text that is written line by line.
#[derive(Default)]
struct Tree {
    text: String,
    depth: usize,
}

impl Tree {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{:indent$}{line}", "", indent = 2 * self.depth); // a String takes every write
    }

    fn open(&mut self, title: &str) {
        self.line(&format!("{title}("));
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.line(")");
    }

    fn conv_norm(&mut self, conv: &str, norm: &str, unit: &ConvNorm) {
        self.line(&format!("({conv}): {}", conv_text(unit)));
        self.line(&format!("({norm}): {}", norm_text(unit.out_channels)));
    }

    fn block(&mut self, position: usize, kind: BlockKind, block: &Block) {
        let class = match kind {
            BlockKind::Basic => "BasicBlock",
            BlockKind::Bottleneck => "Bottleneck",
        };
        self.open(&format!("({position}): {class}"));
        let last = block.convs.len();
        for (index, unit) in block.convs.iter().enumerate().map(|(index, unit)| (index + 1, unit)) {
            self.conv_norm(&format!("conv{index}"), &format!("bn{index}"), unit);
            // torchvision keeps one ReLU: after the first norm of a basic block, after the last of a bottleneck.
            if index == if kind == BlockKind::Basic { 1 } else { last } {
                self.line("(relu): ReLU(inplace=True)");
            }
        }
        self.shortcut(&block.shortcut);
        self.close();
    }

    fn shortcut(&mut self, shortcut: &Shortcut) {
        match shortcut {
            Shortcut::Identity => {}
            Shortcut::Projection(projection) => {
                self.open("(downsample): Sequential");
                self.conv_norm("0", "1", projection);
                self.close();
            }
            Shortcut::ZeroPadded { stride, padding } => {
                self.line(&format!("(shortcut): ZeroPadded(stride={stride}, channels={padding}+{padding})"));
            }
        }
    }
}

fn conv_text(unit: &ConvNorm) -> String {
    let pair = |value: usize| format!("({value}, {value})");
    let mut text = format!(
        "Conv2d({}, {}, kernel_size={}, stride={}",
        unit.in_channels,
        unit.out_channels,
        pair(unit.kernel),
        pair(unit.stride)
    );
    if unit.padding() > 0 {
        text += &format!(", padding={}", pair(unit.padding()));
    }
    if unit.groups > 1 {
        text += &format!(", groups={}", unit.groups);
    }
    text + ", bias=False)"
}

fn norm_text(channels: usize) -> String {
    format!("BatchNorm2d({channels}, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)")
}

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
    format!("input 3×{size}×{size}, one image\n{}\n", lines.join("\n"))
}

struct Row {
    name: String,
    shape: String,
    parameters: usize,
    trainable: usize,
    multiply_adds: u64,
}

impl Row {
    fn frozen(cost: crate::blueprint::StageCost) -> Row {
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

    #[test]
    fn tree_is_the_one_that_pytorch_prints() {
        for name in ["resnet18", "resnext50_32x4d"] {
            let expected = match name {
                "resnet18" => include_str!("../tests/data/resnet18_tree.txt"),
                _ => include_str!("../tests/data/resnext50_32x4d_tree.txt"),
            };
            assert_eq!(layer_tree(architecture(name), 1000), expected);
        }
    }
}
