//! Which views of images are trained on.

use candle_finetune::augment::{Augmentation, Policy, ViewCount};
use clap::Args;

/// Augmented views of each image where a head is trained and nobody says how many.
const VIEWS: usize = 4;

#[derive(Args)]
pub struct ViewOptions {
    /// Train a head on the mirror image of each image as well, other parts on either of the two
    #[arg(long, conflicts_with = "augment")]
    flip: bool,

    /// Train on augmented views of each training image: steps such as crop,flip,color
    ///
    /// Steps stand between commas, numbers behind them between colons; numbers that are left out are torchvision's.
    ///
    /// crop=MIN:MAX:NARROW:WIDE   any part of that area and width over height (0.08:1:0.75:1.333)
    /// padcrop=PIXELS             the middle, shifted by up to so many pixels (4)
    /// flip=P, vflip=P            mirrored, upside down, with that probability (0.5)
    /// randaugment=OPS:MAGNITUDE  so many operations, as strong as 0 to 30 (2:9)
    /// trivial                    one operation, of any strength: TrivialAugmentWide
    /// color=B:C:S:H              brightness, contrast, saturation, hue (0.4:0.4:0.4:0)
    /// erase=P:MIN:MAX:LOW:HIGH   a part hidden with that probability (0.5:0.02:0.33:0.3:3.3)
    #[arg(long, value_name = "POLICY", verbatim_doc_comment)]
    augment: Option<Policy>,

    /// Augmented views of each training image, seen again and again, or `fresh`: another in each epoch [default: 4 beside
    /// the image itself for a head, fresh with --train-from]
    #[arg(long, value_name = "K|fresh", requires = "augmented")]
    views: Option<ViewCount>,
}

impl ViewOptions {
    /// What was asked for, or what a file says; a `tail` sees one view of each image in an epoch, a head all of them.
    pub fn augmentation(&self, file: Option<Augmentation>, tail: bool) -> Option<Augmentation> {
        let default = if tail { ViewCount::Fresh } else { ViewCount::Kept(VIEWS) };
        let views = self.views.unwrap_or(default);
        match &self.augment {
            Some(policy) => Some(Augmentation { policy: policy.clone(), views }),
            None if self.flip && tail => {
                Some(Augmentation { policy: Policy { flip: 0.5, ..Policy::default() }, views })
            }
            None if self.flip => Some(Augmentation::mirror()),
            None => file.map(|file| Augmentation { views: self.views.unwrap_or(file.views), ..file }),
        }
    }
}
