//! A weights file of any known format → tensors by name.
