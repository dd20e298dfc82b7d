//! The built-in photo under every card's preprocessing against torchvision's transform: equal to the last bit.

use candle_resnet::certificate::{PixelDifference, PixelReference};

#[test]
fn pixels_and_tensors_are_torchvisions_to_the_last_bit() {
    for reference in PixelReference::built_in() {
        let recipe = reference.preprocessing();
        let difference = reference.compare(&recipe).unwrap();
        let equal = PixelDifference { pixels_equal: true, input_equal: Some(true), largest: 0 };
        assert_eq!(difference, equal, "{recipe:?}");
    }
}
