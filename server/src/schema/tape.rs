//! A parsed document as the `jsonschema` crate sees it: its representation traits over the nodes of the tape, so that
//! validation builds no tree.
//!
//! Equality, uniqueness and numbers mean exactly what they mean for `serde_json::Value`; tests hold the two together.
//! `to_value`, which the crate uses for the instances of its errors only, is always null: no error can carry a value
//! of a document.

use super::json::Node as TapeNode;
use super::members::{Members, after, name_at};
use jsonschema::JsonType;
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object, cmp, unique};
use serde_json::{Number, Value};
use simd_json::StaticNode;
use std::borrow::Cow;
use std::ops::ControlFlow;

/// The representation.
pub struct Tape;

/// A document that is being validated: nodes without repeated names, and their index.
pub struct Parsed<'a> {
    pub nodes: &'a [TapeNode<'a>],
    pub members: &'a Members,
}

/// One value of a document.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    document: &'a Parsed<'a>,
    position: usize,
}

/// An object of a document.
pub struct Fields<'a> {
    place: Place<'a>,
    len: usize,
}

/// An array of a document.
pub struct Elements<'a> {
    place: Place<'a>,
    len: usize,
}

/// Values one after the other; for an object, each is preceded by its name.
pub struct Walk<'a> {
    document: &'a Parsed<'a>,
    next: usize,
    left: usize,
}

/// A number of a document.
#[derive(Clone, Copy)]
pub enum Figure {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl<'a> Parsed<'a> {
    /// The whole document.
    pub fn root(&'a self) -> Place<'a> {
        Place { document: self, position: 0 }
    }
}

impl Json for Tape {
    type Node<'a> = Place<'a>;
    type PreparedKey = Box<str>;
    type StringBuffer = ();

    const KEYS_PER_LOOKUP: usize = 4;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    fn with_string_node<T>(_: &mut (), string: &str, f: impl FnOnce(Place<'_>) -> T) -> T {
        let members = Members::default();
        let nodes = [TapeNode::String(string)];
        f(Parsed { nodes: &nodes, members: &members }.root())
    }
}

impl<'a> Place<'a> {
    #[inline]
    fn node(&self) -> Option<&'a TapeNode<'a>> {
        self.document.nodes.get(self.position)
    }

    fn at(&self, position: usize) -> Self {
        Self { position, ..*self }
    }

    /// The same value as a tree.
    fn tree(&self) -> Value {
        match self.node() {
            Some(TapeNode::String(text)) => Value::from(*text),
            Some(TapeNode::Static(StaticNode::Bool(value))) => Value::from(*value),
            Some(TapeNode::Static(StaticNode::Null)) | None => Value::Null,
            Some(TapeNode::Static(_)) => self.as_number().map_or(Value::Null, |number| Value::Number(number.number())),
            Some(TapeNode::Array { .. }) => self.elements().map(|element| element.tree()).collect(),
            Some(TapeNode::Object { .. }) => {
                Value::Object(self.fields().map(|(name, value)| (name.to_owned(), value.tree())).collect())
            }
        }
    }

    fn elements(&self) -> Walk<'a> {
        let left = match self.node() {
            Some(TapeNode::Array { len, .. }) => *len,
            _ => 0,
        };
        Walk { document: self.document, next: self.position + 1, left }
    }

    fn fields(&self) -> NamedWalk<'a> {
        let left = match self.node() {
            Some(TapeNode::Object { len, .. }) => *len,
            _ => 0,
        };
        NamedWalk(Walk { document: self.document, next: self.position + 1, left })
    }

