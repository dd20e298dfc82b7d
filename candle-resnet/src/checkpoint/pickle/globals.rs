//! The functions and classes that mean something to a weights file.

use super::super::element::ElementType;

/// A function or class of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Global {
    /// `collections.OrderedDict` and its like.
    Dict,
    /// `torch.Size`: a tuple.
    Size,
    /// `(storage, offset, size, stride, …)` → tensor.
    RebuildTensor,
    /// The same with an element type of its own, which the storage does not have.
    RebuildTypedTensor,
    /// `(tensor, …)` → parameter; here the tensor itself.
    RebuildParameter,
    /// `(function, class, arguments, state)` → a tensor of a subclass or with attributes.
    RebuildFromType,
    /// `torch.FloatStorage` and its like.
    Storage(&'static ElementType),
    /// `torch.float32` and its like.
    ElementType(&'static ElementType),
}

impl PartialEq for Global {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Storage(a), Self::Storage(b)) | (Self::ElementType(a), Self::ElementType(b)) => std::ptr::eq(*a, *b),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Global {
    /// The entry called `module.name`, or None for all the rest of Python.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict" | "defaultdict") | ("builtins" | "__builtin__", "dict") => Self::Dict,
            ("torch", "Size") => Self::Size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildTypedTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Self::RebuildParameter,
            ("torch._tensor" | "torch.tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch" | "torch.cuda" | "torch.storage", class) if class.ends_with("Storage") => {
                Self::Storage(ElementType::of_storage_class(class)?)
            }
            ("torch", name) => Self::ElementType(ElementType::named(name)?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_python_is_not_in_the_table() {
        for (module, name) in [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("torch._utils", "eval")] {
            assert_eq!(Global::find(module, name), None);
        }
    }

    #[test]
    fn storages_of_the_gpu_are_storages() {
        let float = ElementType::named("float32").unwrap();
        assert_eq!(Global::find("torch.cuda", "FloatStorage"), Some(Global::Storage(float)));
    }
}
