//! The arithmetic of a formula, for a single number and for all numbers of a tensor at once.
//!
//! A rule is written once over [`Number`] and serves both; in f32 both round alike.

use std::convert::Infallible;

use candle_core::{Error, Tensor};

/// A number, or a tensor of them to which everything is done element by element.
pub trait Number: Sized {
    /// How an operation may fail.
    type Error;

    fn plus(&self, other: &Self) -> Result<Self, Self::Error>;
    fn times(&self, other: &Self) -> Result<Self, Self::Error>;
    fn over(&self, other: &Self) -> Result<Self, Self::Error>;
    fn root(&self) -> Result<Self, Self::Error>;
    fn scaled(&self, scale: f64) -> Result<Self, Self::Error>;
    fn shifted(&self, shift: f64) -> Result<Self, Self::Error>;

    /// `self + scale · other`.
    fn plus_scaled(&self, other: &Self, scale: f64) -> Result<Self, Self::Error> {
        self.plus(&other.scaled(scale)?)
    }

    /// `self - other`.
    fn minus(&self, other: &Self) -> Result<Self, Self::Error> {
        self.plus_scaled(other, -1.0)
    }
}

impl Number for f32 {
    type Error = Infallible;

    fn plus(&self, other: &f32) -> Result<f32, Infallible> {
        Ok(self + other)
    }

    fn times(&self, other: &f32) -> Result<f32, Infallible> {
        Ok(self * other)
    }

    fn over(&self, other: &f32) -> Result<f32, Infallible> {
        Ok(self / other)
    }

    fn root(&self) -> Result<f32, Infallible> {
        Ok(self.sqrt())
    }

    fn scaled(&self, scale: f64) -> Result<f32, Infallible> {
        Ok(self * scale as f32)
    }

    fn shifted(&self, shift: f64) -> Result<f32, Infallible> {
        Ok(self + shift as f32)
    }
}

impl Number for Tensor {
    type Error = Error;

    fn plus(&self, other: &Tensor) -> Result<Tensor, Error> {
        self + other
    }

    fn times(&self, other: &Tensor) -> Result<Tensor, Error> {
        self * other
    }

    fn over(&self, other: &Tensor) -> Result<Tensor, Error> {
        self / other
    }

    fn root(&self) -> Result<Tensor, Error> {
        self.sqrt()
    }

    fn scaled(&self, scale: f64) -> Result<Tensor, Error> {
        self * scale
    }

    fn shifted(&self, shift: f64) -> Result<Tensor, Error> {
        self + shift
    }
}