    /// Equality as JSON Schema has it: numbers by value, objects without order.
    fn equals(&self, other: &Self) -> bool {
        match (self.node(), other.node()) {
            (Some(TapeNode::String(left)), Some(TapeNode::String(right))) => left == right,
            (Some(TapeNode::Array { len: left, .. }), Some(TapeNode::Array { len: right, .. })) => {
                left == right && self.elements().zip(other.elements()).all(|(left, right)| left.equals(&right))
            }
            (Some(TapeNode::Object { len: left, .. }), Some(TapeNode::Object { len: right, .. })) => {
                let held = |name| other.as_object().and_then(|object| object.named(name));
                left == right && self.fields().all(|(name, left)| held(name).is_some_and(|right| left.equals(&right)))
            }
            (Some(TapeNode::Static(left)), Some(TapeNode::Static(right))) => match (left, right) {
                (StaticNode::Null, StaticNode::Null) => true,
                (StaticNode::Bool(left), StaticNode::Bool(right)) => left == right,
                _ => match (self.as_number(), other.as_number()) {
                    (Some(left), Some(right)) => {
                        cmp::equal(&Value::Number(left.number()), &Value::Number(right.number()))
                    }
                    _ => false,
                },
            },
            _ => false,
        }
    }
}

impl<'a> Node<'a, Tape> for Place<'a> {
    type Object = Fields<'a>;
    type Array = Elements<'a>;
    type Number = Figure;

    fn as_object(&self) -> Option<Fields<'a>> {
        match self.node() {
            Some(TapeNode::Object { len, .. }) => Some(Fields { place: *self, len: *len }),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<Elements<'a>> {
        match self.node() {
            Some(TapeNode::Array { len, .. }) => Some(Elements { place: *self, len: *len }),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self.node() {
            Some(TapeNode::String(text)) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<Figure> {
        match self.node() {
            Some(TapeNode::Static(StaticNode::U64(value))) => Some(Figure::Unsigned(*value)),
            Some(TapeNode::Static(StaticNode::I64(value))) => Some(Figure::Signed(*value)),
            Some(TapeNode::Static(StaticNode::F64(value))) => Some(Figure::Float(*value)),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.node() {
            Some(TapeNode::Static(StaticNode::Bool(value))) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self.node(), Some(TapeNode::Static(StaticNode::Null)))
    }

    fn json_type(&self) -> JsonType {
        match self.node() {
            Some(TapeNode::String(_)) => JsonType::String,
            Some(TapeNode::Object { .. }) => JsonType::Object,
            Some(TapeNode::Array { .. }) => JsonType::Array,
            Some(TapeNode::Static(StaticNode::Bool(_))) => JsonType::Boolean,
            Some(TapeNode::Static(StaticNode::Null)) | None => JsonType::Null,
            Some(TapeNode::Static(_)) => JsonType::Number,
        }
    }

    fn string_length_within(&self, min: u64, max: u64) -> Option<bool> {
        let Some(TapeNode::String(text)) = self.node() else { return None };
        // A character takes one to four bytes, which settles most cases without counting.
        let (fewest, most) = ((text.len() as u64).div_ceil(4), text.len() as u64);
        if most < min || fewest > max {
            return Some(false);
        }
        if min <= fewest && most <= max {
            return Some(true);
        }
        Some((min..=max).contains(&(text.chars().count() as u64)))
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match (self.node(), expected) {
            (Some(TapeNode::String(text)), Value::String(expected)) => text == expected,
            (Some(TapeNode::Array { len, .. }), Value::Array(expected)) => {
                *len == expected.len()
                    && self.elements().zip(expected).all(|(element, expected)| element.equals_value(expected))
            }
            (Some(TapeNode::Object { len, .. }), Value::Object(expected)) => {
                let held = |name| self.as_object().and_then(|object| object.named(name));
                *len == expected.len()
                    && expected.iter().all(|(name, value)| held(name).is_some_and(|found| found.equals_value(value)))
            }
            (Some(TapeNode::Static(StaticNode::Null)), Value::Null) => true,
            (Some(TapeNode::Static(StaticNode::Bool(value))), Value::Bool(expected)) => value == expected,
            (_, Value::Number(_)) => {
                self.as_number().is_some_and(|number| cmp::equal(&Value::Number(number.number()), expected))
            }
            _ => false,
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Borrowed(&Value::Null)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        self.node().map(|node| NodeIdentity::new(std::ptr::from_ref(node).addr()))
    }
}

impl<'a> Fields<'a> {
    fn named(&self, name: &str) -> Option<Place<'a>> {
        let Parsed { nodes, members } = self.place.document;
        if self.len > super::members::NARROW_MEMBERS_MAX {
            return members.find(nodes, self.place.position, name).map(|position| self.place.at(position));
        }
        self.place.fields().find(|(held, _)| *held == name).map(|(_, value)| value)
    }
}

impl<'a> Object<'a, Tape> for Fields<'a> {
    type Node = Place<'a>;
    type MemberName = &'a str;
    type MembersIter = NamedWalk<'a>;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, key: &Box<str>) -> Option<Place<'a>> {
        self.named(key)
    }

    fn members(&self) -> NamedWalk<'a> {
        self.place.fields()
    }

    fn try_for_each_name_node<B>(&self, _: &mut (), mut f: impl FnMut(Place<'_>) -> ControlFlow<B>) -> ControlFlow<B> {
        let Parsed { nodes, .. } = self.place.document;
        super::members::name_positions(nodes, self.place.position, self.len)
            .try_for_each(|position| f(self.place.at(position)))
    }
}

impl<'a> Array<'a, Tape> for Elements<'a> {
    type Node = Place<'a>;
    type ElementsIter = Walk<'a>;

    fn len(&self) -> usize {
        self.len
    }

    fn elements(&self) -> Walk<'a> {
        self.place.elements()
    }

    fn is_unique(&self) -> bool {
        if self.len > PAIRWISE_ELEMENTS_MAX {
            let trees: Vec<Value> = self.elements().map(|element| element.tree()).collect();
            return unique::is_unique(&trees);
        }
        let mut elements = self.elements();
        while let Some(element) = elements.next() {
            if elements.clone().any(|other| element.equals(&other)) {
                return false;
            }
        }
        true
    }
}

/// Up to so many elements are compared with each other; more are hashed, as trees.
const PAIRWISE_ELEMENTS_MAX: usize = 15;

impl Clone for Walk<'_> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Place<'a>;

