//! From a name to a loaded model: resolve, fetch, read, check.
//!
//! The only module that knows of both files and tensors. Parsing, fetching, reading and checking lie in modules of
//! their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_nn::VarMap;

use crate::architecture::Architecture;
use crate::blueprint::Blueprint;
use crate::card::{CardLabels, ModelCard};
use crate::catalogue::Catalogue;
use crate::checkpoint::{self, CheckpointError, Tensors};
use crate::classifier::Classifier;
use crate::config::{DropRates, Form, ModelConfig, PREPROCESSOR, temperature_in};
use crate::embedded;
use crate::error::{Error, Result};
use crate::hub::{self, DownloadProgress, Fetched, Hub, HubError, HubFile, HubSettings};
use crate::initialise::fresh_weights;
use crate::labels::LabelSet;
use crate::layout::{self, Placed, Placement};
use crate::plan::PlanOptions;
use crate::preprocess::Preprocessing;
use crate::registry::ModelName;
use crate::trunk::Trunk;
use crate::weights;

const CONFIG: &str = "config.json";
/// Weights files of a folder or repository in timm's or transformers' format, in the order they are looked for.
const WEIGHTS_FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// Outputs of a network whose weights are drawn and whose classes nobody said.
const FRESH_CLASSES: usize = 1000;

/// What to load.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// A model's name, `hf-hub:owner/name[@revision]`, or a folder.
    pub name: String,
    /// Where the weights come from.
    pub weights: WeightsChoice,
    /// Channels that images shall have; those of the weights if left out.
    pub in_channels: Option<usize>,
}

/// Where the weights of a request come from.
#[derive(Debug, Clone, PartialEq)]
pub enum WeightsChoice {
    /// Those that the name stands for.
    Named,
    /// A local file, for the architecture that the name stands for.
    File(PathBuf),
    /// Freshly drawn from a seed.
    Fresh {
        /// The seed.
        seed: u64,
    },
}

impl ModelRequest {
    /// The pretrained weights that `name` stands for.
    pub fn named(name: impl Into<String>) -> ModelRequest {
        ModelRequest { name: name.into(), weights: WeightsChoice::Named, in_channels: None }
    }
}

/// Where weights came from, for whoever has to answer for them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Provenance {
    /// The name that was asked for.
    pub model: String,
    /// Repository on the Hub.
    pub repository: Option<String>,
    /// Commit of the repository.
    pub commit: Option<String>,
    /// The file that was read; a bare name where it is built into the program.
    pub file: Option<PathBuf>,
    /// Its SHA-256, where the Hub stated it and the download was checked against it, or where the file is built in.
    pub sha256: Option<String>,
    /// The `config.json` that was read.
    pub config: Option<PathBuf>,
    /// Licence of the weights.
    pub license: Option<String>,
    /// Where they were published.
    pub origin_url: Option<String>,
}

/// What is known of a model before its weights are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// The network's shape, as the weights have it; where [`classes`](Description::classes) are not known, neither are
    /// the channels of its images.
    pub architecture: Architecture,
    /// Outputs; `None` where only the weights tell.
    pub classes: Option<usize>,
    /// The label set or names, where known.
    pub labels: Labels,
    /// What happens to a photo before the network sees it.
    pub preprocessing: Preprocessing,
    /// How the network is thinned while it trains.
    pub drop_rates: DropRates,
    /// What logits are divided by for probabilities that mean what they say; 1 where nobody calibrated.
    pub temperature: f64,
    /// Where the weights come from, as far as it is known yet.
    pub provenance: Provenance,
    source: WeightsSource,
}

