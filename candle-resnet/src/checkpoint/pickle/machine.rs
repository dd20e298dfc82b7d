//! Opcodes → values: the stack, the memo and the few calls that mean something.

use std::collections::HashMap;

use super::globals::Global;
use super::opcode::{Op, Opcodes};
use super::value::{Object, Objects, Pickle, Storage, TensorParts, Value};
use super::{PickleProblem, PickleProblem::*};
use crate::checkpoint::error::Problem;

/// The most opcodes and copied items in one pickle. A ResNet152 with the state of its Adam has 76,000.
pub(crate) const MAX_STEPS: usize = 1 << 22;

/// Reads the pickle that begins at byte `start` of `bytes`.
///
/// # Errors
/// [`Problem::Pickle`] with the position of the opcode at fault.
pub(crate) fn parse(bytes: &[u8], start: usize) -> Result<Pickle<'_>, Problem> {
    let mut opcodes = Opcodes::new(bytes, start);
    let mut machine = Machine::default();
    loop {
        let at = opcodes.at;
        let step = opcodes.next().and_then(|op| machine.step(op));
        match step.map_err(|problem| Problem::Pickle { at, problem })? {
            None => (),
            Some(root) => return Ok(Pickle::new(machine.objects.0, root, opcodes.at)),
        }
    }
}

type Result<T, E = PickleProblem> = std::result::Result<T, E>;

#[derive(Debug, Default)]
struct Machine<'a> {
    stack: Vec<Value<'a>>,
    /// Heights of the stack where marks were set.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: Objects<'a>,
    steps: usize,
}

impl<'a> Machine<'a> {
    /// Carries out one opcode; the last one gives the pickled value.
    fn step(&mut self, op: Op<'a>) -> Result<Option<Value<'a>>> {
        self.count(1)?;
        match op {
            Op::Stop => return self.pop().map(Some),
            Op::Skip => (),
            Op::Push(value) => self.stack.push(value),
            Op::Mark => self.marks.push(self.stack.len()),
            Op::Pop => self.pop_or_unmark()?,
            Op::PopMark => drop(self.pop_to_mark()?),
            Op::Duplicate => self.stack.push(self.top()?),
            Op::Put(index) => drop(self.memo.insert(index, self.top()?)),
            Op::Memoize => drop(self.memo.insert(self.memo.len() as u32, self.top()?)),
            Op::Get(index) => self.stack.push(*self.memo.get(&index).ok_or(NoMemo(index))?),
            Op::Append | Op::Appends | Op::SetItem | Op::SetItems => self.fill(op)?,
            Op::Build => drop(self.pop()?),
            _ => self.make(op)?,
        }
        Ok(None)
    }

    /// Carries out an opcode that makes a new value.
    fn make(&mut self, op: Op<'a>) -> Result<()> {
        let made = match op {
            Op::EmptyTuple => self.objects.add(Object::Tuple(Vec::new())),
            Op::EmptyList => self.objects.add(Object::List(Vec::new())),
            Op::EmptyDict => self.objects.add(Object::Dict(Vec::new())),
            Op::TupleOf(count) => self.last_as_tuple(count)?,
            Op::Tuple => self.marked_as(Object::Tuple)?,
            Op::List => self.marked_as(Object::List)?,
            Op::Dict => self.marked_as(|items| Object::Dict(pairs(&items)))?,
            Op::Global { module, name } => self.global(module, name),
            Op::StackGlobal => self.stack_global()?,
            Op::Call => self.call_with_tuple()?,
            Op::CallWithKeywords => self.pop().and_then(|_| self.call_with_tuple())?,
            Op::CallNamed { module, name } => self.call_named(module, name)?,
            Op::CallMarked => self.call_marked()?,
            Op::Persistent => self.persistent()?,
            _ => Value::None, // opaque
        };
        self.stack.push(made);
        Ok(())
    }

    /// Carries out an opcode that puts items into a container below them.
    ///
    /// A container that is not one (an object of a class of the file's own) swallows them.
    fn fill(&mut self, op: Op<'a>) -> Result<()> {
        let items = match op {
            Op::Append => self.pop_last(1)?,
            Op::SetItem => self.pop_last(2)?,
            _ => self.pop_to_mark()?,
        };
        let container = self.top()?;
        match (self.objects.behind_mut(container), op) {
            (Some(Object::List(list)), Op::Append | Op::Appends) => list.extend(items),
            (Some(Object::Dict(dict)), Op::SetItem | Op::SetItems) => dict.extend(pairs(&items)),
            _ => (),
        }
        Ok(())
    }

    fn count(&mut self, steps: usize) -> Result<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS { Err(TooLong) } else { Ok(()) }
    }

