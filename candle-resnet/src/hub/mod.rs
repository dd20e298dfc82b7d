//! A repository on the Hugging Face Hub → a verified file in the shared cache.