/// The names of a model's classes.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// Nobody said.
    Unknown,
    /// A set that ships with the program.
    Set(&'static LabelSet),
    /// Names of the model's own, and their synsets where those are known too.
    Names {
        /// What people read.
        names: Vec<String>,
        /// WordNet's identifiers; empty where the names are all there is.
        synsets: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum WeightsSource {
    Hub { repository: String, revision: Option<String>, files: Vec<String> },
    File(PathBuf),
    Embedded { file: String },
    Fresh { seed: u64 },
}

/// A weights file on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightsFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Commit of its repository, where it came from the Hub.
    pub commit: Option<String>,
    /// Its SHA-256, where the Hub stated it.
    pub sha256: Option<String>,
}

/// A network with its weights and all that is needed to use it.
#[derive(Clone)]
pub struct Model {
    /// The network's shape.
    pub architecture: Architecture,
    /// Outputs of the classifier; 0 where there is none and the model offers features only.
    pub classes: usize,
    /// Names of the classes, in the order of the outputs; empty where nobody said.
    pub label_names: Vec<String>,
    /// WordNet's identifiers of the classes; empty where they are not ImageNet's.
    pub synsets: Vec<String>,
    /// What happens to a photo before the network sees it.
    pub preprocessing: Preprocessing,
    /// How the network is thinned while it trains.
    pub drop_rates: DropRates,
    /// What logits are divided by for probabilities that mean what they say, as a bundle's `config.json` has it for photos that are
    /// prepared as it says; 1 where nobody calibrated.
    pub temperature: f64,
    /// Every tensor of the network, under torchvision's names.
    pub weights: VarMap,
    /// Where the weights came from.
    pub provenance: Provenance,
}

impl Model {
    /// Fetches and loads what `name` stands for onto the CPU, with the Hub settings of the environment.
    ///
    /// # Errors
    /// If the name is unknown, or its files cannot be fetched, read or matched to the network.
    pub fn named(name: &str) -> Result<Model> {
        let hub = Hub::new(HubSettings::from_env())?;
        let catalogue = Catalogue::built_in();
        Loader { hub: &hub, catalogue: &catalogue, progress: &() }.load(&ModelRequest::named(name))
    }

    /// The network that `name` stands for with weights drawn from `seed`, on the CPU. Asks neither disk nor network.
    ///
    /// # Errors
    /// If no network has that name.
    pub fn fresh(name: &str, seed: u64) -> Result<Model> {
        load_fresh(describe_with(&Catalogue::built_in(), name, WeightsSource::Fresh { seed })?)
    }

    /// The same model for images of `channels` channels: its first convolution adapted, and what normalises a photo.
    ///
    /// See [`weights::with_input_channels`] for how.
    ///
    /// # Errors
    /// If `channels` is 0.
    pub fn with_input_channels(self, channels: usize) -> Result<Model> {
        if channels == self.architecture.in_channels {
            return Ok(self);
        }
        let architecture = Architecture { in_channels: channels, ..self.architecture };
        let weights = weights::with_input_channels(&self.weights, &Blueprint::of(&architecture))?;
        Ok(Model { architecture, weights, preprocessing: self.preprocessing.for_channels(channels), ..self })
    }

    /// The frozen form of the network, on `device`.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn trunk(&self, device: &Device) -> Result<Trunk> {
        self.trunk_with(device, &PlanOptions::default())
    }

    /// As [`trunk`](Model::trunk); `options` say what the CPU is to be fast at.
    ///
    /// # Errors
    /// As [`trunk`](Model::trunk).
    pub fn trunk_with(&self, device: &Device, options: &PlanOptions) -> Result<Trunk> {
        Ok(Trunk::compile_with(&self.architecture, &self.weights, device, options)?)
    }

    /// The whole network with labels and preprocessing, ready to predict on `device`.
    ///
    /// # Errors
    /// If the model offers features only, or the device has no room.
    pub fn classifier(&self, device: &Device) -> Result<Classifier> {
        Classifier::new(self, device, &PlanOptions::default())
    }

    /// As [`classifier`](Model::classifier); `options` say what the CPU is to be fast at.
    ///
    /// # Errors
    /// As [`classifier`](Model::classifier).
    pub fn classifier_with(&self, device: &Device, options: &PlanOptions) -> Result<Classifier> {
        Classifier::new(self, device, options)
    }
}

