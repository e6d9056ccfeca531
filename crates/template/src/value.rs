//! Values: JSON, optionally seen through a Go type.

use std::rc::Rc;

use serde_json::{Map, Value};

/// The Go type a JSON value stands for. It decides what an absent or `null` value is, and how it prints.
#[derive(Debug)]
pub enum Type {
    /// `interface {}`: whatever the JSON says.
    Any,
    Bool,
    Int,
    Float,
    Str,
    Ptr(&'static Type),
    Slice(&'static Type),
    Map(&'static Type),
    /// A map whose keys have a type of their own, which no text in a template has: it cannot be indexed.
    KeyedMap(&'static str, &'static Type),
    /// A struct's name, as error texts print it, and its fields in order.
    Struct(&'static str, &'static [Field]),
}

/// One field of a struct: its name in templates, its key in JSON.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub key: &'static str,
    pub ty: &'static Type,
}

impl Field {
    /// A field whose JSON key is its name.
    pub const fn same(name: &'static str, ty: &'static Type) -> Self {
        Self { name, key: name, ty }
    }

    /// A field whose JSON key differs from its name.
    pub const fn keyed(name: &'static str, key: &'static str, ty: &'static Type) -> Self {
        Self { name, key, ty }
    }
}

#[derive(Debug, Clone)]
enum Data<'d> {
    /// Not even `null`: Go's invalid value.
    Missing,
    Ref(&'d Value),
    Own(Rc<Value>),
}

/// A value in a running template.
#[derive(Debug, Clone)]
pub struct Val<'d> {
    data: Data<'d>,
    pub(crate) ty: &'static Type,
}

/// What a value is, ready to match on.
#[derive(Debug)]
pub(crate) enum View<'a> {
    Missing,
    /// A nil interface.
    Nil,
    NilPtr,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(&'a str),
    /// The elements and their type.
    List(&'a [Value], &'static Type),
    Map(Option<&'a Map<String, Value>>, &'static Type),
    Struct(Option<&'a Map<String, Value>>, &'static [Field]),
}

static NULL: Value = Value::Null;

impl<'d> Val<'d> {
    /// A value that is what its JSON says.
    pub fn json(value: &'d Value) -> Self {
        Self { data: Data::Ref(value), ty: &Type::Any }
    }

    /// A value seen through a type.
    pub fn typed(value: &'d Value, ty: &'static Type) -> Self {
        Self { data: Data::Ref(value), ty }
    }

    pub(crate) fn missing() -> Self {
        Self { data: Data::Missing, ty: &Type::Any }
    }

    pub(crate) fn nil(ty: &'static Type) -> Self {
        Self { data: Data::Ref(&NULL), ty }
    }

    /// An owned value.
    pub fn own(value: impl Into<Value>) -> Self {
        Self { data: Data::Own(Rc::new(value.into())), ty: &Type::Any }
    }

    /// The JSON beneath; `None` for a missing value.
    pub fn value(&self) -> Option<&Value> {
        match &self.data {
            Data::Missing => None,
            Data::Ref(value) => Some(value),
            Data::Own(value) => Some(value),
        }
    }

    /// An element of this value, found by `find` and seen as `ty`; borrowed where this value is.
    pub(crate) fn part(&self, ty: &'static Type, find: impl Fn(&Value) -> Option<&Value>) -> Option<Self> {
        Some(match &self.data {
            Data::Missing => return None,
            Data::Ref(value) => Self { data: Data::Ref(find(value)?), ty },
            Data::Own(value) => Self { data: Data::Own(Rc::new(find(value)?.clone())), ty },
        })
    }

    pub(crate) fn is_missing(&self) -> bool {
        matches!(self.data, Data::Missing)
    }

    /// A nil interface becomes the invalid value, as at the end of each pipeline stage.
    pub(crate) fn unwrapped(self) -> Self {
        if matches!(self.view(), View::Nil) { Self::missing() } else { self }
    }

    pub(crate) fn view(&self) -> View<'_> {
        match self.value() {
            None => View::Missing,
            Some(value) => view(value, self.ty),
        }
    }

    /// Go's truth: not zero, not empty.
    pub(crate) fn truth(&self) -> bool {
        match self.view() {
            View::Missing | View::Nil | View::NilPtr => false,
            View::Bool(value) => value,
            View::Int(value) => value != 0,
            View::Float(value) => value != 0.0,
            View::Str(text) => !text.is_empty(),
            View::List(items, _) => !items.is_empty(),
            View::Map(map, _) => map.is_some_and(|map| !map.is_empty()),
            View::Struct(..) => true,
        }
    }

    /// The name of the type, as Go prints it; the dynamic type where the static one is an interface.
    pub(crate) fn type_name(&self) -> String {
        match (self.ty, self.view()) {
            (Type::Any, View::Missing | View::Nil | View::NilPtr) => "nil".to_owned(),
            (Type::Any, View::Bool(_)) => "bool".to_owned(),
            (Type::Any, View::Int(_)) => "int".to_owned(),
            (Type::Any, View::Float(_)) => "float64".to_owned(),
            (Type::Any, View::Str(_)) => "string".to_owned(),
            (Type::Any, View::List(..)) => "[]interface {}".to_owned(),
            (Type::Any, View::Map(..)) => "map[string]interface {}".to_owned(),
            (ty, _) => static_name(ty),
        }
    }
}

pub(crate) fn static_name(ty: &Type) -> String {
    match ty {
        Type::Any => "interface {}".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int => "int".to_owned(),
        Type::Float => "float64".to_owned(),
        Type::Str => "string".to_owned(),
        Type::Ptr(to) => format!("*{}", static_name(to)),
        Type::Slice(of) => format!("[]{}", static_name(of)),
        Type::Map(of) => format!("map[string]{}", static_name(of)),
        Type::KeyedMap(key, of) => format!("map[{key}]{}", static_name(of)),
        Type::Struct(name, _) => (*name).to_owned(),
    }
}

pub(crate) fn view<'a>(value: &'a Value, ty: &'static Type) -> View<'a> {
    match (ty, value) {
        (Type::Ptr(_), Value::Null) => View::NilPtr,
        (Type::Ptr(to), value) => view(value, to),
        (Type::Any, Value::Null) => View::Nil,
        (Type::Bool, Value::Null) => View::Bool(false),
        (Type::Int, Value::Null) => View::Int(0),
        (Type::Float, Value::Null) => View::Float(0.0),
        (Type::Str, Value::Null) => View::Str(""),
        (Type::Slice(of), Value::Null) => View::List(&[], of),
        (Type::Map(of) | Type::KeyedMap(_, of), Value::Null) => View::Map(None, of),
        (Type::Struct(_, fields), Value::Null) => View::Struct(None, fields),
        (Type::Struct(_, fields), Value::Object(map)) => View::Struct(Some(map), fields),
        (Type::Slice(of), Value::Array(items)) => View::List(items, of),
        (Type::Map(of) | Type::KeyedMap(_, of), Value::Object(map)) => View::Map(Some(map), of),
        (Type::Float, Value::Number(number)) => View::Float(number.as_f64().unwrap_or_default()),
        (_, Value::Bool(value)) => View::Bool(*value),
        (_, Value::Number(number)) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => View::Int(int.into()),
            (_, Some(int)) => View::Int(int.into()),
            _ => View::Float(number.as_f64().unwrap_or_default()),
        },
        (_, Value::String(text)) => View::Str(text),
        (_, Value::Array(items)) => View::List(items, &Type::Any),
        (_, Value::Object(map)) => View::Map(Some(map), &Type::Any),
    }
}

/// A map's entries in the order Go visits them.
pub(crate) fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}
