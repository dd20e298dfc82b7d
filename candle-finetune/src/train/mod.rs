//! Features and labels → a trained head.