    /// The height below which nothing may be taken: the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Value<'a>> {
        if self.stack.len() <= self.floor() {
            return Err(EmptyStack);
        }
        self.stack.last().copied().ok_or(EmptyStack)
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_last(&mut self, count: usize) -> Result<Vec<Value<'a>>> {
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor());
        Ok(self.stack.split_off(start.ok_or(EmptyStack)?))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let start = self.marks.pop().ok_or(NoMark)?;
        Ok(self.stack.split_off(start.min(self.stack.len())))
    }

    /// `POP` takes a mark off where there is no value above it.
    fn pop_or_unmark(&mut self) -> Result<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    fn last_as_tuple(&mut self, count: usize) -> Result<Value<'a>> {
        let items = self.pop_last(count)?;
        Ok(self.objects.add(Object::Tuple(items)))
    }

    fn marked_as(&mut self, make: impl FnOnce(Vec<Value<'a>>) -> Object<'a>) -> Result<Value<'a>> {
        let items = self.pop_to_mark()?;
        Ok(self.objects.add(make(items)))
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Value<'a> {
        match Global::find(module, name) {
            Some(global) => Value::Global(global),
            None => self.objects.add(Object::Foreign { module, name }),
        }
    }

    fn stack_global(&mut self) -> Result<Value<'a>> {
        match (self.pop()?, self.pop()?) {
            (Value::Str(name), Value::Str(module)) => Ok(self.global(module, name)),
            _ => Err(Expected("a module and a name")),
        }
    }

    fn call_with_tuple(&mut self) -> Result<Value<'a>> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        self.call(function, arguments)
    }

    fn call_named(&mut self, module: &'a str, name: &'a str) -> Result<Value<'a>> {
        let arguments = self.marked_as(Object::Tuple)?;
        let function = self.global(module, name);
        self.call(function, arguments)
    }

    fn call_marked(&mut self) -> Result<Value<'a>> {
        let mut items = self.pop_to_mark()?.into_iter();
        let function = items.next().ok_or(EmptyStack)?;
        let arguments = self.objects.add(Object::Tuple(items.collect()));
        self.call(function, arguments)
    }

    /// The result of a call. Whatever is not in the table stays what it is: a name that was called.
    fn call(&mut self, function: Value<'a>, arguments: Value<'a>) -> Result<Value<'a>> {
        match function {
            Value::Global(Global::RebuildFromType) => match *self.arguments(arguments) {
                [function, _class, arguments, ..] => self.call_in_table(function, arguments),
                _ => Err(TensorParts),
            },
            _ => self.call_in_table(function, arguments),
        }
    }

    fn call_in_table(&mut self, function: Value<'a>, arguments: Value<'a>) -> Result<Value<'a>> {
        let Value::Global(global) = function else {
            return Ok(function);
        };
        match global {
            Global::Dict => self.dict(arguments),
            Global::RebuildTensor => self.tensor(arguments, None),
            Global::RebuildTypedTensor => {
                let element = self.arguments(arguments).get(6).copied();
                self.tensor(arguments, Some(element.ok_or(TensorParts)?))
            }
            Global::Size | Global::RebuildParameter => {
                self.arguments(arguments).first().copied().ok_or(Expected("an argument"))
            }
            Global::RebuildFromType | Global::Storage(_) | Global::ElementType(_) => Ok(function),
        }
    }

    fn arguments(&self, arguments: Value<'a>) -> &[Value<'a>] {
        self.objects.tuple(arguments).unwrap_or_default()
    }

    /// A new dictionary with the entries of a dictionary or of a list of pairs among the arguments.
    fn dict(&mut self, arguments: Value<'a>) -> Result<Value<'a>> {
        let mut entries = Vec::new();
        for &argument in self.arguments(arguments).iter().take(2) {
            match self.objects.behind(argument) {
                Some(Object::Dict(dict)) => entries.extend(dict),
                Some(Object::List(list)) => entries.extend(list.iter().filter_map(|&item| self.pair(item))),
                _ => (),
            }
        }
        self.count(entries.len())?; // the copied container may be one that is copied again and again
        Ok(self.objects.add(Object::Dict(entries)))
    }

    fn pair(&self, item: Value<'a>) -> Option<(Value<'a>, Value<'a>)> {
        match self.objects.behind(item) {
            Some(Object::Tuple(items) | Object::List(items)) => match items[..] {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        }
    }

    fn tensor(&mut self, arguments: Value<'a>, element: Option<Value<'a>>) -> Result<Value<'a>> {
        let element = match element {
            None => None,
            Some(Value::Global(Global::ElementType(element))) => Some(element),
            Some(_) => return Err(TensorParts),
        };
        match *self.arguments(arguments) {
            [Value::Object(storage), Value::Int(offset), Value::Object(size), Value::Object(stride), ..] => {
                Ok(self.objects.add(Object::Tensor(TensorParts { storage, element, offset, size, stride })))
            }
            _ => Err(TensorParts),
        }
    }

    /// `("storage", class, key, place, elements[, part])` → storage; anything else outside the pickle is opaque.
    fn persistent(&mut self) -> Result<Value<'a>> {
        let identifier = self.pop()?;
        match *self.arguments(identifier) {
            [Value::Str("storage"), Value::Global(Global::Storage(element)), Value::Str(key), _, _, ref part @ ..] => {
                let part = part.first().and_then(|&part| self.storage_part(part));
                Ok(self.objects.add(Object::Storage(Box::new(Storage { element, key, part }))))
            }
            [Value::Str("module"), class, ..] => Ok(class),
            _ => Ok(Value::None),
        }
    }

    fn storage_part(&self, part: Value<'a>) -> Option<(i64, i64)> {
        match *self.arguments(part) {
            [_key, Value::Int(offset), Value::Int(count)] => Some((offset, count)),
            _ => None,
        }
    }
}

