//! What a pickle can hold.

use super::super::element::ElementType;
use super::globals::Global;

/// Number of an object in its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectId(u32);

/// A value; small ones lie in it, others are objects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, two's complement, little-endian.
    BigInt(&'a [u8]),
    Float,
    Str(&'a str),
    Bytes,
    Global(Global),
    Object(ObjectId),
}

/// What is referred to by number, because it is large or because it changes after it was made.
#[derive(Debug)]
pub(crate) enum Object<'a> {
    Tuple(Vec<Value<'a>>),
    /// A list or a set.
    List(Vec<Value<'a>>),
    /// In the order of insertion; a later entry replaces an earlier one of the same key.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Storage(Box<Storage<'a>>),
    Tensor(TensorParts),
    /// A function or class outside the table, or anything that was made by calling it.
    Foreign {
        module: &'a str,
        name: &'a str,
    },
}

/// A block of elements that lies elsewhere in the file.
#[derive(Debug)]
pub(crate) struct Storage<'a> {
    pub(crate) element: &'static ElementType,
    pub(crate) key: &'a str,
    /// Offset and number of elements, where only a part of the block is meant.
    pub(crate) part: Option<(i64, i64)>,
}

/// A tensor as it is described; nothing is checked before its data are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorParts {
    pub(crate) storage: ObjectId,
    /// Where it differs from the storage's.
    pub(crate) element: Option<&'static ElementType>,
    /// In elements.
    pub(crate) offset: i64,
    pub(crate) size: ObjectId,
    pub(crate) stride: ObjectId,
}

/// All that one pickle holds.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    /// The value that was pickled.
    pub(crate) root: Value<'a>,
    /// Position behind the pickle.
    pub(crate) end: usize,
}

impl<'a> Pickle<'a> {
    pub(super) fn new(objects: Vec<Object<'a>>, root: Value<'a>, end: usize) -> Self {
        Self { objects, root, end }
    }

    /// The objects in the order in which they were made.
    pub(crate) fn objects(&self) -> &[Object<'a>] {
        &self.objects
    }

    pub(crate) fn object(&self, id: ObjectId) -> Option<&Object<'a>> {
        self.objects.get(id.0 as usize)
    }

    /// The object behind a value, if it has one.
    pub(crate) fn behind(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(id) => self.object(id),
            _ => None,
        }
    }
}

/// Objects while a pickle is being read.
#[derive(Debug, Default)]
pub(super) struct Objects<'a>(pub(super) Vec<Object<'a>>);

impl<'a> Objects<'a> {
    pub(super) fn add(&mut self, object: Object<'a>) -> Value<'a> {
        let id = ObjectId(self.0.len() as u32); // the machine's step limit is far below 2^32
        self.0.push(object);
        Value::Object(id)
    }

    pub(super) fn behind(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(ObjectId(index)) => self.0.get(index as usize),
            _ => None,
        }
    }

    pub(super) fn behind_mut(&mut self, value: Value<'a>) -> Option<&mut Object<'a>> {
        match value {
            Value::Object(ObjectId(index)) => self.0.get_mut(index as usize),
            _ => None,
        }
    }

    /// The items of a tuple; None for anything else.
    pub(super) fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.behind(value) {
            Some(Object::Tuple(items)) => Some(items),
            _ => None,
        }
    }
}