/// Turns requests into models; borrows what talks to the Hub and what knows names.
#[derive(Clone, Copy)]
pub struct Loader<'a> {
    /// Fetches files.
    pub hub: &'a Hub,
    /// What names stand for.
    pub catalogue: &'a Catalogue,
    /// Is told of downloads.
    pub progress: &'a dyn DownloadProgress,
}

impl Loader<'_> {
    /// What is known of a model without reading its weights. Fetches at most a `config.json`.
    ///
    /// # Errors
    /// If the name is unknown, has no weights, or its `config.json` cannot be fetched or understood.
    pub fn describe(&self, request: &ModelRequest) -> Result<Description> {
        let name = request.name.as_str();
        match &request.weights {
            WeightsChoice::Named => self.describe_named(name),
            WeightsChoice::File(path) => describe_with(self.catalogue, name, WeightsSource::File(path.clone())),
            &WeightsChoice::Fresh { seed } => describe_with(self.catalogue, name, WeightsSource::Fresh { seed }),
        }
    }

    fn describe_named(&self, name: &str) -> Result<Description> {
        match ModelName::resolve(self.catalogue, name)? {
            ModelName::Card(card) => describe_card(card, name),
            ModelName::Architecture(architecture) => {
                let tagged = self.catalogue.cards_of(architecture.name).map(|card| card.name.clone()).collect();
                Err(Error::NoPretrained { name: name.into(), tagged })
            }
            ModelName::Hub { repository, revision } => self.describe_repository(name, repository, revision),
            ModelName::Folder(folder) => describe_folder(name, &folder),
        }
    }

    fn describe_repository(&self, name: &str, repository: String, revision: Option<String>) -> Result<Description> {
        let config = self.fetch_first(&repository, revision.as_deref(), &[CONFIG.into()])?;
        let provenance = Provenance {
            repository: Some(repository.clone()),
            config: Some(config.path.clone()),
            ..Provenance::default()
        };
        // The weights of this config, even if the branch has moved on meanwhile.
        let revision = Some(config.commit);
        let config = read_config(&config.path, || self.fetch_preprocessor(&repository, revision.as_deref()))?;
        let source = WeightsSource::Hub { repository, revision, files: WEIGHTS_FILES.map(String::from).to_vec() };
        Ok(describe_config(name, config, provenance, source))
    }

    /// The repository's `preprocessor_config.json`, where it has one.
    fn fetch_preprocessor(&self, repository: &str, revision: Option<&str>) -> Result<Option<PathBuf>> {
        Ok(self.fetch_any(repository, revision, &[PREPROCESSOR.into()])?.map(|fetched| fetched.path))
    }

    /// Makes sure that the weights file is on this machine; `None` where weights are built in or drawn afresh.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub fn locate(&self, description: &Description) -> Result<Option<WeightsFile>> {
        match &description.source {
            WeightsSource::Hub { repository, revision, files } => {
                let fetched = self.fetch_first(repository, revision.as_deref(), files)?;
                Ok(Some(WeightsFile { path: fetched.path, commit: Some(fetched.commit), sha256: fetched.sha256 }))
            }
            WeightsSource::File(path) => Ok(Some(WeightsFile { path: path.clone(), commit: None, sha256: None })),
            WeightsSource::Embedded { .. } | WeightsSource::Fresh { .. } => Ok(None),
        }
    }

    /// Fetches the first of `files` that the repository has.
    fn fetch_first(&self, repository: &str, revision: Option<&str>, files: &[String]) -> Result<Fetched> {
        if let Some(fetched) = self.fetch_any(repository, revision, files)? {
            return Ok(fetched);
        }
        // The listing only helps the message along: without it the error stands all the same.
        let found = self.hub.files(repository, revision).unwrap_or_default();
        Err(Error::Incomplete { folder: repository.into(), missing: files.join(" and no "), found })
    }

    /// As [`fetch_first`](Loader::fetch_first), but `None` where the repository has none of them.
    fn fetch_any(&self, repository: &str, revision: Option<&str>, files: &[String]) -> Result<Option<Fetched>> {
        let file = |path: &str| HubFile {
            repository: repository.into(),
            revision: revision.map(String::from),
            path: path.into(),
        };
        if let Some(cached) = files.iter().find_map(|path| self.hub.cached(&file(path))) {
            return Ok(Some(cached));
        }
        for path in files {
            match self.hub.fetch(&file(path), self.progress) {
                Err(HubError::FileNotFound { .. }) => {}
                result => return Ok(Some(result?)),
            }
        }
        Ok(None)
    }

    /// Loads a model onto the CPU.
    ///
    /// # Errors
    /// If the name is unknown, or its files cannot be fetched, read or matched to the network.
    pub fn load(&self, request: &ModelRequest) -> Result<Model> {
        let mut description = self.describe(request)?;
        if let WeightsSource::Fresh { .. } = description.source {
            description.architecture.in_channels = request.in_channels.unwrap_or(description.architecture.in_channels);
            return load_fresh(description);
        }
        let model = match self.locate(&description)? {
            Some(file) => load_file(description, file)?,
            None => load_embedded(description)?,
        };
        let channels = request.in_channels.unwrap_or(model.architecture.in_channels);
        model.with_input_channels(channels)
    }
}