/// Keys and values that follow each other → entries; a key without a value is dropped.
fn pairs<'a>(items: &[Value<'a>]) -> Vec<(Value<'a>, Value<'a>)> {
    items.as_chunks().0.iter().map(|&[key, value]| (key, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(bytes: &[u8]) -> PickleProblem {
        match parse(bytes, 0) {
            Err(Problem::Pickle { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_function_outside_the_table_is_a_name_even_when_called() {
        let pickle = parse(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.", 0).unwrap();
        assert!(matches!(pickle.behind(pickle.root), Some(Object::Foreign { module: "os", name: "system" })));
    }

    #[test]
    fn filling_what_is_not_a_container_changes_nothing() {
        let pickle = parse(b"cos\nsystem\nK\x01aK\x01K\x02s}b.", 0).unwrap();
        assert!(matches!(pickle.behind(pickle.root), Some(Object::Foreign { .. })));
    }

    #[test]
    fn a_list_of_itself_is_read_and_dropped() {
        let pickle = parse(b"]q\x00h\x00a.", 0).unwrap();
        assert!(matches!(pickle.behind(pickle.root), Some(Object::List(items)) if items[..] == [pickle.root]));
    }

    #[test]
    fn a_million_nested_tuples_are_read_and_dropped() {
        let bytes = [&b")"[..], &vec![0x85; 1 << 20], b"."].concat();
        assert_eq!(parse(&bytes, 0).unwrap().objects().len(), 1 + (1 << 20));
    }

    #[test]
    fn too_many_opcodes_are_refused() {
        assert_eq!(problem(&vec![b'N'; MAX_STEPS + 1]), TooLong);
    }

    #[test]
    fn copying_one_list_again_and_again_is_refused() {
        let pairs = b"NN\x86a".repeat(1000);
        let copy = b"ccollections\nOrderedDict\nh\x00\x85R0".repeat(10_000);
        assert_eq!(problem(&[&b"]q\x00"[..], &pairs, &copy, b"."].concat()), TooLong);
    }

    #[test]
    fn taking_what_is_not_there_is_an_error() {
        assert_eq!(problem(b"."), EmptyStack);
        assert_eq!(problem(b"N(\x85."), EmptyStack);
        assert_eq!(problem(b"Nt."), NoMark);
        assert_eq!(problem(b"h\x07."), NoMemo(7));
        assert_eq!(problem(b"N"), Truncated);
    }

    #[test]
    fn errors_tell_the_position() {
        assert!(matches!(parse(b"xxN\xff", 2), Err(Problem::Pickle { at: 3, problem: UnknownOpcode(0xff) })));
    }

    #[test]
    fn a_tensor_made_of_anything_else_is_refused() {
        assert_eq!(problem(b"ctorch._utils\n_rebuild_tensor_v2\n)R."), TensorParts);
    }

    #[test]
    fn an_ordered_dictionary_may_be_made_from_a_list_of_pairs() {
        let pickle = parse(b"ccollections\nOrderedDict\n]]K\x01aK\x02aa\x85R.", 0).unwrap();
        let expected = [(Value::Int(1), Value::Int(2))];
        assert!(matches!(pickle.behind(pickle.root), Some(Object::Dict(entries)) if entries[..] == expected));
    }
}
