//! What photos really show, from a table.

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use anyhow::anyhow;
use candle_finetune::evaluate::ClassMap;
use candle_resnet::Model;
use serde::Deserialize;

/// The label of a photo, and the output that stands for it.
#[derive(Debug, Clone)]
pub struct Truth {
    pub label: String,
    pub output: usize,
}

/// Labels by path.
pub struct Truths(HashMap<PathBuf, Truth>);

#[derive(Deserialize)]
struct Line {
    path: PathBuf,
    label: String,
}

impl Truths {
    /// Reads a CSV file with the columns `path` and `label`; paths are from where the program runs, or from where the file lies.
    pub fn read(file: &Path, model: &Model) -> anyhow::Result<Truths> {
        let lines = read_lines(file).map_err(|error| anyhow!("{}: no table of path,label: {error}", file.display()))?;
        let classes: BTreeSet<&String> = lines.iter().map(|line| &line.label).collect();
        let classes: Vec<String> = classes.into_iter().cloned().collect();
        let map = ClassMap::between(&classes, model)?;
        if map.by_order {
            say!("note: the model does not name its classes; labels are taken in alphabetical order");
        }
        let outputs: HashMap<&String, usize> = classes.iter().zip(map.outputs.iter().copied()).collect();
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut truths = HashMap::new();
        for Line { path, label } in &lines {
            let truth = Truth { label: label.clone(), output: outputs[label] };
            truths.entry(plain(&folder.join(path))).or_insert(truth.clone());
            truths.insert(plain(path), truth);
        }
        Ok(Truths(truths))
    }

    /// That of a photo, where the table has it.
    pub fn of(&self, path: &Path) -> Option<Truth> {
        self.0.get(&plain(path)).cloned()
    }
}

/// Without `.`: `./a.jpg` is `a.jpg`.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

fn read_lines(file: &Path) -> csv::Result<Vec<Line>> {
    csv::Reader::from_path(file)?.into_deserialize().collect()
}
