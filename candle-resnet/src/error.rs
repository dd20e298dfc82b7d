//! Everything that can go wrong on the way from a name to a prediction.

use std::path::{Path, PathBuf};

use crate::catalogue::CatalogueError;
use crate::checkpoint::CheckpointError;
use crate::config::{ConfigError, PREPROCESSOR};
use crate::features::UnknownBoundary;
use crate::hub::HubError;
use crate::layout::Ambiguous;
use crate::preprocess::{PhotoError, PreprocessingError};
use crate::registry::UnknownModel;
use crate::weights::Mismatch;

/// What went wrong; [`Error::hint`] gives the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that nothing has.
    #[error(transparent)]
    UnknownModel(#[from] UnknownModel),
    /// A folder of private cards that was not taken.
    #[error(transparent)]
    Catalogue(Box<CatalogueError>),
    /// An architecture that nobody publishes weights of under this name.
    #[error("there are no pretrained weights named `{name}`")]
    NoPretrained {
        /// What was asked for.
        name: String,
        /// Whole names of weights that there are of this architecture.
        tagged: Vec<String>,
    },
    /// A weights file beside a name that brings its own.
    #[error("`{0}` brings its own weights: it takes neither a weights file nor fresh weights")]
    TwoWeights(String),
    /// A folder or repository without one of the files that make it a model.
    #[error("{folder}: holds no {missing}")]
    Incomplete {
        /// Folder or repository.
        folder: String,
        /// The file or files that were looked for.
        missing: String,
        /// What it holds, as far as that could be found out.
        found: Vec<String>,
    },
    /// A `config.json` that was not understood.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// Tensors that are not the network's.
    #[error("{path}: {source}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is missing, unexpected or misshapen.
        source: Box<Mismatch>,
    },
    /// A file with more than one network that it could be.
    #[error("{path}: {source}")]
    SeveralNetworks {
        /// The file.
        path: PathBuf,
        /// Where they lie.
        source: Ambiguous,
    },
    /// Weights with a classifier of another kind.
    #[error("{path}: `fc.weight` has not two dimensions, so the number of classes is not known")]
    NoClassifier {
        /// The file.
        path: PathBuf,
    },
    /// Weights that are no numbers.
    #[error("{path}: `{tensor}` holds NaN or infinity")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The first such tensor, by torchvision's name.
        tensor: String,
    },
    /// Logits that are no numbers.
    #[error("the network's outputs are not finite")]
    NonFiniteOutputs,
    /// A model that was published without a classifier.
    #[error("`{0}` has no classifier, only features")]
    FeaturesOnly(String),
    /// A weights file that was not read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file that was not fetched.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A part that the network does not have.
    #[error(transparent)]
    UnknownBoundary(#[from] UnknownBoundary),
    /// A photo that was not read.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// Photos that cannot become a network's input.
    #[error(transparent)]
    Preprocessing(#[from] PreprocessingError),
    /// A file that was not read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// candle refused: shapes, devices or memory.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<CatalogueError> for Error {
    fn from(error: CatalogueError) -> Error {
        Error::Catalogue(Box::new(error))
    }
}

impl Error {
    /// The way out, in one line.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::UnknownModel(unknown) => Some(unknown.hint()),
            Error::Catalogue(error) => error.hint(),
            Error::NoPretrained { tagged, .. } => Some(no_pretrained_hint(tagged)),
            Error::TwoWeights(_) => Some("name an architecture, such as `resnet18`".into()),
            Error::Incomplete { found, .. } => Some(incomplete_hint(found)),
            Error::Weights { source, .. } => Some(source.hint().into()),
            Error::Config { path, .. } if path.ends_with(PREPROCESSOR) => Some(preprocessor_hint(path)),
            Error::NotFinite { .. } => {
                Some("a training that diverged leaves such weights: take a checkpoint of before".into())
            }
            Error::NonFiniteOutputs => {
                Some("check the network's weights: they take it beyond the range of numbers".into())
            }
            Error::SeveralNetworks { .. } => Some("save the one that is meant in a file of its own".into()),
            Error::FeaturesOnly(_) => Some("train a classifier on its features with `finetune train`".into()),
            Error::Checkpoint(error) => error.hint(),
            Error::Hub(error) => error.hint(),
            Error::Photo(error) => error.hint(),
            Error::Preprocessing(error) => error.hint(),
            Error::UnknownBoundary(_)
            | Error::Config { .. }
            | Error::NoClassifier { .. }
            | Error::Io { .. }
            | Error::Candle(_) => None,
        }
    }
}

/// What is known of photos otherwise comes from options.
fn preprocessor_hint(path: &Path) -> String {
    let weights = path.with_file_name("model.safetensors");
    format!(
        "`--model NAME --weights {}` takes the weights alone, of the architecture of that name; say with --input-size, --mean and \
         the like how it sees photos",
        weights.display()
    )
}

fn no_pretrained_hint(tagged: &[String]) -> String {
    let others = "give a file of them with --weights FILE; `train` and `embed` also take --no-pretrained";
    match tagged {
        [] => others.into(),
        names => format!("there is `{}`; or {others}", names.join("` and `")),
    }
}

fn incomplete_hint(found: &[String]) -> String {
    if let Some(index) = found.iter().find(|name| name.ends_with(".index.json")) {
        return format!(
            "`{index}` is of weights in several files: save them as one, `save_pretrained(…, max_shard_size=\"100GB\")`"
        );
    }
    const SHOWN: usize = 8;
    let shown: Vec<&str> = found.iter().take(SHOWN).map(String::as_str).collect();
    let holds = match found.len() {
        0 => String::new(),
        1..=SHOWN => format!("; it holds {}", shown.join(", ")),
        more => format!("; it holds {} and {} more files", shown.join(", "), more - SHOWN),
    };
    format!("a model is a `config.json` beside a `model.safetensors`, as timm and transformers write them{holds}")
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
