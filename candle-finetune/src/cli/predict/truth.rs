//! What photos really show, from a table.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf, absolute};

use anyhow::{anyhow, bail};
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
pub struct Truths {
    /// The table.
    file: PathBuf,
    /// Lines of the table that name a path, from where the program runs.
    direct: HashMap<PathBuf, Line>,
    /// The same where their paths are from where the table lies.
    beside: HashMap<PathBuf, Line>,
    outputs: HashMap<String, usize>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Line {
    path: PathBuf,
    label: String,
}

impl Truths {
    /// Reads a CSV file with the columns `path` and `label`; paths are from where the program runs, or from where the file lies.
    pub fn read(file: &Path, model: &Model) -> anyhow::Result<Truths> {
        let lines = read_lines(file).map_err(|error| anyhow!("{}: no table of path,label: {error}", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let (mut direct, mut beside) = (HashMap::new(), HashMap::new());
        for line in &lines {
            add(&mut direct, &line.path, line).map_err(|fault| anyhow!("{}: {fault}", file.display()))?;
            add(&mut beside, &folder.join(&line.path), line).map_err(|fault| anyhow!("{}: {fault}", file.display()))?;
        }
        let classes: BTreeSet<String> = lines.into_iter().map(|line| line.label).collect();
        let classes: Vec<String> = classes.into_iter().collect();
        let map = ClassMap::between(&classes, model).map_err(|error| {
            let named = format!("{}: {error}", file.display());
            anyhow::Error::from(error).context(named)
        })?;
        if map.by_order {
            say!("note: the model does not name its classes; labels are taken in alphabetical order");
        }
        let outputs = classes.into_iter().zip(map.outputs).collect();
        Ok(Truths { file: file.into(), direct, beside, outputs })
    }

    /// That of a photo, where the table has it.
    pub fn of(&self, path: &Path) -> Option<Truth> {
        let label = self.line(path)?.label.clone();
        Some(Truth { output: *self.outputs.get(&label)?, label })
    }

    fn line(&self, path: &Path) -> Option<&Line> {
        let path = absolute(path).ok()?;
        self.direct.get(&path).or_else(|| self.beside.get(&path))
    }

    /// Says which photos the table lacks, and which of its lines are of no photo.
    pub fn compare(&self, photos: &[PathBuf]) {
        let table = self.file.display();
        let mut used = HashSet::new();
        let without: Vec<&PathBuf> =
            photos.iter().filter(|photo| self.line(photo).map(|line| used.insert(&line.path)).is_none()).collect();
        if let Some(first) = without.first() {
            let (without, all) = (without.len(), photos.len());
            say!("note: {without} of {all} photos have no label in {table}: {}", some(first, without));
        }
        let unused = self.direct.values().map(|line| &line.path).filter(|path| !used.contains(path));
        if let Some(first) = unused.clone().min() {
            let (unused, all) = (unused.count(), self.direct.len());
            say!("note: {unused} of {all} labels in {table} are of no photo here: {}", some(first, unused));
        }
    }
}

/// Two lines of one path must agree.
fn add(lines: &mut HashMap<PathBuf, Line>, path: &Path, line: &Line) -> anyhow::Result<()> {
    let before = lines.entry(absolute(path)?).or_insert_with(|| line.clone());
    if before.label != line.label {
        bail!("{} is both `{}` and `{}`", line.path.display(), before.label, line.label);
    }
    Ok(())
}

/// One of so many paths.
fn some(first: &Path, count: usize) -> String {
    format!("{}{}", first.display(), if count > 1 { ", …" } else { "" })
}

fn read_lines(file: &Path) -> anyhow::Result<Vec<Line>> {
    let mut reader = csv::Reader::from_path(file)?;
    let columns = reader.headers()?;
    if !["path", "label"].iter().all(|name| columns.iter().any(|column| column == *name)) {
        bail!("its first line is `{}`", columns.iter().collect::<Vec<_>>().join(","));
    }
    let lines: Vec<Line> = reader.into_deserialize().collect::<csv::Result<_>>()?;
    if lines.is_empty() {
        bail!("it has no rows");
    }
    Ok(lines)
}
