//! Image file → normalised tensor, as torchvision's evaluation transform does it.