impl Description {
    /// The same with what only the weights tell, where neither a card nor a `config.json` does.
    fn completed_by(self, tensors: &BTreeMap<String, Tensor>) -> Description {
        if self.classes.is_some() {
            return self;
        }
        let told = weights::input_channels(tensors, &Blueprint::of(&self.architecture));
        let in_channels = told.unwrap_or(self.architecture.in_channels);
        let architecture = Architecture { in_channels, ..self.architecture };
        Description { architecture, classes: weights::classes(tensors), ..self }
    }
}

fn describe_card(card: &ModelCard, name: &str) -> Result<Description> {
    Ok(Description {
        architecture: *architecture_of(card)?,
        classes: Some(card.classes),
        labels: labels_of(card),
        preprocessing: card.preprocessing(),
        drop_rates: DropRates::default(),
        temperature: 1.0,
        provenance: Provenance {
            model: name.into(),
            repository: card.repository.clone(),
            license: card.license.clone(),
            origin_url: card.origin_url.clone(),
            ..Provenance::default()
        },
        source: weights_of(card)?,
    })
}

/// Where a card's weights lie: in a repository, in the card's own folder, or in the program.
fn weights_of(card: &ModelCard) -> Result<WeightsSource> {
    if let Some(repository) = card.repository.clone() {
        return Ok(WeightsSource::Hub { repository, revision: card.revision.clone(), files: vec![card.file.clone()] });
    }
    if card.is_embedded() {
        return Ok(WeightsSource::Embedded { file: card.file.clone() });
    }
    let path = card.folder.as_deref().unwrap_or(Path::new("")).join(&card.file);
    std::fs::metadata(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    Ok(WeightsSource::File(path))
}

/// An architecture with weights that do not come with its name.
fn describe_with(catalogue: &Catalogue, name: &str, source: WeightsSource) -> Result<Description> {
    let (architecture, card) = match ModelName::resolve(catalogue, name)? {
        ModelName::Card(card) => (architecture_of(card)?, Some(card)),
        ModelName::Architecture(architecture) => (architecture, None),
        ModelName::Hub { .. } | ModelName::Folder(_) => return Err(Error::TwoWeights(name.into())),
    };
    // A bare name says nothing of how the weights were trained; a tag does.
    let tagged = card.filter(|_| Architecture::named(name).is_none());
    let labels = match (&source, card) {
        (WeightsSource::File(_), Some(card)) => labels_of(card),
        _ => Labels::Unknown,
    };
    Ok(Description {
        architecture: *architecture,
        classes: None,
        labels,
        preprocessing: tagged.map_or_else(|| architecture.default_preprocessing(), ModelCard::preprocessing),
        drop_rates: DropRates::default(),
        temperature: 1.0,
        provenance: Provenance { model: name.into(), ..Provenance::default() },
        source,
    })
}

fn describe_folder(name: &str, folder: &Path) -> Result<Description> {
    std::fs::read_dir(folder).map_err(|source| Error::Io { path: folder.into(), source })?;
    let incomplete = |missing: &str| Error::Incomplete {
        folder: folder.display().to_string(),
        missing: missing.into(),
        found: files_in(folder),
    };
    let config = folder.join(CONFIG);
    if !config.is_file() {
        return Err(incomplete(CONFIG));
    }
    let weights = WEIGHTS_FILES.iter().map(|file| folder.join(file)).find(|path| path.is_file());
    let source = WeightsSource::File(weights.ok_or_else(|| incomplete(&WEIGHTS_FILES.join(" and no ")))?);
    let preprocessor = folder.join(PREPROCESSOR);
    let provenance = Provenance { config: Some(config.clone()), ..Provenance::default() };
    let config = read_config(&config, || Ok(Some(preprocessor).filter(|path| path.is_file())))?;
    Ok(describe_config(name, config, provenance, source))
}

/// Names of what lies in a folder, sorted; none where it cannot be read.
fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn describe_config(name: &str, config: ModelConfig, provenance: Provenance, source: WeightsSource) -> Description {
    Description {
        architecture: config.architecture,
        classes: Some(config.classes),
        labels: config.label_names.map_or(Labels::Unknown, |names| described(names, &config.label_descriptions)),
        preprocessing: config.preprocessing,
        drop_rates: config.drop_rates,
        temperature: config.temperature,
        provenance: Provenance {
            model: name.into(),
            license: config.license,
            origin_url: config.origin_url,
            ..provenance
        },
        source,
    }
}

fn architecture_of(card: &ModelCard) -> Result<&'static Architecture> {
    Architecture::named(&card.architecture).ok_or_else(|| no_pretrained(&card.name))
}

