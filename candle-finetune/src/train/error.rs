//! What can go wrong while a head is trained.

/// A result whose error is a [`TrainError`].
pub type Result<T> = std::result::Result<T, TrainError>;

/// Why a head could not be trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting is outside its range.
    #[error("setting `{name}` is {found}, must be {allowed}")]
    Setting {
        /// The setting as a file of settings spells it.
        name: &'static str,
        /// The value given.
        found: String,
        /// The range in words.
        allowed: String,
    },
    /// A tensor does not have the shape that its use needs.
    #[error("{what} have shape {found:?}, expected {expected}")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape in words.
        expected: String,
    },
    /// Features and labels do not belong together.
    #[error("{labels} labels for the features of {images} images")]
    LabelCount {
        /// Number of labels.
        labels: usize,
        /// Number of images.
        images: usize,
    },
    /// A label names no class.
    #[error("image {index} has label {label}, but there are {classes} classes, counted from 0")]
    Label {
        /// Index of the image.
        index: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A feature is infinite or not a number.
    #[error("the features of image {index} are not finite")]
    NonFiniteFeatures {
        /// Index of the image.
        index: usize,
    },
    /// There is nothing to train or validate on.
    #[error("no images to {purpose} on")]
    Empty {
        /// `train` or `validate`.
        purpose: &'static str,
    },
    /// Training left the range of numbers.
    #[error("the loss became {loss} in epoch {epoch}, step {step}, at learning rate {lr:.3e}")]
    Diverged {
        /// The loss.
        loss: f64,
        /// Epoch, counted from 1.
        epoch: usize,
        /// Step within the epoch, counted from 1.
        step: usize,
        /// Learning rate of that step.
        lr: f64,
    },
    /// There is nothing to learn from.
    #[error("the loss is {loss} before the first step")]
    NonFiniteStart {
        /// The loss.
        loss: f64,
    },
    /// A gradient is infinite or not a number.
    #[error("the gradient of `{name}` is not finite")]
    NonFiniteGradient {
        /// Its parameter, the first by name.
        name: String,
    },
    /// Gradients are too large for f16 even where the loss is scaled down.
    #[error("gradients leave the range of f16, however the loss is scaled")]
    BeyondF16,
    /// The device has no room for a training step.
    #[error("the device has no room for a training step on {images} images")]
    OutOfMemory {
        /// Images of the step.
        images: usize,
        /// Images that there is room for; none where not even one fits.
        room: Option<usize>,
    },
    /// A pattern of names that is likely mistyped.
    #[error("`{pattern}` fits no parameter that trains")]
    UnusedPattern {
        /// The pattern.
        pattern: String,
    },
    /// A tensor that should be there is not.
    #[error("there is no tensor `{name}`")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// A tensor that belongs to nothing that trains.
    #[error("tensor `{name}` belongs to nothing that trains")]
    UnknownTensor {
        /// Its name.
        name: String,
    },
    /// A tensor does not have the shape of what it is for.
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    TensorShape {
        /// Its name, or that of its parameter.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl TrainError {
    /// The way out in one line, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Setting { name, .. } if ["lr", "weight-decay"].contains(name) => {
                Some(format!("leave `{name}` out and it is derived"))
            }
            Self::Diverged { lr, .. } => Some(format!("try a lower learning rate, for example {:.0e}", lr / 10.0)),
            Self::NonFiniteGradient { .. } => Some("try a lower learning rate".into()),
            Self::BeyondF16 => Some("compute in bf16, or try a lower learning rate".into()),
            Self::OutOfMemory { images, room: Some(room) } => Some(format!(
                "there is room for {room}: give --batch-size {room}, and {} times the --accumulate for steps as large; --batch-size auto \
                 looks for what fits",
                images.div_ceil(*room)
            )),
            Self::OutOfMemory { room: None, .. } => {
                Some("train fewer parts with --train-from, smaller images with --input-size, or on the CPU".into())
            }
            Self::NonFiniteFeatures { .. } | Self::NonFiniteStart { .. } => {
                Some("check the network's weights and the image's pixels".into())
            }
            _ => None,
        }
    }
}
