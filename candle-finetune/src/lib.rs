//! Fine-tuning: a folder of labelled photos and the name of a network become a bundle that predicts.

pub mod dataset;
pub mod train;