fn no_pretrained(name: &str) -> Error {
    Error::NoPretrained { name: name.into(), tagged: Vec::new() }
}

fn labels_of(card: &ModelCard) -> Labels {
    match &card.labels {
        None => Labels::Unknown,
        Some(CardLabels::Set(name)) => LabelSet::named(name).map_or(Labels::Unknown, Labels::Set),
        Some(CardLabels::Names(names)) => Labels::Names { names: names.clone(), synsets: Vec::new() },
    }
}

/// Labels that people can read: where all names are synsets, the words that describe them.
fn described(names: Vec<String>, descriptions: &BTreeMap<String, String>) -> Labels {
    let words: Option<Vec<String>> = names.iter().map(|name| descriptions.get(name).cloned()).collect();
    match words.filter(|_| names.iter().all(|name| is_synset(name))) {
        Some(words) => Labels::Names { names: words, synsets: names },
        None => Labels::Names { names, synsets: Vec::new() },
    }
}

/// Whether a name is WordNet's identifier of a noun, as `n01484850`.
fn is_synset(name: &str) -> bool {
    name.strip_prefix('n').is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Reads a `config.json` and, where its form has one, the file that `preprocessor` finds beside it.
fn read_config(path: &Path, preprocessor: impl FnOnce() -> Result<Option<PathBuf>>) -> Result<ModelConfig> {
    let text = read_text(path)?;
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Config { path, source }
    };
    let config = ModelConfig::parse(&text).map_err(wrong(path))?;
    if let Err(reason) = temperature_in(&text) {
        tracing::warn!("{}: `calibration` is passed over as another program's: {reason}", path.display());
    }
    match Form::of(&text).map_err(wrong(path))? {
        Form::Timm => Ok(config),
        Form::Transformers => match preprocessor()? {
            Some(path) => config.with_preprocessor(&read_text(&path)?).map_err(wrong(&path)),
            None => Ok(config),
        },
    }
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })
}