    #[inline]
    fn next(&mut self) -> Option<Place<'a>> {
        self.left = self.left.checked_sub(1)?;
        let place = Place { document: self.document, position: self.next };
        self.next = after(self.document.nodes, self.next);
        Some(place)
    }
}

/// The members of an object, in the document's order.
pub struct NamedWalk<'a>(Walk<'a>);

impl<'a> Iterator for NamedWalk<'a> {
    type Item = (&'a str, Place<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let name = name_at(self.0.document.nodes, self.0.next);
        self.0.next += 1;
        self.0.next().map(|value| (name, value))
    }
}

impl Figure {
    fn number(self) -> Number {
        match self {
            Figure::Unsigned(value) => value.into(),
            Figure::Signed(value) => value.into(),
            // Both parsers yield finite numbers only.
            Figure::Float(value) => Number::from_f64(value).unwrap_or_else(|| 0.into()),
        }
    }
}

impl JsonNumber for Figure {
    fn as_u64(&self) -> Option<u64> {
        match *self {
            Figure::Unsigned(value) => Some(value),
            Figure::Signed(value) => value.try_into().ok(),
            Figure::Float(_) => None,
        }
    }

    fn as_i64(&self) -> Option<i64> {
        match *self {
            Figure::Unsigned(value) => value.try_into().ok(),
            Figure::Signed(value) => Some(value),
            Figure::Float(_) => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        Some(match *self {
            Figure::Unsigned(value) => value as f64,
            Figure::Signed(value) => value as f64,
            Figure::Float(value) => value,
        })
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Owned(self.number().to_string())
    }

    fn to_number(&self) -> Cow<'_, Number> {
        Cow::Owned(self.number())
    }

    fn is_integer(&self) -> bool {
        match *self {
            Figure::Unsigned(_) | Figure::Signed(_) => true,
            Figure::Float(value) => value.fract() == 0.0,
        }
    }

    fn is_written_as_integer(&self) -> bool {
        self.number().is_written_as_integer()
    }
}