fn load_file(description: Description, file: WeightsFile) -> Result<Model> {
    let mut model = load_tensors(description, &file.path, checkpoint::read(&file.path)?)?;
    let provenance = Provenance { commit: file.commit, sha256: file.sha256, file: Some(file.path), ..model.provenance };
    model.provenance = provenance;
    Ok(model)
}

fn load_embedded(description: Description) -> Result<Model> {
    let WeightsSource::Embedded { file } = &description.source else {
        return Err(no_pretrained(&description.provenance.model));
    };
    let path = PathBuf::from(file);
    let bytes = embedded::file(file).ok_or_else(|| no_pretrained(&description.provenance.model))?;
    let tensors = checkpoint::read_bytes(bytes).map_err(|problem| CheckpointError::new(&path, problem))?;
    let mut model = load_tensors(description, &path, tensors)?;
    model.provenance.sha256 = Some(hub::sha256_of_bytes(bytes));
    model.provenance.file = Some(path);
    Ok(model)
}

/// Finds the network among the tensors of a file; `path` is for messages.
fn load_tensors(description: Description, path: &Path, tensors: Tensors) -> Result<Model> {
    let tensors = layout::uncompiled(tensors);
    let placement = Placement::find(tensors.keys().map(String::as_str), &Blueprint::of(&description.architecture))
        .map_err(|source| Error::SeveralNetworks { path: path.into(), source })?;
    let placed = placement.apply(tensors);
    let description = description.completed_by(&placed.tensors);
    let classes = description.classes.ok_or_else(|| Error::NoClassifier { path: path.into() })?;
    weights::check_placed(&placed, &placement, &description.architecture, classes)
        .map_err(|source| Error::Weights { path: path.into(), source: Box::new(source) })?;
    tell_what_lies_beside(&placed, path);
    let weights = weights::into_var_map(placed.tensors, &Device::Cpu)?;
    match weights::first_not_finite(&weights)? {
        Some(tensor) => Err(Error::NotFinite { path: path.into(), tensor }),
        None => Ok(assemble(description, classes, weights)),
    }
}

/// What a training script saved beside the network is not read, and not passed over in silence either.
fn tell_what_lies_beside(placed: &Placed<Tensor>, path: &Path) {
    if let Some(first) = placed.beside.first() {
        let (path, count) = (path.display(), placed.beside.len());
        tracing::warn!("{path}: {count} tensors beside the network are left aside, such as `{first}`");
    }
}

fn load_fresh(description: Description) -> Result<Model> {
    let WeightsSource::Fresh { seed } = description.source else {
        return Err(no_pretrained(&description.provenance.model));
    };
    let classes = description.classes.unwrap_or(FRESH_CLASSES);
    let weights = fresh_weights(&description.architecture, classes, seed, &Device::Cpu)?;
    Ok(assemble(description, classes, weights))
}

fn assemble(description: Description, classes: usize, weights: VarMap) -> Model {
    let (label_names, synsets) = match description.labels {
        Labels::Unknown => (Vec::new(), Vec::new()),
        Labels::Names { names, synsets } if names.len() == classes => (names, synsets),
        Labels::Set(set) if set.names.len() == classes => (set.names.clone(), set.synsets.clone()),
        Labels::Names { .. } | Labels::Set(_) => (Vec::new(), Vec::new()),
    };
    Model {
        architecture: description.architecture,
        classes,
        label_names,
        synsets,
        preprocessing: description.preprocessing.for_channels(description.architecture.in_channels),
        drop_rates: description.drop_rates,
        temperature: description.temperature,
        weights,
        provenance: description.provenance,
    }
}
